//! What the model is shown of an outcome: shaped once, so that model, journal and dashboard see the same bytes.
//!
//! From an outcome's result and its tool's `max_result`. To the reply. Nothing is decided here but length.

use std::sync::Arc;

use crate::outcome::{CallError, Content, Output};

/// What an error says is not cut below this, in bytes: what happened and what to do next always fits.
const ERROR_LEAST: usize = 2048;

/// The content of the `tool_result`: the output within `max` bytes of text, with an honest note of what was cut, or the
/// error's body, whose message is cut likewise. Pictures are not cut: half of one shows nothing.
pub fn shape(result: &Result<Arc<Output>, CallError>, max: usize) -> Arc<[Content]> {
    let output = match result {
        Ok(output) => output,
        Err(error) if error.message.len() > max.max(ERROR_LEAST) => {
            let shown = cut(&error.message, max.max(ERROR_LEAST));
            let message = format!("{shown}\n{}", note(shown.len(), error.message.len()));
            let error = CallError { message, ..error.clone() };
            return Arc::from([Content::Text(error.body().into())]);
        }
        Err(error) => return Arc::from([Content::Text(error.body().into())]),
    };
    let total: usize = output.content.iter().map(text_len).sum();
    if total <= max {
        return output.content.as_slice().into();
    }
    let (mut before, mut bytes) = (0, 0);
    let mut shown = Vec::with_capacity(output.content.len() + 1);
    for content in &output.content {
        match content {
            Content::Text(text) => {
                // What follows a cut is gone, even where it is short enough: what is shown is the beginning.
                let part = cut(text, max.saturating_sub(before));
                before += text.len();
                bytes += part.len();
                if !part.is_empty() {
                    shown.push(Content::Text(part.into()));
                }
            }
            image @ Content::Image { .. } => shown.push(image.clone()),
        }
    }
    shown.push(Content::Text(note(bytes, total).into()));
    shown.into()
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max.min(text.len()))]
}

fn note(shown: usize, total: usize) -> String {
    format!("[cut: the first {shown} of {total} bytes are shown; ask for less, or for a part]")
}

fn text_len(content: &Content) -> usize {
    match content {
        Content::Text(text) => text.len(),
        Content::Image { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::ErrorCode;

    fn texts(result: &Result<Arc<Output>, CallError>, max: usize) -> Vec<String> {
        let text = |content: &Content| match content {
            Content::Text(text) => text.to_string(),
            Content::Image { .. } => "image".to_owned(),
        };
        shape(result, max).iter().map(text).collect()
    }

    /// A piece `image` is a picture.
    #[track_caller]
    fn check(pieces: &[&str], max: usize, shown: &[&str]) {
        let content = |piece: &&str| match *piece {
            "image" => Content::Image { media_type: "image/png".into(), data: "A".into() },
            text => Content::Text(text.into()),
        };
        let output = Output { content: pieces.iter().map(content).collect(), ..Output::default() };
        assert_eq!(texts(&Ok(Arc::new(output)), max), shown);
    }

    #[test]
    fn what_fits_is_shown_whole_and_the_rest_is_cut_at_a_character_with_a_note() {
        check(&["four"], 4, &["four"]);
        check(&["fives"], 4, &["five", "[cut: the first 4 of 5 bytes are shown; ask for less, or for a part]"]);
        check(&["aäb"], 2, &["a", "[cut: the first 1 of 4 bytes are shown; ask for less, or for a part]"]);
    }
    #[test]
    fn after_a_cut_there_are_pictures_and_no_text() {
        let note = "[cut: the first 1 of 4 bytes are shown; ask for less, or for a part]";
        check(&["aä", "b", "image"], 2, &["a", "image", note]);
        let note = "[cut: the first 3 of 4 bytes are shown; ask for less, or for a part]";
        check(&["ab", "image", "cd"], 3, &["ab", "image", "c", note]);
    }

    #[test]
    fn the_message_of_an_error_is_cut_too() {
        let error = |message: &str| Err(CallError::new(ErrorCode::Upstream, message));
        let body = |message: &str| [format!(r#"{{"error":{{"code":"upstream","message":"{message}"}}}}"#)];
        let (fits, short) = ("x".repeat(3000), "x".repeat(2048));
        assert_eq!(texts(&error(&fits), 3000), body(&fits));
        assert_eq!(texts(&error(&short), 10), body(&short), "our own words always fit");
        for (max, shown) in [(2999, 2999), (10, 2048)] {
            let note = format!("[cut: the first {shown} of 3000 bytes are shown; ask for less, or for a part]");
            assert_eq!(texts(&error(&fits), max), body(&format!("{}\\n{note}", "x".repeat(shown))));
        }
    }
}
