//! Budgets: reserved before they are spent, and never overshot.

use std::sync::Arc;
use std::time::Duration;

use fanout_agent::{Agent, AgentError, AgentOptions, Budget, Conversation, Price, RunSettings, Status};
use fanout_core::approval::{Approver, Asked, Decision, Question, Said};
use fanout_core::tool::BoxFuture;
use fanout_script::{Block, Fault, Pace, ServerOptions, Turn, Usage};

use crate::stage::{Stage, calls, end_of, told};

const PRICE: Price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };

#[tokio::test]
async fn the_calls_of_the_last_turn_are_answered_and_not_run() {
    for (stream, early) in [(true, true), (true, false), (false, true)] {
        let stage = Stage::open([calls("write w1"), calls("read r1, write w2"), Turn::text("ok")]).streaming(stream);
        let stage = stage.with(|options| (options.limits.turns_max, options.early_start) = (2, early));
        let report = stage.run().await;
        assert!(end_of(&report).starts_with("budget: ") && end_of(&report).contains("max_turns"));
        let conversation = "u: text | a: write w1 | u: =w1 | a: read r1, write w2 | u: !r1 budget, !w2 budget";
        assert_eq!(told(&report.conversation), conversation);
        assert_eq!((stage.asked().len(), stage.log.work()), (2, vec!["write w1".to_owned()]), "{stream} {early}");
    }
}

#[tokio::test]
async fn an_answer_in_the_last_turn_is_a_success() {
    let stage = Stage::open([calls("write w1"), Turn::text("ok")]).with(|options| options.limits.turns_max = 2);
    assert_eq!(end_of(&stage.run().await), "done");
    let stage = Stage::open([Turn::text("ok")]).with(|options| options.limits.turns_max = 0);
    assert!(end_of(&stage.run().await).starts_with("budget: "));
}

#[tokio::test]
async fn calls_past_the_budget_are_answered_and_end_the_run() {
    for (stream, early) in [(true, true), (true, false), (false, true)] {
        let stage = Stage::open([calls("read r1"), calls("read r2, read r3, read r4, write w1"), Turn::text("ok")]);
        let stage = stage.streaming(stream);
        let stage = stage.with(|options| (options.limits.calls_max, options.early_start) = (3, early));
        let report = stage.run().await;
        assert!(end_of(&report).starts_with("budget: ") && end_of(&report).contains("max_calls"));
        let said = "read r2, read r3, read r4, write w1";
        let answers = "=r2, =r3, !r4 budget, !w1 budget";
        assert_eq!(told(&report.conversation), format!("u: text | a: read r1 | u: =r1 | a: {said} | u: {answers}"));
        assert_eq!(stage.log.all_work(), ["read r1", "read r2", "read r3"], "{stream} {early}");
    }
    let stage = Stage::open([calls("read r1, read r2"), Turn::text("ok")]);
    let stage = stage.with(|options| options.limits.calls_max = 2);
    assert_eq!(end_of(&stage.run().await), "done", "the last call of the budget is in it");
}

/// The clock jumps while this lives.
struct Jump;

impl Jump {
    fn begin() -> Self {
        tokio::time::pause();
        Self
    }
}

impl Drop for Jump {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// People who take an hour; the clock jumps over it.
struct Slow;

impl Approver for Slow {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        let decision = Box::pin(async {
            let _jump = Jump::begin();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Decision::Approved(Said::default())
        });
        Box::pin(async move { Ok(Asked { approval: format!("apr_{}", question.call).into(), decision }) })
    }
}

#[tokio::test]
async fn the_time_of_a_run_stands_still_while_it_waits_for_people_and_nothing_else() {
    for (said, parks, end) in [
        ("read r1, pay p1", true, "done"),
        ("read r1, pay p1", false, "budget: the run has used its 10s (`deadline`)"),
        ("stay s1, pay p1", true, "budget: the run has used its 10s (`deadline`)"),
    ] {
        let stage = Stage::open([calls(said), calls("pay p2"), Turn::text("ok")]);
        let stage = stage.with(|options| options.limits.deadline = Duration::from_secs(10));
        let report = stage.run_as(RunSettings { approver: Some(Arc::new(Slow)), parks, ..stage.settings() }).await;
        assert_eq!(end_of(&report), end, "{said} {parks}");
        assert_eq!(report.elapsed.as_secs() >= 2 * 3600, end == "done");
    }
}

