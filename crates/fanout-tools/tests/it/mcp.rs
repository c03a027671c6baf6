//! The tools of an MCP server: what is made of its list, and what comes of calls that go well.

use std::sync::Arc;

use fanout_core::call::Call;
use fanout_core::event::{Event, Recorder, What};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{Progress, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use fanout_tools::declared::EffectsError;
use fanout_tools::mcp::{Catalogued, McpError, McpListed, McpReach, McpServer, McpToolOptions};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::mcp_server::{Script, server, text};

fn declared(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// The keys of a call with `path` "a", and whether it is repeatable.
#[track_caller]
fn check(spec: &ToolSpec, reads: &[&str], writes: &[&str], repeatable: bool) {
    use fanout_core::effects::{Mode, Origin, Paths};
    let effects = spec.effects.resolve(&spec.source, &json!({"path": "a"}), &Paths::default());
    let decisive = if effects.declared { Origin::Declared } else { Origin::Inferred };
    let keys = |mode: Mode| -> Vec<String> {
        let ours = effects.accesses.iter().filter(|access| access.origin == decisive && access.mode == mode);
        ours.map(|access| access.key.to_string()).collect()
    };
    assert_eq!(
        (keys(Mode::Read).as_slice(), keys(Mode::Write).as_slice()),
        (owned(reads).as_slice(), owned(writes).as_slice())
    );
    assert_eq!(spec.repeatable(), repeatable);
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_hint_says_what_is_inferred_and_only_a_declaration_makes_a_tool_repeatable() {
    let script = Script::start("").await;
    let spec = |tool: &str, options: McpToolOptions| script.tool(tool, options).spec();
    let none = McpToolOptions::default;
    check(&spec("look", none()), &["mcp/s"], &[], false);
    check(&spec("old", none()), &[], &["mcp/s"], false);
    check(&spec("progress", none()), &[], &["mcp/s"], false);
    let writes = McpToolOptions { writes: declared(&["file/{path}"]), ..none() };
    check(&spec("old", writes), &[], &["file/a"], false);
    let reads = McpToolOptions { reads: declared(&["file/{path}"]), writes: declared(&[]), ..none() };
    check(&spec("look", reads), &["file/a"], &[], true);
    let reads = McpToolOptions { reads: declared(&["file/{path}"]), ..none() };
    check(&spec("look", reads), &["file/a"], &[], false);
    check(&spec("old", McpToolOptions { parallel: true, ..none() }), &[], &[], false);
    assert_eq!(spec("old", none()).name.as_str(), "s__old");
    assert_eq!(spec("old", none()).source.as_str(), "mcp/s");
}

#[tokio::test]
async fn the_catalogue_declares_what_nobody_else_does() {
    let script = Script::start("").await;
    let known = Catalogued { package: "script 1", reads: &["file/*"], writes: &[] };
    let listed = McpListed { catalogued: Some(known), ..script.listed[0].clone() };
    let spec = |options| script.server.tool(&listed, options).unwrap().spec();
    let by_catalogue = spec(McpToolOptions::default());
    check(&by_catalogue, &["file/*"], &[], true);
    assert_eq!(by_catalogue.catalogue, Some("script 1"));
    let declared = spec(McpToolOptions { writes: declared(&["a"]), ..McpToolOptions::default() });
    check(&declared, &[], &["a"], false);
    let parallel = spec(McpToolOptions { parallel: true, ..McpToolOptions::default() });
    check(&parallel, &[], &[], false);
    assert_eq!((declared.catalogue, parallel.catalogue), (None, None));
}

#[tokio::test]
async fn a_template_must_name_a_field_of_the_input() {
    let script = Script::start("").await;
    let options = McpToolOptions { writes: declared(&["file/{pat}"]), ..McpToolOptions::default() };
    let listed = script.listed.iter().find(|tool| tool.name == "old").unwrap();
    let error = script.server.tool(listed, options).unwrap_err();
    assert!(matches!(error, EffectsError::UnknownField(_)));
    assert_eq!(error.to_string(), "`file/{pat}` names `pat`, which the input lacks; did you mean `path`?");
}

#[tokio::test]
async fn an_answer_is_text_or_data_or_the_tools_own_error() {
    let script = Script::start("").await;
    let data = script.attempt("data").await.unwrap();
    assert_eq!(data.structured, Some(json!({"n": 1})));
    let fail = script.attempt("fail").await.unwrap();
    assert!(fail.is_error);
    assert_eq!(fail.value(), json!("no such file"));
    let refused = "`s__refuse`: the MCP server `s` answered error -32602: path is not allowed";
    assert_eq!(script.attempt("refuse").await, Err(ToolError::Failed(refused.to_owned())));
}

#[tokio::test]
async fn a_server_inherits_nothing_but_what_it_is_given() {
    let script = Script::start("").await;
    let said = script.says("where").await;
    assert!(said.starts_with("start 1, HOME=, SECRET=s3cret, in ."), "{said}");
    assert!(!format!("{:?}", script.server).contains("s3cret"));
}

#[tokio::test]
async fn sixteen_calls_are_under_way_at_once_on_one_connection() {
    let script = Script::start("").await;
    // Each is answered only once all are there.
    let outcomes = script.batch(&["meet"; 16], &[]).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.as_ref().is_ok_and(|output| output.value() == "met")));
    assert_eq!(script.starts(), 1);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_at_the_server() {
    let script = Script::start("").await;
    let hang = script.attempt("hang");
    tokio::pin!(hang);
    // Polled until its request is written: the server answers in order, so `where` comes after it.
    tokio::select! {
        biased;
        result = &mut hang => panic!("{result:?}"),
        said = script.says("where") => assert!(said.starts_with("start 1")),
    }
    let asked = script.says("asked");
    tokio::pin!(asked);
    tokio::select! {
        biased;
        said = &mut asked => panic!("nothing is cancelled yet: {said}"),
        said = script.says("where") => assert!(said.starts_with("start 1")),
    }
    hang.set(script.attempt("hang"));
    assert_eq!(asked.await, "cancelled");
}

#[tokio::test]
async fn an_address_or_a_header_that_cannot_be_used_is_refused() {
    let reach = |url: &str, header: (&str, &str)| {
        let client = fanout_tools::http::HttpClient::direct();
        let headers = vec![(header.0.to_owned(), header.1.into())];
        McpServer::new("s", McpReach::Http { url: url.into(), headers, client, access: None }).unwrap_err().to_string()
    };
    let wrong = "`url` must be an address such as \"https://example.com/mcp\"";
    assert_eq!(reach("ftp://s3cret", ("a", "b")), wrong);
    assert_eq!(reach("s3cret", ("a", "b")), wrong);
    assert_eq!(reach("http://a/", ("a", "s3cret\n")), "the header `a` cannot be sent");
    assert_eq!(
        reach("http://a/", ("Mcp-Session-Id", "b")),
        "the header `Mcp-Session-Id` is set by the protocol itself"
    );
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_so() {
    let reach = McpReach::Program {
        program: "no-such-program".into(),
        args: vec![],
        env: vec![],
        folder: None,
        secrets: Arc::default(),
    };
    let error = McpServer::new("s", reach).unwrap().list().await.unwrap_err();
    assert!(matches!(error, McpError::Program(_)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_named_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let error = server(folder.path(), "never").list().await.unwrap_err();
    let said = "it ended before it answered; it said last: start 1 | no licence was found for [redacted SECRET]";
    assert_eq!(error, McpError::Start(said.to_owned()));
}

/// Passes on how far calls are.
struct Heard(UnboundedSender<Progress>);

impl Recorder for Heard {
    fn record(&self, event: &Event) {
        if let What::CallProgress { progress, .. } = &event.what {
            self.0.send(progress.clone()).unwrap();
        }
    }
}

#[tokio::test]
async fn what_a_server_says_of_its_progress_is_an_event() {
    let script = Script::start("").await;
    let mut toolbox = Toolbox::new();
    toolbox.add(script.tool("progress", McpToolOptions::default())).unwrap();
    let (tell, mut heard) = unbounded_channel();
    let options = RunOptions { recorder: Some(Arc::new(Heard(tell))), ..RunOptions::new("r") };
    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), options);
    let mut batch = run.batch();
    batch.call(Call::new(0, "c", "s__progress", json!({}))).unwrap();
    let finishing = async {
        let progress = heard.recv().await.unwrap();
        assert_eq!(script.says("finish").await, "finished");
        progress
    };
    let (outcomes, progress) = tokio::join!(batch.finish(), finishing);
    assert_eq!(progress, Progress { done: 1.0, total: Some(4.0), message: Some("a quarter".into()) });
    assert_eq!(text(outcomes[0].result.as_ref().unwrap()), "done");
}
