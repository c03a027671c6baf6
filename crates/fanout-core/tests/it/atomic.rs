//! Atomic plans with tools that know of nothing: what an attempt is given, and where the plan stands in its batch.

use std::sync::Arc;

use fanout_core::call::Call;
use fanout_core::effects::EffectsSpec;
use fanout_core::outcome::{Content, Output};
use fanout_core::plan::{Atomic, AtomicPart};
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::tool::{Attempt, BoxFuture, ToolError};
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::driver::Does;

fn atomic(
    name: &str,
    act: impl Fn(Attempt) -> BoxFuture<'static, Result<Output, ToolError>> + Send + Sync + 'static,
) -> Does {
    Does::new(name, act).with(|spec| spec.atomic = Some(AtomicPart(Arc::new(()))))
}

fn with_plan(tools: impl IntoIterator<Item = Does>) -> Arc<Toolbox> {
    let mut toolbox = Toolbox::new();
    for tool in tools {
        toolbox.add(tool).unwrap();
    }
    toolbox.add_plan(64 * 1024).unwrap();
    Arc::new(toolbox)
}

fn plan(tools: &[&str]) -> Value {
    let calls = tools
        .iter()
        .enumerate()
        .map(|(at, tool)| json!({"label": format!("m{at}"), "tool": tool, "input": {"key": at}}));
    json!({"calls": calls.collect::<Vec<_>>(), "atomic": true})
}

/// Each member has come to this.
fn answer(atomic: &Atomic, with: &str) -> Result<(), ToolError> {
    for at in 0..atomic.members().len() {
        atomic.input(at)?;
        atomic.answer(Output::json(json!(with)));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_does_after_its_time_is_over_says_nothing_of_the_next_one() {
    let (late, over) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let tool = atomic("t", {
        let (late, over) = (Arc::clone(&late), Arc::clone(&over));
        move |attempt| {
            let mine = Arc::clone(attempt.atomic().unwrap());
            if attempt.number == 1 {
                let (late, over) = (Arc::clone(&late), Arc::clone(&over));
                tokio::spawn(async move {
                    late.notified().await;
                    answer(&mine, "stray").unwrap();
                    over.notify_one();
                });
                return Box::pin(std::future::pending());
            }
            let (late, over) = (Arc::clone(&late), Arc::clone(&over));
            Box::pin(async move {
                late.notify_one();
                over.notified().await;
                answer(&mine, "second").map(|()| Output::default())
            })
        }
    });
    let toolbox = with_plan([tool.with(|spec| spec.policy.idempotent = true)]);
    let mut run = Scheduler::default().run(toolbox, RunOptions::new("r"));
    let mut batch = run.batch();
    batch.call(Call::new(0, "p", "plan", plan(&["t", "t"]))).unwrap();
    let outcome = batch.finish().await.remove(0);
    let [Content::Text(text)] = &*outcome.shown else { panic!("{outcome:?}") };
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({"m0": "second", "m1": "second"}));
    assert_eq!(outcome.attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_plan_follows_and_is_followed_as_each_of_its_tools_is_declared_to() {
    let done = |name: &str| {
        let tool = atomic(name, |attempt| {
            let atomic = attempt.atomic().cloned();
            Box::pin(async move { atomic.map_or(Ok(()), |atomic| answer(&atomic, "x")).map(|()| Output::default()) })
        });
        tool.with(|spec| spec.effects = EffectsSpec { writes: Some(Vec::new()), ..EffectsSpec::default() })
    };
    let after = |tool: Does, on: &str| tool.with(|spec| spec.policy.after = vec![on.into()]);
    let toolbox = with_plan([done("a"), after(done("b"), "first"), done("first"), after(done("last"), "b")]);
    let mut run = Scheduler::default().run(toolbox, RunOptions::new("r"));
    let mut batch = run.batch();
    for (id, tool, input) in [
        ("1", "first", json!({})),
        ("p", "plan", plan(&["a", "b", "b"])),
        ("2", "last", json!({})),
        ("3", "a", json!({})),
    ] {
        batch.call(Call::new(0, id, tool, input)).unwrap();
    }
    let waits: Vec<Vec<String>> =
        batch.arrived().map(|call| call.waits.iter().map(|wait| wait.on.to_string()).collect()).collect();
    assert_eq!(waits, [vec![], vec!["1".to_owned()], vec!["p".to_owned()], vec![]]);
    assert!(batch.finish().await.iter().all(|outcome| !outcome.is_error()));
}

#[tokio::test(start_paused = true)]
async fn tools_of_different_limit_groups_are_not_one_call() {
    let tool = |name: &str, limit: Option<&str>| {
        let limit = limit.map(Into::into);
        atomic(name, |attempt| {
            Box::pin(async move { answer(attempt.atomic().unwrap(), "x").map(|()| Output::default()) })
        })
        .with(|spec| spec.policy.limit = limit)
    };
    let toolbox = with_plan([tool("free", None), tool("slow", Some("api")), tool("slower", Some("api"))]);
    for (tools, mistake) in [
        (["slow", "slower"], None),
        (
            ["free", "slow"],
            Some(
                "`calls[1]` (`m1`): an atomic plan has one limit group, and this draws on `api`, not on that of its database",
            ),
        ),
        (
            ["slow", "free"],
            Some(
                "`calls[1]` (`m1`): an atomic plan has one limit group, and this draws on that of its database, not on `api`",
            ),
        ),
    ] {
        let mut run = Scheduler::default().run(Arc::clone(&toolbox), RunOptions::new("r"));
        let mut batch = run.batch();
        batch.call(Call::new(0, "p", "plan", plan(&tools))).unwrap();
        let outcomes = batch.finish().await;
        let told = outcomes[0].result.as_ref().err().map(|error| error.message.lines().last().unwrap().to_owned());
        assert_eq!(told, mistake.map(|mistake| format!("- {mistake}")), "{tools:?}");
    }
}