/// A plan `p` of a `for_each` over so many reads, between two calls as they are.
fn planned(reads: usize) -> Turn {
    let ids: Vec<String> = (0..reads).map(|id| format!("\"e{id}\"")).collect();
    let each = format!(
        r##"{{"calls":[{{"label":"e","tool":"read","for_each":[{}],"input":{{"id":{{"$ref":"item#"}}}}}}]}}"##,
        ids.join(",")
    );
    let call = |id: &str| Block::tool_use("read", format!(r#"{{"id":"{id}"}}"#)).with_id(id);
    Turn::new([call("r1"), Block::tool_use("plan", each).with_id("p"), call("r2")])
}

#[tokio::test]
async fn the_calls_of_a_plan_count_and_the_plan_does_not() {
    let ran = async |reads: usize, change: fn(&mut AgentOptions)| {
        let stage = Stage::open([planned(reads), Turn::text("ok")]).planning().with(change);
        let report = stage.run().await;
        (end_of(&report), report.calls, stage.log.all_work().len(), told(&report.conversation))
    };
    let calls_max: fn(&mut AgentOptions) = |options| options.limits.calls_max = 4;
    let batch_max: fn(&mut AgentOptions) = |options| options.limits.batch_max = 2;
    let (end, calls, work, told) = ran(2, calls_max).await;
    assert_eq!((end.as_str(), calls, work), ("done", 4, 4), "{told}");
    assert!(told.contains("u: =r1, =p, =r2"), "{told}");
    let (end, calls, work, told) = ran(5, calls_max).await;
    assert!(end.starts_with("budget: ") && end.contains("max_calls"), "{end}");
    assert_eq!((calls, work), (7, 4), "{told}");
    assert!(told.contains("u: =r1, =p, !r2 budget"), "what of the plan had room is answered: {told}");
    let (end, calls, work, told) = ran(5, batch_max).await;
    assert_eq!((end.as_str(), calls, work), ("done", 7, 6), "of a response it is one: {told}");
    assert!(told.contains("u: =r1, =p, !r2 budget"), "{told}");
}

#[tokio::test]
async fn tokens_and_dollars_are_refused_before_they_are_spent() {
    let usage = Usage { input_tokens: 400, output_tokens: 600, cache_creation_input_tokens: 50, ..Usage::default() };
    let turns = || [calls("read r1").usage(usage), calls("read r2").usage(usage), Turn::text("ok").usage(usage)];
    let stage = Stage::open(turns()).with(|options| options.limits.tokens_max = 4_000);
    let report = stage.run().await;
    assert!(end_of(&report).starts_with("budget: ") && end_of(&report).contains("max_total_tokens"));
    assert_eq!((report.turns, report.usage.total()), (2, 2_100));
    assert_eq!(told(&report.conversation), "u: text | a: read r1 | u: =r1 | a: read r2 | u: =r2");

    // Each request may cost 1,000 tokens of output, 1.5 cents, and its input.
    let stage = Stage::open(turns()).with(|options| {
        (options.limits.cost_max_usd, options.price) = (Some(0.032), Some(PRICE));
    });
    let report = stage.run().await;
    assert!(end_of(&report).starts_with("budget: ") && end_of(&report).contains("max_cost_usd"), "{report:?}");
    let cost = 2.0 * (400.0 * 3.0 + 600.0 * 15.0 + 50.0 * 3.75) / 1e6;
    assert!(report.turns == 2 && report.cost_usd.is_some_and(|usd| (usd - cost).abs() < 1e-9), "{report:?}");
}

#[tokio::test]
async fn dollars_without_a_price_are_refused_at_the_start() {
    let stage = Stage::open([Turn::text("ok")]).with(|options| options.limits.cost_max_usd = Some(1.0));
    let http = fanout_anthropic::HttpOptions { base_url: stage.server.base_url(), ..Default::default() };
    let model = Arc::new(fanout_anthropic::HttpModel::new(http).unwrap());
    let refused = Agent::new(model, stage.scheduler.clone(), stage.toolbox.clone(), stage.options.clone());
    assert!(matches!(refused, Err(AgentError::NoPrice { max, .. }) if max == 1.0));

    let stage = stage.with(|options| options.limits.cost_max_usd = None);
    let shared = RunSettings { budget: Some(Budget::new(1_000_000, Some(1.0))), ..stage.settings() };
    let report = stage.run_as(shared).await;
    assert!(end_of(&report).starts_with("failed: ") && end_of(&report).contains("price"), "{}", end_of(&report));
    assert_eq!(stage.asked().len(), 0);
}

#[tokio::test]
async fn a_cut_off_answer_is_not_widened_past_the_budget() {
    let usage = Usage { input_tokens: 900, output_tokens: 300, ..Usage::default() };
    let turn = calls("read r1, write w1").usage(usage).always(Fault::cut_off(5));
    let stage = Stage::open([turn, Turn::text("ok")]).with(|options| options.limits.tokens_max = 4_000);
    let report = stage.run().await;
    assert_eq!(told(&report.conversation), "u: text | a: read r1 | u: !r1 cancelled | a: text");
    assert_eq!(end_of(&report), "done");
    assert!(stage.asked().iter().all(|body| body["max_tokens"] == 1_000));
}

#[tokio::test]
async fn a_failed_or_cancelled_request_gives_its_reservation_back() {
    let budget = Budget::new(50_000, None);
    let stage = Stage::open([Turn::text("ok").always(Fault::error_event(3))]).backoff(2);
    stage.run_as(RunSettings { budget: Some(budget.clone()), ..stage.settings() }).await;
    assert_eq!(budget.used(), (0, 0.0));

    let think = Pace::new(Duration::from_secs(60), 0.0);
    let stage = Stage::open([Turn::text("ok").pace(think)]);
    let settings = RunSettings { budget: Some(budget.clone()), ..stage.settings() };
    let (cancel, log) = (settings.cancel.clone(), stage.log.clone());
    let agent = stage.agent();
    let run = agent.run(Conversation::from_prompt("go"), settings);
    let stop = async {
        log.until("ask 1").await;
        tokio::task::yield_now().await;
        cancel.cancel("enough");
    };
    let (report, ()) = tokio::join!(run, stop);
    assert_eq!((report.status, budget.used()), (Status::Cancelled, (0, 0.0)));
}

#[tokio::test]
async fn a_dropped_run_gives_its_reservation_back() {
    let budget = Budget::new(50_000, None);
    let stage = Stage::open([Turn::text("ok").pace(Pace::new(Duration::from_secs(60), 0.0))]);
    let agent = stage.agent();
    let run =
        agent.run(Conversation::from_prompt("go"), RunSettings { budget: Some(budget.clone()), ..stage.settings() });
    tokio::select! {
        _ = run => unreachable!("the model thinks for a minute"),
        () = stage.log.until("ask 1") => {}
    }
    assert_eq!(budget.used(), (0, 0.0));
}

#[tokio::test]
async fn the_deadline_ends_a_run_while_the_model_thinks() {
    let stage = Stage::open([Turn::text("ok").pace(Pace::new(Duration::from_secs(60), 0.0))]);
    let stage = stage.with(|options| options.limits.deadline = Duration::from_millis(40));
    let agent = stage.agent();
    let report = agent.run(Conversation::from_prompt("go"), stage.settings()).await;
    assert!(end_of(&report).starts_with("budget: ") && end_of(&report).contains("deadline"));
    assert_eq!(told(&report.conversation), "u: text");
}

#[tokio::test]
async fn the_deadline_ends_a_batch_and_every_call_is_answered() {
    let stage = Stage::open([calls("read r1, stay s1, peek p1, write s1w, stay s2"), Turn::text("ok")]);
    let stage = stage.with(|options| options.limits.deadline = Duration::from_secs(20));
    let log = stage.log.clone();
    let clock = tokio::spawn(async move {
        log.until("start s1").await;
        log.until("start p1").await;
        log.until("r1 ok").await;
        log.until("s1w ok").await;
        tokio::time::pause();
        log.until("run budget").await;
        tokio::time::resume();
    });
    let report = stage.run().await;
    clock.await.unwrap();
    assert!(end_of(&report).starts_with("budget: ") && end_of(&report).contains("deadline"), "{}", end_of(&report));
    let answers = "=r1, !s1 outcome_unknown, !p1 cancelled, =s1w, !s2 outcome_unknown";
    let said = "read r1, stay s1, peek p1, write s1w, stay s2";
    assert_eq!(told(&report.conversation), format!("u: text | a: {said} | u: {answers}"));
    stage.log.nobody_is_alive().await;
}

#[tokio::test]
async fn runs_that_share_a_budget_never_overshoot_together() {
    const BOUND: u64 = 60_000;
    let usage = Usage { input_tokens: 700, output_tokens: 900, ..Usage::default() };
    let think = Pace::new(Duration::from_millis(2), 0.0);
    let stage = Stage::serve(ServerOptions::responder(move |conversation| match conversation.assistant_turns() {
        0 | 1 => Turn::calls([("read", serde_json::json!({"id": "x"}))]).usage(usage).pace(think),
        _ => Turn::text("ok").usage(usage).pace(think),
    }));
    let budget = Budget::new(BOUND, None);
    let agent = stage.agent();
    let runs = (0..60).map(|at| {
        let settings = RunSettings { budget: Some(budget.clone()), ..RunSettings::default() };
        let agent = agent.clone();
        tokio::spawn(async move { agent.run(Conversation::from_prompt(&format!("go {at}")), settings).await })
    });
    let mut reports = Vec::new();
    for run in runs.collect::<Vec<_>>() {
        reports.push(run.await.unwrap());
    }
    let spent: u64 = reports.iter().map(|report| report.usage.total()).sum();
    assert!(spent <= BOUND, "{spent}");
    assert_eq!(budget.used().0, spent, "what was not taken is given back");
    assert!(reports.iter().all(|report| matches!(report.status, Status::Done | Status::Budget)));
    assert!(reports.iter().any(|report| report.status == Status::Budget));
    assert!(reports.iter().map(|report| report.turns).sum::<u32>() >= 20, "most of the budget is of use");
}
