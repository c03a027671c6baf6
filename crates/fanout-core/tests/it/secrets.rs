//! What a tool says of a secret reaches nobody: neither the model, nor an event, nor another tool.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use fanout_core::call::{Call, Link, Need};
use fanout_core::effects::Source;
use fanout_core::event::{Event, Recorder};
use fanout_core::outcome::{Outcome, Output};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::secrets::Secrets;
use fanout_core::tool::{Attempt, BoxFuture, CallerToken, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};

const KEY: &str = "k3y-0123";
const TOKEN: &str = "t0ken-0123";

/// Says the key and the token, as its input asks; `saw` is what it was given.
struct Leaky(Arc<Mutex<Vec<Value>>>);

impl Tool for Leaky {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new("leak", Source::function());
        spec.description = format!("Uses {KEY}.");
        spec.input_schema = json!({"type": "object", "properties": {"as": {"default": KEY}}});
        spec.policy.result_max = 20;
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        self.0.lock().unwrap().push((*attempt.input).clone());
        let token = attempt.caller_token.as_ref().map_or("none", CallerToken::expose);
        let said = format!("{KEY} {token}");
        let result = match attempt.input["as"].as_str().unwrap_or_default() {
            "data" => Ok(Output::json(json!({ "said": said }))),
            "failed" => Err(ToolError::Failed(said)),
            "broken" => Err(ToolError::Broken(said)),
            "not sent" => Err(ToolError::NotSent(said)),
            "too large" => Err(ToolError::TooLarge(said)),
            "not permitted" => Err(ToolError::NotPermitted(said)),
            "conflict" => Err(ToolError::Conflict(said)),
            "long" => Ok(Output::text(format!("{} {said}", "x".repeat(15)))),
            "panic" => panic!("{said}"),
            _ => Ok(Output::text(said)),
        };
        Box::pin(async move { result })
    }
}

#[derive(Default)]
struct Heard(Mutex<String>);

impl Recorder for Heard {
    fn record(&self, event: &Event) {
        writeln!(self.0.lock().unwrap(), "{event:?}").unwrap();
    }
}

/// What the calls come to, everything that was recorded of them, and what the tool was given.
async fn play(calls: Vec<Call>) -> (Vec<Arc<Outcome>>, String, Vec<Value>) {
    let (mut secrets, saw, heard) = (Secrets::new(), Arc::default(), Arc::<Heard>::default());
    secrets.add("KEY", KEY);
    let mut toolbox = Toolbox::new();
    toolbox.hide(secrets);
    toolbox.add(Leaky(Arc::clone(&saw))).unwrap();
    let mut options = RunOptions::new("run");
    options.caller_token = Some(TOKEN.into());
    options.recorder = Some(Arc::clone(&heard) as Arc<dyn Recorder>);
    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), options);
    let mut batch = run.batch();
    calls.into_iter().for_each(|call| batch.call(call).unwrap());
    let outcomes = batch.finish().await;
    let (heard, saw) = (heard.0.lock().unwrap().clone(), saw.lock().unwrap().clone());
    (outcomes, heard, saw)
}

#[tokio::test(start_paused = true)]
async fn no_outcome_and_no_event_holds_a_secret() {
    for way in
        ["text", "data", "failed", "broken", "not sent", "too large", "not permitted", "conflict", "long", "panic"]
    {
        let (outcomes, heard, _) = play(vec![Call::new(0, "c", "leak", json!({ "as": way }))]).await;
        let all = format!("{outcomes:?} {heard}");
        assert!(!all.contains(KEY) && !all.contains(TOKEN), "{way}: {all}");
        assert!(all.contains("[redacted KEY]"), "{way}: {all}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_hidden_before_the_result_is_cut() {
    let (outcomes, ..) = play(vec![Call::new(0, "c", "leak", json!({ "as": "long" }))]).await;
    let text = format!("{:?}", outcomes[0].shown);
    assert!(text.contains(&format!("{} [red\"", "x".repeat(15))), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_another_call_takes_of_it_holds_no_secret() {
    let second = Call {
        links: vec![Link { on: "a".into(), need: Need::Output { label: "a".into() } }],
        ..Call::new(1, "b", "leak", json!({ "as": {"$ref": "a#/said"} }))
    };
    let (_, _, saw) = play(vec![Call::new(0, "a", "leak", json!({ "as": "data" })), second]).await;
    assert_eq!(saw[1], json!({ "as": "[redacted KEY] [redacted caller.token]" }));
}

#[test]
fn what_a_tool_says_of_itself_holds_no_secret() {
    let mut secrets = Secrets::new();
    secrets.add("KEY", KEY);
    let mut toolbox = Toolbox::new();
    toolbox.hide(secrets);
    toolbox.add(Leaky(Arc::default())).unwrap();
    let spec = &toolbox.get(&"leak".into()).unwrap().spec;
    assert_eq!(spec.description, "Uses [redacted KEY].");
    assert_eq!(spec.input_schema["properties"]["as"]["default"], "[redacted KEY]");
}
