//! What the model is shown of an outcome: shaped once, so that model, journal and dashboard see the same bytes.
//!
//! From an outcome's result and its tool's `max_result`. To the reply. Nothing is decided here but length.

use std::sync::Arc;

use crate::outcome::{CallError, Content, Output};

/// The content of the `tool_result`: the output within `max` bytes of text, with an honest note of what was cut, or the
/// error's body. Pictures are not cut: half of one shows nothing.
pub fn shape(result: &Result<Arc<Output>, CallError>, max: usize) -> Arc<[Content]> {
    let output = match result {
        Ok(output) => output,
        Err(error) => return Arc::from([Content::Text(error.body().into())]),
    };
    let total: usize = output.content.iter().map(text_len).sum();
    if total <= max {
        return output.content.as_slice().into();
    }
    let mut left = max;
    let mut shown = Vec::with_capacity(output.content.len() + 1);
    for content in &output.content {
        match content {
            Content::Text(text) => {
                let end = text.floor_char_boundary(left.min(text.len()));
                left -= end;
                if end > 0 {
                    shown.push(Content::Text(text[..end].into()));
                }
            }
            image @ Content::Image { .. } => shown.push(image.clone()),
        }
    }
    let note = format!("[cut: the first {} of {total} bytes are shown; ask for less, or for a part]", max - left);
    shown.push(Content::Text(note.into()));
    shown.into()
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

    #[track_caller]
    fn check(text: &str, max: usize, shown: &[&str]) {
        let shaped = shape(&Ok(Arc::new(Output::text(text))), max);
        let texts: Vec<&str> = shaped
            .iter()
            .map(|content| match content {
                Content::Text(text) => &**text,
                Content::Image { .. } => "image",
            })
            .collect();
        assert_eq!(texts, shown);
    }

    #[test]
    fn what_fits_is_shown_whole_and_the_rest_is_cut_at_a_character_with_a_note() {
        check("four", 4, &["four"]);
        check("fives", 4, &["five", "[cut: the first 4 of 5 bytes are shown; ask for less, or for a part]"]);
        check("aäb", 2, &["a", "[cut: the first 1 of 4 bytes are shown; ask for less, or for a part]"]);
    }
}
