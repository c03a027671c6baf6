//! Properties over generated cuts and generated JSON.
//!
//! `PROPTEST_CASES` says how many cases (256 unless told); a failure names its seed, which `FANOUT_SEED` plays again.

use std::env;
use std::hash::{BuildHasher, RandomState};

use fanout_anthropic::{Block, Input, Message, Raw, Request, Response, View};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::stream::{assemble, fixtures};

/// Runs a property from the seed of `FANOUT_SEED`, or else a fresh one.
#[track_caller]
fn check<S: Strategy>(strategy: &S, property: impl Fn(S::Value)) {
    let seed = env::var("FANOUT_SEED").map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(strategy, |value| {
        property(value);
        Ok(())
    });
    assert!(outcome.is_ok(), "FANOUT_SEED={seed}: {}", outcome.unwrap_err());
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("\r\n")]
}

/// The inside of a JSON string, in any spelling; halves of surrogate pairs included.
fn string_body() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[a-z0-9 {}:,é😀\u{7f}\u{2028}]{0,6}",
        1 => prop::sample::select(vec![r"\n", r"\/", r#"\""#, r"\\", r"\t", r"\b", r"\f", r"\r", r"\u0000"]).prop_map(str::to_owned),
        1 => any::<u16>().prop_map(|unit| format!(r"\u{unit:04x}")),
        1 => any::<u16>().prop_map(|unit| format!(r"\u{unit:04X}")),
        1 => any::<char>().prop_map(|c| c.encode_utf16(&mut [0; 2]).iter().map(|u| format!(r"\u{u:04x}")).collect()),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

/// Keys are texts, so they hold no half of a pair.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a",
        "name",
        "text",
        "id",
        "content",
        "input",
        "x_1",
        r"caf\u00e9",
        r"\/",
        "é",
        "citations",
    ])
    .prop_map(|key| format!("\"{key}\""))
}

/// Any JSON value as text: odd numbers, odd white space, repeated keys.
fn json() -> impl Strategy<Value = String> {
    let number = prop::sample::select(vec![
        "0",
        "-0",
        "1.0",
        "1e5",
        "1E+05",
        "2.50",
        "-1.5e-3",
        "123456789012345678901234567890",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        number.prop_map(str::to_owned),
        string_body().prop_map(|body| format!("\"{body}\"")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))),
            object(members(inner)),
        ]
    })
}

fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<String>> {
    let member = (key(), value, space(), space()).prop_map(|(key, value, a, b)| format!("{a}{key}{b}:{a}{value}{b}"));
    prop::collection::vec(member, 0..5)
}

