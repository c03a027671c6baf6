//! Functions as tools: schema, input, output, errors, threads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::outcome::{ErrorCode, Output};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{Attempt, Tool, ToolError};
use fanout_core::toolbox::Toolbox;
use fanout_tools::function::{Function, FunctionError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who to look up.
#[derive(Deserialize, JsonSchema)]
struct GetUser {
    /// The customer's id.
    user_id: String,
    #[serde(default)]
    #[expect(dead_code, reason = "only its place in the schema matters")]
    page: Option<Page>,
}

#[derive(Deserialize, JsonSchema)]
struct Page {
    #[expect(dead_code, reason = "only its place in the schema matters")]
    size: u8,
}

#[derive(Serialize)]
struct User {
    id: String,
    orders: Vec<u32>,
}

#[derive(Debug)]
struct Sad;

impl fmt::Display for Sad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such user")
    }
}

fn get_user() -> Function {
    Function::new("get_user", "Look up a customer by id.", |input: GetUser, _: Attempt| async move {
        match &*input.user_id {
            "nobody" => Err(Sad),
            _ => Ok(User { id: input.user_id, orders: vec![1, 2] }),
        }
    })
    .reads(["user/{user_id}"])
    .writes([])
    .build()
    .unwrap()
}

async fn call(tool: &Function, input: Value) -> Result<Output, ToolError> {
    let name = tool.spec().name;
    tool.call(Attempt::detached(name.as_str(), input)).await
}

#[test]
fn the_schema_comes_from_the_input_type() {
    let spec = get_user().spec();
    assert_eq!(spec.name.as_str(), "get_user");
    assert_eq!(spec.description, "Look up a customer by id.");
    assert_eq!(spec.input_schema["type"], "object");
    assert_eq!(spec.input_schema["required"], json!(["user_id"]));
    assert_eq!(spec.input_schema["properties"]["user_id"]["description"], "The customer's id.");
    assert_eq!(spec.input_schema.get("$schema"), None);
    assert_eq!(spec.input_schema.get("title"), None);
}

#[test]
fn what_is_said_of_a_function_stands_in_its_spec() {
    let tool = Function::new("f", "", |_: GetUser, _: Attempt| async { Ok::<_, Sad>(()) })
        .after(["g"])
        .timeout(Duration::from_secs(1))
        .deadline(Duration::from_secs(2))
        .result_max(3)
        .nested()
        .source("command")
        .idempotent()
        .build()
        .unwrap();
    let spec = tool.spec();
    assert_eq!(spec.policy.after, ["g".into()]);
    assert_eq!(spec.policy.timeout, Duration::from_secs(1));
    assert_eq!(spec.policy.deadline, Duration::from_secs(2));
    assert_eq!(spec.policy.result_max, 3);
    assert!(spec.policy.nested && spec.policy.idempotent && spec.repeatable());
    assert_eq!(spec.effects.inferred_writes[0].to_string(), "command");
    assert!(!spec.effects.is_declared());
}

#[test]
fn only_a_function_declared_to_write_nothing_may_be_tried_again() {
    let build = |writes: Option<&'static str>| {
        let tool = Function::new("f", "", |_: GetUser, _: Attempt| async { Ok::<_, Sad>(()) });
        tool.writes(writes).build().unwrap().spec().repeatable()
    };
    assert!(build(None));
    assert!(!build(Some("user/{user_id}")));
    let silent = Function::new("f", "", |_: GetUser, _: Attempt| async { Ok::<_, Sad>(()) }).build().unwrap();
    assert!(!silent.spec().repeatable());
}

#[test]
fn a_template_that_cannot_be_right_is_an_error_when_the_tool_is_built() {
    let build = |template: &'static str| {
        let tool = Function::new("f", "", |_: GetUser, _: Attempt| async { Ok::<_, Sad>(()) });
        tool.reads([template]).build().unwrap_err()
    };
    assert!(matches!(build("user/{user_id"), FunctionError::Template { .. }));
    assert_eq!(
        build("user/{userid}").to_string(),
        "`user/{userid}` in the effects of `f` names `userid`, which its input lacks; did you mean `user_id`?"
    );
    assert_eq!(
        build("user/{xyz}").to_string(),
        "`user/{xyz}` in the effects of `f` names `xyz`, which its input lacks"
    );
}

#[test]
fn an_input_must_be_an_object() {
    let tool = Function::new("f", "", |_: String, _: Attempt| async { Ok::<_, Sad>(()) });
    assert!(matches!(tool.build(), Err(FunctionError::NotAnObject { .. })));
    let tool = Function::new("f", "", |_: Value, _: Attempt| async { Ok::<_, Sad>(()) });
    assert_eq!(tool.build().unwrap().spec().input_schema, json!({"type": "object"}));
    let map = Function::new("f", "", |_: BTreeMap<String, u8>, _: Attempt| async { Ok::<_, Sad>(()) });
    assert!(map.build().is_ok());
}

#[tokio::test]
async fn data_is_shown_as_json_and_referenced_as_data() {
    let output = call(&get_user(), json!({"user_id": "u1"})).await.unwrap();
    assert_eq!(output, Output::json(json!({"id": "u1", "orders": [1, 2]})));
}

