//! What a picture is, by its first bytes, and whether the model can be shown it.
//!
//! From a body of an endpoint or a picture of an MCP server. To the block that the model sees, or a description instead: the
//! Messages API refuses the whole request for one picture that is not what it says, or is too large, and every later
//! request of the run would hold it too.

/// The largest picture that the model can be shown, in bytes: the Messages API takes 5 MB in base64.
const BYTES_MAX: usize = 3_750_000;

/// The longest side that the Messages API takes, in pixels.
const SIDE_MAX: u32 = 8_000;

/// The media type of a picture that the Messages API takes, by its first bytes.
pub(crate) fn picture(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Whether a picture is small enough, in bytes and on both sides as far as they can be read.
pub(crate) fn can_be_shown(body: &[u8]) -> bool {
    body.len() <= BYTES_MAX && sides(body).is_none_or(|(width, height)| width <= SIDE_MAX && height <= SIDE_MAX)
}

/// Width and height in pixels.
fn sides(body: &[u8]) -> Option<(u32, u32)> {
    match picture(body)? {
        // The chunk IHDR stands first.
        "image/png" => Some((u32::from_be_bytes(read(body, 16)?), u32::from_be_bytes(read(body, 20)?))),
        "image/gif" => Some((u16::from_le_bytes(read(body, 6)?).into(), u16::from_le_bytes(read(body, 8)?).into())),
        "image/jpeg" => jpeg_sides(body),
        // The extended form says its canvas in three bytes each, less one.
        _ if body.get(12..16) == Some(b"VP8X") => {
            let side = |at| Some(u32::from_le_bytes([*body.get(at)?, *body.get(at + 1)?, *body.get(at + 2)?, 0]) + 1);
            Some((side(24)?, side(27)?))
        }
        // Fourteen bits each, after the start code of the frame.
        _ if body.get(12..16) == Some(b"VP8 ") => {
            let side = |at| Some(u32::from(u16::from_le_bytes(read(body, at)?) & 0x3FFF));
            Some((side(26)?, side(28)?))
        }
        // Fourteen bits each, less one, in one number.
        _ => {
            let bits = u32::from_le_bytes(read(body, 21)?);
            Some(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        }
    }
}

/// From segment to segment until the one that begins a frame (SOF).
fn jpeg_sides(body: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let [mark, kind] = read(body, at)?;
        match kind {
            _ if mark != 0xFF => return None,
            // Bytes that only fill, and marks without a length.
            0xFF => at += 1,
            0x01 | 0xD0..=0xD8 => at += 2,
            0xC0..=0xCF if !matches!(kind, 0xC4 | 0xC8 | 0xCC) => {
                let (height, width) = (read(body, at + 5)?, read(body, at + 7)?);
                return Some((u16::from_be_bytes(width).into(), u16::from_be_bytes(height).into()));
            }
            _ => at += 2 + usize::from(u16::from_be_bytes(read(body, at + 2)?)),
        }
    }
}

fn read<const N: usize>(body: &[u8], at: usize) -> Option<[u8; N]> {
    body.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a picture of each kind.
    fn pictures(width: u16, height: u16) -> [Vec<u8>; 6] {
        let big = |side: u16| u32::from(side).to_be_bytes();
        let three = |side: u16| [(side - 1).to_le_bytes().as_slice(), &[0]].concat();
        let bits = u32::from(width - 1) | u32::from(height - 1) << 14;
        let (w, h) = (width.to_le_bytes(), height.to_le_bytes());
        let jpeg: [&[u8]; 4] = [
            b"\xFF\xD8\xFF\xE0\0\x04ab\xFF\xFF\xC4\0\x03a\xFF\xC2\0\x11\x08",
            &height.to_be_bytes(),
            &width.to_be_bytes(),
            b"\x03",
        ];
        [
            [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &big(width), &big(height)].concat(),
            [b"GIF89a".as_slice(), &w, &h].concat(),
            jpeg.concat(),
            [b"RIFF....WEBPVP8X....\0\0\0\0".as_slice(), &three(width), &three(height)].concat(),
            [b"RIFF....WEBPVP8 ....abc\x9d\x01\x2a".as_slice(), &w, &h].concat(),
            [b"RIFF....WEBPVP8L....\x2f".as_slice(), &bits.to_le_bytes()].concat(),
        ]
    }

    #[test]
    fn a_picture_with_a_side_that_is_too_long_cannot_be_shown() {
        for (width, height, shown) in [(8_000, 1, true), (1, 8_000, true), (8_001, 1, false), (1, 8_001, false)] {
            for (kind, body) in pictures(width, height).iter().enumerate() {
                assert_eq!(sides(body), Some((width.into(), height.into())), "{kind}");
                assert_eq!(can_be_shown(body), shown, "{kind}: {width} by {height}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_has_no_sides_and_reads_nothing_beyond_its_end() {
        for body in pictures(300, 200) {
            for length in 0..body.len() {
                let _ = sides(&body[..length]);
            }
            assert_eq!(sides(&body[..4]), None);
        }
        assert!(can_be_shown(b"\x89PNG"));
    }
}
