//! What a tool answered, as an output.
//!
//! From `tool`. To the scheduler: text as text, pictures that the model can look at as pictures, everything else described
//! in a line. `isError` passes as it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanout_core::outcome::{Content, Output};
use rmcp::model::{CallToolResult, ContentBlock, Resource, ResourceContents};

use crate::http::answer::thousands;
use crate::http::picture::{can_be_shown, picture};

/// Reads an answer. Content that would be empty, which the Messages API refuses, is its data, or a note.
pub(super) fn output(result: CallToolResult) -> Output {
    let mut content: Vec<Content> = result.content.into_iter().filter_map(piece).collect();
    if content.is_empty() {
        let note = match &result.structured_content {
            Some(data) => data.to_string(),
            None => "(the tool answered without any content)".to_owned(),
        };
        content.push(Content::Text(note.into()));
    }
    Output { content, structured: result.structured_content, is_error: result.is_error.unwrap_or_default() }
}

fn piece(block: ContentBlock) -> Option<Content> {
    let text = match block {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => return Some(image_or_note(&image.mime_type, image.data, "")),
        ContentBlock::Audio(audio) => described("audio", &audio.mime_type, &audio.data, ""),
        ContentBlock::Resource(embedded) => return resource(embedded.resource),
        ContentBlock::ResourceLink(link) => linked(&link),
        _ => "(content of a kind that is not known here)".to_owned(),
    };
    (!text.is_empty()).then(|| Content::Text(text.into()))
}

/// The text of a resource is what it holds, under a line that says where it is from.
fn resource(resource: ResourceContents) -> Option<Content> {
    match resource {
        ResourceContents::TextResourceContents { uri, text, .. } => {
            Some(Content::Text(format!("[resource {uri}]\n{text}").into()))
        }
        ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
            Some(image_or_note(&mime_type.unwrap_or_default(), blob, &format!(", resource {uri}")))
        }
        _ => Some(Content::Text("(a resource of a kind that is not known here)".into())),
    }
}

fn linked(link: &Resource) -> String {
    let title = link.title.as_deref().unwrap_or(&link.name);
    let media = link.mime_type.as_deref().map(|media| format!(", {media}")).unwrap_or_default();
    let size = link.size.map(|size| format!(", {size} bytes")).unwrap_or_default();
    let description = link.description.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
    format!("[link to the resource {}: {title}{media}{size}]{description}", link.uri)
}

/// A picture is one by its first bytes: the Messages API refuses a whole request for one that is not what it says.
fn image_or_note(media: &str, data: String, of: &str) -> Content {
    match STANDARD.decode(data.as_bytes()) {
        Ok(bytes) => match picture(&bytes) {
            Some(media) if can_be_shown(&bytes) => Content::Image { media_type: media.to_owned(), data: data.into() },
            _ => Content::Text(described("binary", media, &data, of).into()),
        },
        Err(_) => Content::Text(format!("(data of {media} that is not base64{of})").into()),
    }
}

fn described(kind: &str, media: &str, base64: &str, of: &str) -> String {
    let media = if media.is_empty() { "an unnamed type" } else { media };
    format!("{kind}, about {} bytes of {media}{of}", thousands(base64.len() / 4 * 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(result: Value) -> Output {
        output(serde_json::from_value(result).unwrap())
    }

    #[track_caller]
    fn check(block: Value, shown: &str) {
        assert_eq!(read(json!({ "content": [block] })).content, [Content::Text(shown.into())]);
    }

    #[test]
    fn everything_but_pictures_is_shown_as_text() {
        check(json!({"type": "text", "text": "hi"}), "hi");
        check(json!({"type": "audio", "mimeType": "audio/wav", "data": "AAAA"}), "audio, about 3 bytes of audio/wav");
        check(
            json!({"type": "resource_link", "uri": "file:///a", "name": "a", "mimeType": "text/plain", "description": "A."}),
            "[link to the resource file:///a: a, text/plain]: A.",
        );
        check(
            json!({"type": "resource", "resource": {"uri": "file:///a", "text": "line"}}),
            "[resource file:///a]\nline",
        );
        check(
            json!({"type": "resource", "resource": {"uri": "file:///a", "blob": "AAAA"}}),
            "binary, about 3 bytes of an unnamed type, resource file:///a",
        );
        check(
            json!({"type": "image", "mimeType": "image/svg+xml", "data": "AAAA"}),
            "binary, about 3 bytes of image/svg+xml",
        );
        check(
            json!({"type": "image", "mimeType": "image/png", "data": "no!"}),
            "(data of image/png that is not base64)",
        );
    }

    #[test]
    fn a_picture_is_what_its_first_bytes_say() {
        let data = STANDARD.encode([0x89, b'P', b'N', b'G', 0x0d]);
        let output = read(json!({ "content": [{"type": "image", "mimeType": "image/jpeg", "data": data}] }));
        assert_eq!(output.content, [Content::Image { media_type: "image/png".to_owned(), data: data.into() }]);
    }

    #[test]
    fn no_content_is_its_data_or_a_note() {
        let data = read(json!({ "content": [], "structuredContent": {"n": 1} }));
        assert_eq!(data.content, [Content::Text("{\"n\":1}".into())]);
        assert_eq!(data.structured, Some(json!({"n": 1})));
        let none = read(json!({ "content": [{"type": "text", "text": ""}], "isError": true }));
        assert_eq!(none.content, [Content::Text("(the tool answered without any content)".into())]);
        assert!(none.is_error);
    }
}
