//! A day's caps over many runs: never overshot, and what becomes of requests that fail.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanout_agent::{Conversation, Daily, DailyCap, Day, MemoryLedger, Price, Report, RunSettings, Status, nano_usd};
use fanout_script::{Fault, Pace, ServerOptions, Turn, Usage};

use crate::stage::{Stage, calls, end_of};

const PRICE: Price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };

/// Caps on a project and on a key, in US dollars.
fn daily(ledger: &Arc<MemoryLedger>, project: f64, key: f64) -> Option<Daily> {
    let cap = |scope: &str, name: &str, max: f64| DailyCap {
        scope: scope.into(),
        name: name.into(),
        max_nano_usd: nano_usd(max),
    };
    let caps = [
        cap("project/a", "`max_cost_usd_per_day` of [project.a]", project),
        cap("key/k", "`max_cost_usd_per_key_per_day` of [project.a]", key),
    ];
    Some(Daily { ledger: Arc::clone(ledger) as _, caps: caps.into() })
}

/// What the day has of the project and of the key. A test that runs over midnight sees both days.
fn used(ledger: &MemoryLedger) -> (u64, u64) {
    let Day(today) = Day::of(SystemTime::now());
    let of = |scope| ledger.used(Day(today), scope) + ledger.used(Day(today - 1), scope);
    (of("project/a"), of("key/k"))
}

async fn ran(stage: &Stage, daily: Option<Daily>) -> Report {
    let agent = stage.agent();
    agent.run(Conversation::from_prompt("go"), RunSettings { daily, ..stage.settings() }).await
}

#[tokio::test]
async fn what_a_run_cost_is_what_the_day_has_less() {
    let usage = Usage { input_tokens: 400, output_tokens: 600, ..Usage::default() };
    let turns = [calls("read r1").usage(usage), Turn::text("ok").usage(usage)];
    let stage = Stage::open(turns).with(|options| options.price = Some(PRICE));
    let ledger = Arc::new(MemoryLedger::default());
    let report = ran(&stage, daily(&ledger, 10.0, 10.0)).await;
    let cost = nano_usd(report.cost_usd.unwrap());
    assert_eq!((report.status, used(&ledger)), (Status::Done, (cost, cost)));
}

#[tokio::test]
async fn a_cap_that_is_reached_ends_the_run_and_says_which_and_until_when() {
    let usage = Usage { input_tokens: 400, output_tokens: 1_000, ..Usage::default() };
    let turns = [calls("read r1").usage(usage), Turn::text("ok").usage(usage)];
    let stage = Stage::open(turns).with(|options| options.price = Some(PRICE));
    let ledger = Arc::new(MemoryLedger::default());
    let report = ran(&stage, daily(&ledger, 10.0, 0.03)).await;
    assert_eq!(report.status, Status::Budget);
    let end = end_of(&report);
    assert!(end.contains("`max_cost_usd_per_key_per_day` of [project.a]") && end.contains("00:00 UTC, in "), "{end}");
    let wait = report.retry_after.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(24 * 60 * 60), "{wait:?}");
    let cost = nano_usd(report.cost_usd.unwrap());
    assert_eq!(used(&ledger), (cost, cost), "nothing is set aside any more");
}

#[tokio::test]
async fn a_cap_needs_a_price() {
    let stage = Stage::open([Turn::text("ok")]).with(|options| options.price = None);
    let report = ran(&stage, daily(&Arc::default(), 10.0, 10.0)).await;
    assert_eq!((report.status, stage.asked().len()), (Status::Failed, 0));
    assert!(end_of(&report).contains("add [prices."), "{}", end_of(&report));
}

#[tokio::test]
async fn a_refused_request_costs_nothing_and_one_that_broke_off_all_that_it_could() {
    for (fault, is_known) in [(Fault::overloaded(), true), (Fault::error_event(3), false)] {
        let stage = Stage::open([Turn::text("ok").always(fault)]).backoff(2);
        let stage = stage.with(|options| options.price = Some(PRICE));
        let ledger = Arc::new(MemoryLedger::default());
        let report = ran(&stage, daily(&ledger, 10.0, 10.0)).await;
        let (project, key) = used(&ledger);
        assert_eq!((report.status, project == 0, key), (Status::Failed, is_known, project));
    }
    // Stopped, while the model thinks: it goes on writing, perhaps.
    let stage = Stage::open([Turn::text("ok").pace(Pace::new(Duration::from_secs(60), 0.0))]);
    let stage = stage.with(|options| options.price = Some(PRICE));
    let ledger = Arc::new(MemoryLedger::default());
    let agent = stage.agent();
    let settings = RunSettings { daily: daily(&ledger, 10.0, 10.0), ..stage.settings() };
    tokio::select! {
        _ = agent.run(Conversation::from_prompt("go"), settings) => unreachable!("the model thinks for a minute"),
        () = stage.log.until("ask 1") => {}
    }
    assert!(used(&ledger).0 > 0);
}

#[tokio::test]
async fn runs_under_a_cap_never_overshoot_it_together() {
    let usage = Usage { input_tokens: 700, output_tokens: 900, ..Usage::default() };
    let think = Pace::new(Duration::from_millis(2), 0.0);
    let stage = Stage::serve(ServerOptions::responder(move |conversation| match conversation.assistant_turns() {
        0 | 1 => Turn::calls([("read", serde_json::json!({"id": "x"}))]).usage(usage).pace(think),
        _ => Turn::text("ok").usage(usage).pace(think),
    }));
    let stage = stage.with(|options| options.price = Some(PRICE));
    let (ledger, agent) = (Arc::new(MemoryLedger::default()), stage.agent());
    let (project, key) = (0.8, 0.7);
    let runs = (0..60).map(|at| {
        let settings = RunSettings { daily: daily(&ledger, project, key), ..RunSettings::default() };
        let agent = agent.clone();
        tokio::spawn(async move { agent.run(Conversation::from_prompt(&format!("go {at}")), settings).await })
    });
    let mut spent = 0;
    let (mut statuses, mut turns) = (Vec::new(), 0);
    for run in runs.collect::<Vec<_>>() {
        let report = run.await.unwrap();
        statuses.push(report.status);
        turns += report.turns;
        spent += nano_usd(report.cost_usd.unwrap());
    }
    assert!(spent <= nano_usd(key), "{spent}");
    // Each request is rounded up by itself.
    let (of_project, of_key) = used(&ledger);
    assert_eq!(of_project, of_key);
    assert!((spent..=spent + u64::from(turns)).contains(&of_key), "{of_key} {spent}: what was not taken is given back");
    assert!(statuses.iter().all(|status| matches!(status, Status::Done | Status::Budget)));
    assert!(statuses.contains(&Status::Budget) && turns >= 20, "most of the cap is of use: {turns}");
}