#[tokio::test]
async fn a_text_is_shown_as_it_is_and_an_output_passes() {
    let text = Function::new("f", "", |_: Value, _: Attempt| async { Ok::<_, Sad>("hello".to_owned()) });
    assert_eq!(call(&text.build().unwrap(), json!({})).await.unwrap(), Output::text("hello"));
    let output = Function::new("f", "", |_: Value, _: Attempt| async {
        Ok::<_, Sad>(Output { is_error: true, ..Output::text("no") })
    });
    assert!(call(&output.build().unwrap(), json!({})).await.unwrap().is_error);
}

#[tokio::test]
async fn an_error_is_final_unless_it_is_a_tool_error() {
    let error = call(&get_user(), json!({"user_id": "nobody"})).await.unwrap_err();
    assert_eq!(error, ToolError::Failed("no such user".into()));
    let tool = Function::new("f", "", |_: Value, _: Attempt| async { Err::<(), _>(ToolError::NotSent("x".into())) });
    assert_eq!(call(&tool.build().unwrap(), json!({})).await.unwrap_err(), ToolError::NotSent("x".into()));
}

#[tokio::test]
async fn an_input_that_does_not_fit_the_type_names_the_field() {
    let error = call(&get_user(), json!({"user_id": "u", "page": {"size": 300}})).await.unwrap_err();
    assert_eq!(error, ToolError::BadInput("`page.size`: invalid value: integer `300`, expected u8".into()));
    let error = call(&get_user(), json!({})).await.unwrap_err();
    assert_eq!(error, ToolError::BadInput("the input: missing field `user_id`".into()));
}

#[tokio::test]
async fn a_blocking_function_runs_on_a_thread_of_its_own() {
    let here = std::thread::current().id();
    let tool = Function::blocking("f", "", move |input: GetUser, _: Attempt| {
        assert_ne!(std::thread::current().id(), here);
        if input.user_id == "nobody" { Err(Sad) } else { Ok(input.user_id) }
    });
    let tool = tool.build().unwrap();
    assert_eq!(call(&tool, json!({"user_id": "u1"})).await.unwrap(), Output::text("u1"));
    assert_eq!(call(&tool, json!({"user_id": "nobody"})).await.unwrap_err(), ToolError::Failed("no such user".into()));
}

#[tokio::test]
async fn a_panic_on_a_thread_is_said_to_be_one() {
    let tool = Function::blocking("f", "", |input: GetUser, _: Attempt| -> Result<(), Sad> {
        assert!(input.user_id.is_empty(), "not empty: {}", input.user_id);
        Ok(())
    });
    let error = call(&tool.build().unwrap(), json!({"user_id": "u1"})).await.unwrap_err();
    assert_eq!(error, ToolError::Panicked("not empty: u1".into()));
}

/// One blocking thread, which the first call occupies until it is told to end.
#[test]
fn a_blocking_function_that_was_stopped_before_it_began_does_not_run() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let occupied = runtime.spawn_blocking(move || {
        begin.send(()).unwrap();
        ended.recv().unwrap();
    });
    let seen = ran.clone();
    let tool = Function::blocking("f", "", move |_: Value, _: Attempt| {
        seen.store(true, Ordering::SeqCst);
        Ok::<_, Sad>(())
    });
    let tool = tool.build().unwrap();
    runtime.block_on(async {
        begun.await.unwrap();
        let mut attempt = tool.call(Attempt::detached("f", json!({})));
        // One poll puts it into the queue behind the occupied thread.
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(attempt.as_mut().poll(context).is_ready()));
        assert!(!polled.await);
        drop(attempt);
        end.send(()).unwrap();
        occupied.await.unwrap();
        // The thread takes its work in order, so this one comes after the one that was stopped.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    assert!(!ran.load(Ordering::SeqCst));
}

/// The time-out ends the call, the thread goes on until it is let go, and the next writer of the same key waits for it.
#[tokio::test]
async fn a_thread_that_outlives_its_call_keeps_its_locks() {
    let log: Arc<Mutex<Vec<&str>>> = Arc::default();
    let (let_go, held) = mpsc::channel::<()>();
    let (first, second, held) = (log.clone(), log.clone(), Mutex::new(held));
    let slow = Function::blocking("slow", "", move |_: Value, _: Attempt| {
        held.lock().unwrap().recv().unwrap();
        first.lock().unwrap().push("the thread ended");
        Ok::<_, Sad>(())
    });
    let next = Function::new("next", "", move |_: Value, _: Attempt| {
        second.lock().unwrap().push("the next began");
        async { Ok::<_, Sad>(()) }
    });
    let mut toolbox = Toolbox::new();
    toolbox.add(slow.writes(["x"]).timeout(Duration::from_millis(20)).build().unwrap()).unwrap();
    toolbox.add(next.writes(["x"]).build().unwrap()).unwrap();

    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), RunOptions::new("r"));
    let mut batch = run.batch();
    batch.call(Call::new(0, "a", "slow", json!({}))).unwrap();
    batch.call(Call::new(1, "b", "next", json!({}))).unwrap();
    batch.commit();
    while batch.unanswered() == 2 {
        batch.progress().await;
    }
    assert!(log.lock().unwrap().is_empty());
    let_go.send(()).unwrap();
    let outcomes = batch.finish().await;
    assert_eq!(outcomes[0].error_code(), Some(ErrorCode::OutcomeUnknown));
    assert_eq!(outcomes[1].error_code(), None);
    assert_eq!(*log.lock().unwrap(), ["the thread ended", "the next began"]);
}
