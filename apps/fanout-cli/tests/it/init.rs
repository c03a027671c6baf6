//! `fanout init`: what each template makes works as it is.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::binary::{Came, Desk, ended, feed};

/// Makes a template in the folder `a` and runs `check` there, with no variable set.
async fn made(template: &[&str]) -> (Desk, Value) {
    let desk = Desk::new();
    let came = desk.run(&[&["init", "a"], template].concat(), "").await.code(0);
    assert!(came.out.contains("a/fanout.toml") && came.out.contains("next\n  cd a\n  fanout check"), "{}", came.out);
    let checked = inside(&desk, &["check", "--json"], "").await.code(0);
    assert_eq!(checked.err, "", "no warning");
    let tools: Vec<Value> = checked.lines().into_iter().filter(|line| line["type"] == "tool").collect();
    assert!(!tools.is_empty());
    assert!(tools.iter().all(|tool| tool["declared"] == true && tool["proposed"].is_null()), "{tools:?}");
    (desk, tools.into())
}

/// Runs the binary in the folder `a`.
async fn inside(desk: &Desk, arguments: &[&str], input: &str) -> Came {
    let mut command = desk.command(env!("CARGO_BIN_EXE_fanout"));
    command.current_dir(desk.folder().join("a")).args(arguments);
    ended(feed(command.spawn().unwrap(), input)).await
}

fn texts(came: &Came) -> Vec<String> {
    came.results()
        .into_iter()
        .map(|(_, is_error, text)| if is_error { format!("error: {text}") } else { text })
        .collect()
}

async fn called(desk: &Desk) -> Vec<String> {
    let input = std::fs::read_to_string(desk.folder().join("a/assistant.json")).unwrap();
    texts(&inside(desk, &["call"], &input).await.code(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_template_there_are_notes_to_read_and_write() {
    let (desk, _) = made(&[]).await;
    let texts = called(&desk).await;
    assert_eq!(texts[0], "Water the plants.\n");
    assert_eq!(texts[3], "Call the supplier.\n Order paper.", "the read after the write sees it");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_mcp_template_has_a_server_that_answers() {
    let (desk, _) = made(&["--template", "mcp"]).await;
    let texts = called(&desk).await;
    assert!(texts[0].contains("kept by notes_server.py"), "{texts:?}");
    assert_eq!(texts[2], "Two tools, one server.");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_tools_of_the_python_template_run_and_its_script_is_python() {
    let (desk, _) = made(&["--template", "python"]).await;
    let calls = crate::binary::content(&[
        ("a", "get_order", r#"{"id":"8"}"#),
        ("b", "add_note", r#"{"id":"8","text":"late"}"#),
        ("c", "get_order", r#"{"id":"8"}"#),
        ("d", "get_customer", r#"{"name":"nobody"}"#),
    ]);
    let texts = texts(&inside(&desk, &["call"], &calls).await.code(0));
    assert!(texts[0].contains(r#""notes": []"#) && texts[2].contains(r#""notes": ["late"]"#), "{texts:?}");
    assert!(texts[3].starts_with("error: ") && texts[3].contains("there are Ada, Grace"), "{texts:?}");
    let mut compile = Command::new("python3");
    compile.args(["-m", "py_compile", "ask.py"]).current_dir(desk.folder().join("a"));
    assert!(compile.status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supabase_template_asks_the_project_that_the_variables_name() {
    let (desk, tools) = made(&["--template", "nextjs-supabase"]).await;
    assert!(tools.as_array().unwrap().iter().all(|tool| tool["source"] == "http/127.0.0.1:54321"), "{tools}");
    let api = crate::api::Api::open().await;
    let desk = desk.set("SUPABASE_URL", api.url("ok")).set("SUPABASE_KEY", "k");
    let calls = crate::binary::content(&[
        ("a", "list_orders", r#"{"customer_id":"7"}"#),
        ("b", "get_order", r#"{"order_id":"8"}"#),
        ("c", "set_order_status", r#"{"order_id":"8","status":"sent"}"#),
        ("d", "add_note", r#"{"order_id":"8","body":"sent"}"#),
    ]);
    let results = inside(&desk, &["call"], &calls).await.code(0).results();
    assert!(results.iter().all(|(_, is_error, text)| !is_error && text.contains("rest/v1/")), "{results:?}");
    assert_eq!(api.all(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_never_touched() {
    let desk = Desk::with("# mine\n");
    let came = desk.run(&["init"], "").await.code(2);
    assert!(came.err.contains("already in ., and nothing was written: fanout.toml"), "{}", came.err);
    assert_eq!(std::fs::read_to_string(desk.folder().join("fanout.toml")).unwrap(), "# mine\n");
    assert!(!Path::new(&desk.folder().join("assistant.json")).exists());
    let lines = desk.run(&["init", "--json", "b"], "").await.code(0).lines();
    assert_eq!((lines.len(), lines[0]["type"].as_str()), (4, Some("made")));
}
