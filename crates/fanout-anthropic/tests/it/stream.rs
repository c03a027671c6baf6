//! Streams: each fixture `NAME.sse` gives the response in `NAME.json`, or fails as `NAME.error` says.

use std::fs;
use std::path::{Path, PathBuf};

use fanout_anthropic::{Assembler, Block, Input, Message, ModelError, Part, Response, View};
use serde_json::json;

/// What a stream gave: the parts it told, one a line, and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) parts: Vec<String>,
    pub(crate) end: Result<Response, ModelError>,
}

/// Feeds the pieces of one stream.
pub(crate) fn assemble<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Told {
    let mut parts = Vec::new();
    let mut assembler = Assembler::new();
    let mut on_part = |part: Part<'_>| {
        parts.push(match part {
            Part::Limits(limits) => format!("limits {limits:?}"),
            Part::Text(text) => format!("text {text}"),
            Part::Block { index, block } => format!("block {index} {}", block.raw()),
        });
    };
    let fed = pieces.into_iter().try_for_each(|piece| assembler.feed(piece, &mut on_part));
    let end = fed.and_then(|()| assembler.finish());
    Told { parts, end }
}

/// All fixtures, by name.
pub(crate) fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sse"));
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

fn fixture(name: &str) -> Told {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).with_extension("sse");
    assemble([fs::read(path).unwrap().as_slice()])
}

fn view(name: &str, index: usize) -> View {
    fixture(name).end.unwrap().blocks[index].view().clone()
}

#[test]
fn every_fixture_gives_what_stands_beside_it() {
    let fixtures = fixtures();
    assert!(fixtures.len() > 25);
    for (path, stream) in fixtures {
        let (extension, seen) = match assemble([stream.as_slice()]).end {
            Ok(response) => ("json", response.to_json()),
            Err(error) => ("error", format!("{:?}: {error}", error.again())),
        };
        let beside = Path::new(&path).with_extension(extension);
        let want = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(seen, want.trim_end_matches('\n'), "{}", beside.display());
    }
}

#[test]
fn every_response_reads_back_and_prints_the_same() {
    for (path, stream) in fixtures() {
        let Ok(response) = assemble([stream.as_slice()]).end else { continue };
        let printed = response.to_json();
        let read = Response::parse(&printed).unwrap();
        assert_eq!(read.to_json(), printed, "{path}");
        assert_eq!((&read.usage, &read.extra), (&response.usage, &response.extra), "{path}");
        let message = Message::assistant(&response.blocks);
        assert_eq!(message, Message::parse(message.raw().clone()).unwrap());
        for (again, block) in message.blocks().unwrap().iter().zip(&response.blocks) {
            assert_eq!(again.raw(), block.raw(), "{path}");
            // Bad JSON goes back as an object that quotes it; all else reads the same.
            if !matches!(block.view(), View::ToolUse(call) if matches!(call.input, Input::Invalid(_))) {
                assert_eq!(again.view(), block.view(), "{path}");
            }
        }
    }
}

#[test]
fn the_pieces_of_a_text_join_to_it() {
    for (path, stream) in fixtures() {
        let told = assemble([stream.as_slice()]);
        let Ok(response) = told.end else { continue };
        let pieces: String = told.parts.iter().filter_map(|part| part.strip_prefix("text ")).collect();
        let text: String = response
            .blocks
            .iter()
            .filter_map(|block| match block.view() {
                View::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        // The refused text was told and then voided.
        assert!(pieces == text || path.contains("refusal"), "{path}: {pieces} {text}");
    }
}

#[test]
fn half_a_surrogate_pair_is_told_with_its_other_half() {
    let parts = fixture("text").parts;
    assert_eq!(parts[..2], ["text Hello", "text , café / café"]);
    assert_eq!(parts[2..4], ["text \n\"quoted\" \\ud83d ", "text 😀!"]);
    assert!(parts[4].starts_with("block 0 "));
    assert_eq!(parts.len(), 5);
}

#[test]
fn each_block_is_told_at_its_own_end() {
    let ends: Vec<_> = fixture("blocks_out_of_order")
        .parts
        .iter()
        .filter_map(|part| part.strip_prefix("block ")?.get(..1).map(str::to_owned))
        .collect();
    assert_eq!(ends, ["2", "1", "0"]);
}

#[test]
fn a_call_has_its_input_as_a_value_too() {
    let input = |name, index| match view(name, index) {
        View::ToolUse(call) => call.input,
        other => panic!("{other:?}"),
    };
    assert_eq!(input("calls_in_parallel", 1), Input::Json(json!({"city": "San José", "days": 1.0, "x": 1e5})));
    assert_eq!(input("calls_in_parallel", 2), Input::Json(json!({"b": 1, "a": "😀 /"})));
    assert_eq!(input("calls_in_parallel", 3), Input::Json(json!({})));
    assert_eq!(input("invalid_json", 0), Input::Invalid("{\"a\": \"x\", b\n".to_owned()));
    assert_eq!(input("invalid_json", 2), Input::Invalid("[1]".to_owned()));
    assert_eq!(input("invalid_json", 3), Input::Invalid(r#"{"n":1e999}"#.to_owned()));
    assert_eq!(input("cut_off_by_max_tokens", 1), Input::Invalid(r#"{"city":"Par"#.to_owned()));
}

#[test]
fn only_a_block_with_an_unknown_delta_is_not_whole() {
    let whole = |name| fixture(name).end.unwrap().blocks.iter().map(Block::is_whole).collect::<Vec<_>>();
    assert_eq!(whole("unknown_things"), [true, false, false]);
    assert_eq!(whole("thinking"), [true; 5]);
}

#[test]
fn usage_is_cumulative_and_later_values_win() {
    let usage = fixture("calls_in_parallel").end.unwrap().usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens), (30, 89, 3));
}
