//! One batch through the real driver: what every call comes to, and when.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::{Call, ToolName};
use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::outcome::{ErrorCode, Output};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use serde_json::json;
use tokio::time::Instant;

/// A tool that does what its name says.
struct Fake(&'static str);

impl Tool for Fake {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.0, Source::function());
        spec.input_schema = json!({"type": "object", "properties": {"ms": {"type": "integer"}}, "required": ["ms"]});
        spec.policy.timeout = Duration::from_secs(1);
        let template = |text| vec![Template::parse(text).unwrap()];
        spec.effects = match self.0 {
            "read" => EffectsSpec { reads: Some(template("k/{key}")), writes: Some(vec![]), ..spec.effects },
            "undeclared" => spec.effects,
            _ => EffectsSpec { writes: Some(template("k/{key}")), ..spec.effects },
        };
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let name = self.0;
        Box::pin(async move {
            let ms = attempt.input["ms"].as_u64().unwrap();
            tokio::time::sleep(Duration::from_millis(ms)).await;
            match name {
                "fail" => Err(ToolError::Failed("no such order".into())),
                "panic" => panic!("boom"),
                "hang" => std::future::pending().await,
                _ => Ok(Output::json(json!({ "call": attempt.call.as_str() }))),
            }
        })
    }
}

fn toolbox() -> Arc<Toolbox> {
    let mut toolbox = Toolbox::new();
    for name in ["read", "write", "undeclared", "fail", "panic", "hang"] {
        toolbox.add(Fake(name)).unwrap();
    }
    Arc::new(toolbox)
}

/// Runs calls such as `read a 100`, and checks what each came to and how long all took.
async fn check(calls: &str, outcomes: &str, ms: u64) {
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let mut run = scheduler.run(toolbox(), RunOptions::new("run"));
    let started = Instant::now();
    let mut batch = run.batch();
    for (index, call) in calls.split(", ").enumerate() {
        let words: Vec<&str> = call.split(' ').collect();
        let ms = words[2].parse::<u64>().map_or_else(|_| json!(words[2]), |ms| json!(ms));
        let input = json!({ "key": words[1], "ms": ms });
        batch.call(Call::new(index as u32, format!("c{index}"), ToolName::from(words[0]), input)).unwrap();
    }
    let came_to: Vec<&str> =
        batch.finish().await.iter().map(|outcome| outcome.error_code().map_or("ok", ErrorCode::as_str)).collect();
    assert_eq!(came_to.join(" "), outcomes, "{calls}");
    assert_eq!(started.elapsed(), Duration::from_millis(ms), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_do_not_clash_run_together() {
    check("read a 200, read a 200, write b 200", "ok ok ok", 200).await;
    check("write a 200, read a 100, read a 100, write a 50", "ok ok ok ok", 350).await;
    check("undeclared - 100, undeclared - 100, write a 100", "ok ok ok", 300).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_gets_its_one_outcome_whatever_happens() {
    check(
        "fail a 10, nobody b 10, read c soon, panic d 10, hang e 10",
        "upstream unknown_tool invalid_input internal outcome_unknown",
        1000,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_conflicts_with_a_hanging_call_goes_on_after_its_time_out() {
    check("hang a 10, read a 10, read b 10", "outcome_unknown ok ok", 1010).await;
}

#[tokio::test(start_paused = true)]
async fn other_tools_are_for_the_calls_that_arrive_after_them() {
    /// The same tool under a name that only the next toolbox has.
    struct Follows;
    impl Tool for Follows {
        fn spec(&self) -> ToolSpec {
            let mut spec = Fake("read").spec();
            spec.name = "follows".into();
            spec.policy.after = vec!["fail".into()];
            spec
        }
        fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
            Fake("read").call(attempt)
        }
    }
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let mut run = scheduler.run(toolbox(), RunOptions::new("run"));
    let started = Instant::now();
    let mut batch = run.batch();
    let call = |at: u32, tool: &str, key: &str| {
        Call::new(at, format!("c{at}"), ToolName::from(tool), json!({ "key": key, "ms": 100 }))
    };
    batch.call(call(0, "fail", "a")).unwrap();
    batch.call(call(1, "write", "b")).unwrap();
    batch.call(call(2, "follows", "z")).unwrap();
    let mut next = Toolbox::new();
    next.add(Fake("read")).unwrap();
    next.add(Follows).unwrap();
    next.learn_from(batch.toolbox());
    batch.set_toolbox(Arc::new(next));
    batch.call(call(3, "write", "b")).unwrap();
    batch.call(call(4, "read", "b")).unwrap();
    batch.call(call(5, "follows", "y")).unwrap();
    let came_to: Vec<&str> =
        batch.finish().await.iter().map(|outcome| outcome.error_code().map_or("ok", ErrorCode::as_str)).collect();
    // The write went on with the tool that it began with, the read of the next toolbox waited for it, and so did the one
    // that follows a tool which is gone.
    assert_eq!(came_to, ["upstream", "ok", "unknown_tool", "unknown_tool", "ok", "ok"]);
    assert_eq!(started.elapsed(), Duration::from_millis(200));
}
