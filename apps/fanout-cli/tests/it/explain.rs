//! `fanout explain`.

use serde_json::{Value, json};

use crate::api::Api;
use crate::binary::{Desk, content};

/// A shelf that calls read and write, with a secret that nobody needs to look at it.
fn shelf(api: &Api) -> String {
    let url = api.url("ok/{id}");
    let tool = |name: &str, method: &str, effects: &str| {
        format!(
            "[[tool]]\nname = \"{name}\"\ninput = {{ id = {{ type = \"string\" }} }}\n{effects}\n\
             http = {{ method = \"{method}\", url = \"{url}\", headers = {{ authorization = \"Bearer ${{NOT_SET}}\" }} }}\n"
        )
    };
    [
        tool("look", "GET", "reads = [\"shelf/{id}\"]"),
        tool("take", "POST", "writes = [\"shelf/{id}\"]"),
        tool("sweep", "POST", "writes = [\"shelf/*\"]"),
        tool("note", "POST", ""),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_names_the_nearest_waits_and_runs_nothing() {
    let api = Api::open().await;
    let desk = Desk::with(&shelf(&api));
    let calls = content(&[
        ("a", "take", r#"{"id":"1"}"#),
        ("b", "look", r#"{"id":"1"}"#),
        ("c", "look", r#"{"id":"1"}"#),
        ("d", "take", r#"{"id":"1"}"#),
        ("e", "take", r#"{"id":"2"}"#),
        ("f", "sweep", r#"{"id":"x"}"#),
        ("g", "nothing_such", "{}"),
    ]);
    let graph = desk.run(&["explain", "--json"], &calls).await.code(0).json();
    let wait = |on: &str, key: &str| json!({"on": on, "why": "conflict", "key": key});
    let waits: Vec<&Value> = graph["calls"].as_array().unwrap().iter().map(|call| &call["waits"]).collect();
    let expected = [
        json!([]),
        json!([wait("a", "shelf/1")]),
        json!([wait("a", "shelf/1")]),
        // The last writer and the readers since.
        json!([wait("a", "shelf/1"), wait("b", "shelf/1"), wait("c", "shelf/1")]),
        json!([]),
        json!([wait("d", "shelf/*"), wait("e", "shelf/*")]),
        json!([]),
    ];
    for (at, expected) in expected.iter().enumerate() {
        let found = waits[at].as_array().unwrap();
        let named =
            |list: &[Value]| list.iter().map(|wait| wait["on"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let mut both = (named(found), named(expected.as_array().unwrap()));
        both.0.sort();
        assert_eq!(both.0, both.1, "call {at}: {}", waits[at]);
        assert!(found.iter().all(|wait| wait["why"] == "conflict" && wait["key"].is_string()));
    }
    assert_eq!(graph["calls"][1]["waits"], expected[1]);
    let waves: Vec<u64> = graph["calls"].as_array().unwrap().iter().map(|c| c["wave"].as_u64().unwrap()).collect();
    assert_eq!(waves, [1, 2, 2, 3, 1, 4, 1]);
    assert_eq!(
        (&graph["waves"], &graph["critical_path"]),
        (&json!(4), &json!(["a", "b", "d", "f"])),
        "ties: the first"
    );
    assert_eq!(graph["calls"][0]["reads"], json!([]));
    assert_eq!(graph["calls"][0]["writes"], json!(["shelf/1"]));
    assert_eq!(graph["calls"][6]["error"]["code"], "unknown_tool");
    let by_format = desk.run(&["explain", "--format", "json"], &calls).await.code(0).json();
    assert_eq!(by_format, graph);
    assert_eq!(api.all(), 0, "nothing ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_can_be_read_and_drawn() {
    let api = Api::open().await;
    let desk = Desk::with(&shelf(&api));
    let calls =
        content(&[("a", "take", r#"{"id":"1"}"#), ("b", "look", r#"{"id":"1"}"#), ("n", "note", r#"{"id":"1"}"#)]);
    let text = desk.run(&["explain"], &calls).await.code(0).out;
    let host = api.url("").trim_end_matches('/').replace("http://", "http/");
    let expected = format!(
        "wave 1\n  take (a)\n    reads nothing; writes shelf/1\nwave 2\n  look (b)\n    reads shelf/1; writes nothing\n    \
         waits for a: conflict on shelf/1\nwave 3\n  note (n)\n    reads nothing; writes {host}\n    \
         waits for b: conflict on {host}, for want of a declaration\n3 calls in 3 waves; critical path: a → b → n\n\
         a declaration is missing: [[tool]] `note`: writes = [\"note/{{id}}\"]\n"
    );
    // The note waits for the write too: it may be named or stand behind the read.
    let also = format!("    waits for a: conflict on {host}, for want of a declaration\n");
    assert_eq!(text.replace(&also, ""), expected);
    let drawn = desk.run(&["explain", "--format", "mermaid"], &calls).await.code(0).out;
    assert!(drawn.starts_with("flowchart LR\n  c0[\"take<br/>a\"]\n  c1[\"look<br/>b\"]\n"), "{drawn}");
    assert!(drawn.contains("  c0 -->|\"conflict: shelf/1\"| c1\n"), "{drawn}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_calls_is_explained_without_a_line_that_fills_the_screen() {
    let api = Api::open().await;
    let ids: Vec<String> = (0..5_000).map(|n| format!("t{n}")).collect();
    let calls: Vec<_> = ids.iter().map(|id| (id.as_str(), "take", r#"{"id":"1"}"#)).collect();
    let text = Desk::with(&shelf(&api)).run(&["explain"], &content(&calls)).await.code(0).out;
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("5000 calls in 5000 waves; critical path: t0 → t1 → "), "{last}");
    assert!(last.contains(" → … 4980 more … → ") && last.ends_with(" → t4999"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_model_made_up_cannot_steer_a_terminal() {
    let calls = content(&[("a\\u001b[2J", "no\\u001b]0;tool", "{}")]);
    let came = Desk::new().run(&["explain"], &calls).await.code(0);
    assert!(!came.out.contains('\u{1b}'), "{}", came.out);
    let came = Desk::new().run(&["call"], &calls).await.code(0);
    assert!(!came.err.contains('\u{1b}'), "{}", came.err);
    assert_eq!(came.results()[0].0, "a\u{1b}[2J", "the id goes back as it came");
}