fn object(members: impl Strategy<Value = Vec<String>>) -> impl Strategy<Value = String> {
    members.prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// An object of a kind that we do not know, `type` anywhere in it.
fn block() -> impl Strategy<Value = String> {
    (members(json()), any::<prop::sample::Index>()).prop_map(|(mut members, at)| {
        members.insert(at.index(members.len() + 1), r#" "type" : "hologram""#.to_owned());
        format!("{{{}}}", members.join(","))
    })
}

/// `text` cut into pieces at these places.
fn cut<'a>(text: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = places.iter().map(|place| place.index(text.len() + 1)).collect();
    ends.extend([0, text.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

#[test]
fn any_cut_of_any_stream_gives_the_same() {
    let fixtures: Vec<_> = fixtures().into_iter().map(|(_, stream)| (assemble([stream.as_slice()]), stream)).collect();
    let which = any::<prop::sample::Index>();
    check(&(which, cuts()), |(which, places)| {
        let (want, stream) = which.get(&fixtures);
        assert_eq!(&assemble(cut(stream, &places)), want);
    });
}

#[test]
fn a_stream_in_single_bytes_gives_the_same() {
    for (path, stream) in fixtures() {
        assert_eq!(assemble(stream.chunks(1)), assemble([stream.as_slice()]), "{path}");
    }
}

#[test]
fn any_bytes_are_survived() {
    let line = prop_oneof![
        prop::sample::select(vec![
            "event: error",
            "data: {",
            "data:{\"type\":\"content_block_stop\",\"index\":0}",
            "",
            ":",
            "data"
        ])
        .prop_map(|line| line.as_bytes().to_vec()),
        json().prop_map(|json| format!("data: {json}").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    check(&(prop::collection::vec(line, 0..8), cuts()), |(lines, places)| {
        let stream = lines.join(&b"\n"[..]);
        assert_eq!(assemble(cut(&stream, &places)), assemble([stream.as_slice()]));
    });
}

#[test]
fn any_object_goes_back_byte_for_byte() {
    check(&(block(), json(), block()), |(first, value, second)| {
        let text = format!(
            r#"{{"id":"m","content":[ {first} ,{second}],"x": {value} ,"model":"c","stop_reason":"end_turn"}}"#
        );
        let response = Response::parse(&text).unwrap();
        let texts: Vec<_> = response.blocks.iter().map(|block| block.raw().as_str()).collect();
        assert_eq!(texts, [&first, &second]);
        assert_eq!(response.extra[0].1.as_str(), value);
        assert_eq!(Response::parse(&response.to_json()).unwrap(), response);

        let message = Message::assistant(&response.blocks);
        assert_eq!(message.raw().as_str(), format!(r#"{{"role":"assistant","content":[{first},{second}]}}"#));
        let mut request = Request::new("m", 1, vec![message]);
        request.extra.push(("x".to_owned(), Raw::parse(&value).unwrap()));
        let bytes = request.to_bytes();
        let again = Request::parse(&bytes).unwrap();
        assert_eq!((again.to_bytes(), again), (bytes, request));
    });
}

#[test]
fn any_client_message_goes_on_byte_for_byte() {
    check(&(block(), members(json())), |(block, members)| {
        let members: String = members.iter().filter(|m| !m.contains("content")).map(|m| format!("{m},")).collect();
        let text = format!(r#"{{{members}"role":"user","content":[{block}]}}"#);
        let message = Message::parse(Raw::parse(&text).unwrap()).unwrap();
        assert_eq!(message.raw().as_str(), text);
        assert_eq!(message.blocks().unwrap()[0].raw().as_str(), block);
    });
}

/// One block as a stream: its start, a delta for each piece, its stop.
fn streamed(start: &str, deltas: impl IntoIterator<Item = String>) -> Block {
    let mut stream = format!("data: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{start}}}\n\n")
        .replace("\r\n", " ")
        .replace("\n\t", " ");
    for delta in deltas {
        stream.push_str(&format!("data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{delta}}}\n\n"));
    }
    stream.push_str("data: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
    stream.push_str("data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\"}}\n\n");
    stream.push_str("data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"}}\n\n");
    stream.push_str("data: {\"type\":\"message_stop\"}\n\n");
    assemble([stream.as_bytes()]).end.unwrap().blocks.remove(0)
}

#[test]
fn any_streamed_input_stands_in_its_block_byte_for_byte() {
    check(&(object(members(json())), cuts()), |(input, places)| {
        let pieces: Vec<String> = {
            let chars: Vec<char> = input.chars().collect();
            let mut ends: Vec<usize> = places.iter().map(|place| place.index(chars.len() + 1)).collect();
            ends.extend([0, chars.len()]);
            ends.sort_unstable();
            ends.windows(2).map(|ends| chars[ends[0]..ends[1]].iter().collect()).collect()
        };
        let deltas = pieces.iter().map(|piece| {
            format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, serde_json::to_string(piece).unwrap())
        });
        let block = streamed(r#"{"id":"t","type":"tool_use","input":{},"name":"n"}"#, deltas);
        assert_eq!(block.raw().as_str(), format!(r#"{{"id":"t","type":"tool_use","input":{input},"name":"n"}}"#));
        let want = serde_json::from_str(&input).map_or(Input::Invalid(input), Input::Json);
        assert!(matches!(block.view(), View::ToolUse(call) if call.input == want));
    });
}

#[test]
fn any_streamed_text_keeps_its_spelling() {
    check(&prop::collection::vec(string_body(), 0..6), |bodies| {
        let deltas = bodies.iter().map(|body| format!(r#"{{"type":"text_delta","text":"{body}"}}"#));
        let block = streamed(r#"{"type":"text","text":""}"#, deltas);
        assert_eq!(block.raw().as_str(), format!(r#"{{"type":"text","text":"{}"}}"#, bodies.concat()));
        assert_eq!(Block::parse(block.raw().clone()).unwrap(), block);
        // The JSON reader refuses halves of pairs; where it does not, it must agree.
        if let Ok(text) = serde_json::from_str::<String>(&format!("\"{}\"", bodies.concat())) {
            assert_eq!(block.view(), &View::Text(text));
        }
    });
}

#[test]
fn any_unknown_block_stays_as_it_began() {
    let start = block().prop_map(|block| block.replace("\r\n", " ").replace("\n\t", " "));
    check(&start, |start| assert_eq!(streamed(&start, []).raw().as_str(), start));
}
