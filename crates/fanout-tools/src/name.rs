//! What the tools of a source are called: `files__read_file`.
//!
//! From a source's name and the name that a tool has there. To whoever builds tools for a source with many.
//!
//! The same two names give the same third on every machine and in every version: histories and prompts hold it.

/// The longest name that is given, in bytes.
const NAME_MAX: usize = 64;

/// How much of a longer one is kept: the rest is `_` and [`fingerprint`] in eight hex digits.
const KEPT: usize = NAME_MAX - 9;

/// `source__tool`, with `_` for every character that the Messages API takes in no name; a name of more than 64 characters
/// is cut to 55, `_`, and eight hex digits that tell it from others which begin alike.
pub fn tool_name(source: &str, tool: &str) -> String {
    let full = format!("{source}__{tool}");
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name: String = full.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    match name.get(..KEPT) {
        Some(kept) if name.len() > NAME_MAX => format!("{kept}_{:08x}", fingerprint(&full)),
        _ => name,
    }
}

/// FNV-1a, 32 bits, of the whole name as it was before characters were replaced. It tells names apart and guards nothing:
/// two tools that come to one name are refused by the toolbox.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, tool: &str, name: &str) {
        assert_eq!(tool_name(source, tool), name);
    }

    #[test]
    fn a_name_is_the_source_and_the_tool() {
        check("files", "read_file", "files__read_file");
        check("my files", "read.file/all", "my_files__read_file_all");
        check("f", "größe", "f__gr__e");
    }

    #[test]
    fn a_long_name_is_cut_and_stays_apart_from_others_that_begin_alike() {
        check("f", &"a".repeat(61), &format!("f__{}", "a".repeat(61)));
        let long = |end: &str| tool_name("f", &format!("{}{end}", "a".repeat(61)));
        assert_eq!(long("b").len(), 64);
        assert_ne!(long("b"), long("c"));
        // Pinned: the name stands in histories, so it must not change from version to version.
        check(
            "f",
            &"a".repeat(62),
            &format!("f__{}_{:08x}", "a".repeat(52), fingerprint(&format!("f__{}", "a".repeat(62)))),
        );
        assert_eq!(fingerprint("foobar"), 0xbf9c_f968);
    }
}
