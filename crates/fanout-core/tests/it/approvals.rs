//! Calls that people have to agree to, on the real driver: what they wait for, what they hold, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::approval::{Approval, Approver, Asked, Condition, Decision, Question, Said, Test};
use fanout_core::call::{Call, Link, Need};
use fanout_core::effects::EffectsSpec;
use fanout_core::event::{Event, Recorder, What};
use fanout_core::outcome::{Content, ErrorCode, Outcome, Output};
use fanout_core::plan::AtomicPart;
use fanout_core::run::{Run, RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{BoxFuture, ToolError};
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::driver::{Does, all, ms, words};

/// People who decide after a while: what is said of a call stands under its id, all else is approved after a second.
#[derive(Default)]
struct Desk {
    decides: BTreeMap<String, (Duration, Option<Decision>)>,
    asked: Mutex<Vec<(Duration, String, Value)>>,
    open: Arc<AtomicUsize>,
    since: Mutex<Option<Instant>>,
}

/// Counts the questions that nobody has answered or taken back.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Desk {
    /// `None` for a decision: the approver panics.
    fn new(decides: impl IntoIterator<Item = (&'static str, u64, Option<Decision>)>) -> Arc<Self> {
        let decides = decides.into_iter().map(|(call, wait, decision)| (call.to_owned(), (ms(wait), decision)));
        Arc::new(Self { decides: decides.collect(), since: Mutex::new(Some(Instant::now())), ..Self::default() })
    }

    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(at, call, input)| format!("{} {call} {input}", at.as_millis())).collect()
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Approver for Desk {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        let call = question.call.to_string();
        let at = self.since.lock().unwrap().unwrap().elapsed();
        self.asked.lock().unwrap().push((at, call.clone(), (*question.input).clone()));
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        let yes = (ms(1000), Some(Decision::Approved(Said::default())));
        let (wait, decision) = self.decides.get(&call).cloned().unwrap_or(yes);
        Box::pin(async move {
            if call == "unasked" {
                return Err("the store is full".to_owned());
            }
            let decision = Box::pin(async move {
                let _open = open;
                tokio::time::sleep(wait).await;
                decision.unwrap()
            });
            Ok(Asked { approval: format!("apr_{call}").into(), decision })
        })
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, event: &Event) {
        let said = match &event.what {
            What::ApprovalAsked { call, approval, .. } => format!("{call} asks {approval}"),
            What::ApprovalDecided { call, approval, decision } => format!("{call} {approval} {}", decision.as_str()),
            What::CallReady { call, .. } => format!("{call} ready"),
            What::AttemptStarted { call, .. } => format!("{call} starts"),
            What::CallEnded { outcome } => format!("{} ends", outcome.call),
            _ => return,
        };
        self.0.lock().unwrap().push(format!("{} {said}", event.at.as_millis()));
    }
}

fn said(words: &str) -> Said {
    Said { by: Some("kim".into()), words: (!words.is_empty()).then(|| words.into()) }
}

fn yes(words: &str) -> Option<Decision> {
    Some(Decision::Approved(said(words)))
}

fn no(words: &str) -> Option<Decision> {
    Some(Decision::Denied(said(words)))
}

/// Takes 100 ms and answers its input; `approval` says who is asked.
fn tool(name: &str, approval: Approval) -> Does {
    let tool = Does::new(name, |attempt| {
        Box::pin(async move {
            tokio::time::sleep(ms(100)).await;
            match attempt.atomic() {
                None => Ok(Output::json((*attempt.input).clone())),
                Some(atomic) => {
                    for at in 0..atomic.members().len() {
                        let input = atomic.input(at)?;
                        atomic.answer(Output::json((*input).clone()));
                    }
                    Ok(Output::default())
                }
            }
        })
    });
    tool.with(|spec| {
        spec.policy.approval = approval;
        spec.policy.deadline = ms(500);
        spec.atomic = Some(AtomicPart(Arc::new(())));
    })
}

fn over(most: i64) -> Approval {
    Approval::When(vec![Condition { pointer: "/amount".to_owned(), test: Test::Over(most.into()) }])
}

fn toolbox() -> Arc<Toolbox> {
    let mut toolbox = Toolbox::new();
    for tool in [
        tool("free", Approval::Never),
        tool("always", Approval::Always),
        tool("over", over(100)),
        tool("read", Approval::Always)
            .with(|spec| spec.effects = EffectsSpec { writes: Some(Vec::new()), ..spec.effects.clone() }),
        Does::new("fail", |_| Box::pin(async { Err(ToolError::Failed("no such order".to_owned())) })),
    ] {
        toolbox.add(tool).unwrap();
    }
    toolbox.add_plan(64 * 1024).unwrap();
    Arc::new(toolbox)
}

fn run(desk: &Arc<Desk>) -> (Run, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let scheduler = Scheduler::new(SchedulerOptions { in_flight_max: 1, ..SchedulerOptions::default() });
    let options = RunOptions {
        approver: Some(Arc::clone(desk) as _),
        recorder: Some(Arc::clone(&heard) as _),
        ..RunOptions::new("run")
    };
    (scheduler.run(toolbox(), options), heard)
}

fn shown(outcome: &Outcome) -> Vec<&str> {
    let texts = outcome.shown.iter().map(|content| match content {
        Content::Text(text) => &**text,
        Content::Image { .. } => "image",
    });
    texts.collect()
}

fn error(outcome: &Outcome) -> &str {
    &outcome.result.as_ref().unwrap_err().message
}

#[tokio::test(start_paused = true)]
async fn a_call_asks_beside_its_waits_holds_nothing_and_its_deadline_begins_afterwards() {
    let desk = Desk::new([("c1", 2000, yes(""))]);
    let (mut run, heard) = run(&desk);
    let started = Instant::now();
    // `c1` conflicts with `c0`; with one permit for all, `c2` could not run if `c1` held it; `c3` comes after `c1`.
    let keys = [("free", "a"), ("always", "a"), ("free", "b"), ("free", "a")];
    let calls = keys.map(|(tool, key)| (tool, json!({ "key": key })));
    assert_eq!(words(&all(&mut run, calls).await), "ok ok ok ok");
    assert_eq!(desk.asked(), [r#"0 c1 {"key":"a"}"#]);
    let heard = heard.0.lock().unwrap();
    let expected = [
        "0 c0 ready",
        "0 c2 ready",
        "0 c0 starts",
        "0 c1 asks apr_c1",
        "100 c0 ends",
        "100 c2 starts",
        "200 c2 ends",
        "2000 c1 apr_c1 approved",
        "2000 c1 ready",
        "2000 c1 starts",
        "2100 c1 ends",
        "2100 c3 ready",
        "2100 c3 starts",
        "2200 c3 ends",
    ];
    assert_eq!(sorted(&heard), sorted(&expected.map(str::to_owned)));
    assert_eq!(started.elapsed(), ms(2200));
}

/// Events of one moment come in the order of the far side's whim.
fn sorted(events: &[String]) -> Vec<String> {
    let mut events = events.to_vec();
    events.sort_by_key(|event| {
        let (at, rest) = event.split_once(' ').unwrap();
        (at.parse::<u64>().unwrap(), rest.to_owned())
    });
    events
}

#[tokio::test(start_paused = true)]
async fn whatever_people_do_a_call_has_one_outcome_and_says_what_happened() {
    let nothing = "nothing was carried out";
    for (id, decision, word, message) in [
        (
            "no",
            no("too much"),
            "denied",
            "`always` was denied by kim (approval apr_no), and nothing was carried out: too much".to_owned(),
        ),
        (
            "expired",
            Some(Decision::Expired),
            "denied",
            format!(
                "`always` needs a person's approval, and nobody has decided on approval apr_expired in time; {nothing}. Once it is approved, the same call with the same input can be made again"
            ),
        ),
        (
            "unasked",
            yes(""),
            "internal",
            format!("`always` needs a person's approval, which could not be asked for: the store is full; {nothing}"),
        ),
        (
            "panics",
            None,
            "internal",
            format!(
                "`always` needs a person's approval, which could not be asked for: the question was lost; {nothing}"
            ),
        ),
    ] {
        let desk = Desk::new([(id, 50, decision)]);
        let (mut run, _) = run(&desk);
        let mut batch = run.batch();
        batch.call(Call::new(0, id, "always", json!({"key": "a"}))).unwrap();
        batch.call(Call::new(1, "next", "free", json!({"key": "a"}))).unwrap();
        let outcomes = batch.finish().await;
        assert_eq!(words(&outcomes), format!("{word} ok"));
        assert_eq!((error(&outcomes[0]), outcomes[0].attempts, desk.open()), (message.as_str(), 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_can_be_asked_a_call_is_denied_and_the_others_go_on() {
    let mut run = Scheduler::default().run(toolbox(), RunOptions::new("run"));
    let calls =
        [("always", json!({"key": "a"})), ("over", json!({"key": "b", "amount": 100})), ("over", json!({"key": "b"}))];
    let outcomes = all(&mut run, calls).await;
    assert_eq!(words(&outcomes), "denied ok denied");
    let message = "`always` needs a person's approval, and nobody can be asked here; nothing was carried out";
    assert_eq!(error(&outcomes[0]), message);
}

#[tokio::test(start_paused = true)]
async fn what_is_judged_and_asked_about_is_the_final_input() {
    let desk = Desk::new([]);
    let (mut run, _) = run(&desk);
    let mut batch = run.batch();
    for (at, amount) in [(0, 50), (1, 500)] {
        let (first, second) = (format!("a{at}"), format!("b{at}"));
        batch.call(Call::new(at * 2, first.as_str(), "free", json!({"key": at, "amount": amount}))).unwrap();
        let link = Link { on: first.as_str().into(), need: Need::Output { label: first.clone() } };
        let input = json!({"key": at, "amount": {"$ref": format!("{first}#/amount")}});
        batch.call(Call { links: vec![link], ..Call::new(at * 2 + 1, second, "over", input) }).unwrap();
    }
    assert_eq!(words(&batch.finish().await), "ok ok ok ok");
    assert_eq!(
        desk.asked(),
        [r#"200 b1 {"key":1,"amount":500}"#.to_owned()]
            .map(|text| text.replace(r#""key":1,"amount":500"#, r#""amount":500,"key":1"#))
    );
}

#[tokio::test(start_paused = true)]
async fn a_reviewers_words_stand_behind_the_result() {
    let desk = Desk::new([("c0", 10, yes("fine, but tell the customer"))]);
    let (mut run, _) = run(&desk);
    let outcomes = all(&mut run, [("always", json!({"key": "a"}))]).await;
    assert_eq!(shown(&outcomes[0]), [r#"{"key":"a"}"#, "the reviewer says: fine, but tell the customer"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_while_the_response_streams_and_nothing_enters_early() {
    let desk = Desk::new([]);
    let (mut run, _) = run(&desk);
    let mut batch = run.batch();
    batch.call(Call::new(0, "c0", "read", json!({"key": "a"}))).unwrap();
    let streams = Instant::now() + ms(300);
    while tokio::time::timeout_at(streams, batch.progress()).await.is_ok() {}
    assert_eq!(desk.asked(), Vec::<String>::new());
    batch.restart("the response was cut off");
    batch.call(Call::new(0, "c0", "read", json!({"key": "b"}))).unwrap();
    assert_eq!(words(&batch.finish().await), "ok");
    assert_eq!(desk.asked(), [r#"300 c0 {"key":"b"}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_question_is_taken_back_when_its_call_ends_otherwise() {
    for how in ["cancel", "cancel_call", "restart", "discard", "drop", "skip"] {
        let desk = Desk::new([("asks", 60_000, yes(""))]);
        let (mut run, _) = run(&desk);
        let mut batch = run.batch();
        batch.call(Call::new(0, "free", if how == "skip" { "fail" } else { "free" }, json!({"key": "b"}))).unwrap();
        let link = Link { on: "free".into(), need: Need::Success };
        batch.call(Call { links: vec![link], ..Call::new(1, "asks", "always", json!({"key": "a"})) }).unwrap();
        batch.commit();
        let soon = Instant::now() + ms(10);
        while tokio::time::timeout_at(soon, batch.progress()).await.is_ok() {}
        assert_eq!((desk.asked().len(), desk.open()), (1, usize::from(how != "skip")), "{how}");
        match how {
            "cancel" => batch.cancel("stop"),
            "cancel_call" => batch.cancel_call(&"asks".into(), "stop"),
            "restart" => batch.restart("stop"),
            "discard" => batch.discard("stop"),
            "drop" => drop(batch),
            _ => assert_eq!(words(&batch.finish().await), "upstream skipped"),
        }
        tokio::task::yield_now().await;
        assert_eq!(desk.open(), 0, "{how}");
    }
}

async fn plan(desk: &Arc<Desk>, plan: Value) -> Arc<Outcome> {
    let (mut run, _) = run(desk);
    let mut batch = run.batch();
    batch.call(Call::new(0, "p", "plan", plan)).unwrap();
    let outcome = batch.finish().await.remove(0);
    tokio::task::yield_now().await;
    outcome
}

fn member(label: &str, tool: &str, input: Value) -> Value {
    json!({ "label": label, "tool": tool, "input": input })
}

#[tokio::test(start_paused = true)]
async fn a_member_of_a_plan_asks_once_its_input_is_filled_and_the_plan_shows_the_words() {
    let desk = Desk::new([("p/b", 10, yes("go")), ("p/each/1", 20, no("not this one"))]);
    let each = json!({
        "label": "each", "tool": "over", "for_each": {"$ref": "a#/items"},
        "input": {"key": {"$ref": "item#"}, "amount": {"$ref": "item#"}},
    });
    let calls = json!([
        member("a", "free", json!({"key": "a", "amount": 500, "items": [1, 200]})),
        member("b", "over", json!({"key": "b", "amount": {"$ref": "a#/amount"}})),
        each,
    ]);
    let outcome = plan(&desk, json!({ "calls": calls, "return": ["b", "each"] })).await;
    let asked = [r#"100 p/b {"amount":500,"key":"b"}"#, r#"100 p/each/1 {"amount":200,"key":200}"#];
    assert_eq!(desk.asked(), asked);
    let shown = shown(&outcome);
    let answer: Value = serde_json::from_str(shown[0]).unwrap();
    assert_eq!((&answer["b"]["amount"], &answer["each"][0]["amount"]), (&json!(500), &json!(1)), "{answer}");
    assert!(shown[0].contains("was denied by kim (approval apr_p/each/1)"), "{answer}");
    assert_eq!(shown[1..], ["the reviewer says of `b`: go"]);
}

#[tokio::test(start_paused = true)]
async fn an_atomic_plan_asks_for_all_of_its_members_before_it_locks_anything() {
    let two = |amount: i64| {
        let calls = [
            member("a", "free", json!({"key": "a"})),
            member("b", "over", json!({"key": "b", "amount": amount})),
            member("c", "always", json!({"key": "c"})),
        ];
        json!({ "calls": calls, "atomic": true })
    };
    // The second member is denied: nothing of the plan runs.
    let desk = Desk::new([("p/b", 20, no("too much")), ("p/c", 60_000, yes(""))]);
    let outcome = plan(&desk, two(500)).await;
    assert_eq!((outcome.error_code(), outcome.attempts, desk.open()), (Some(ErrorCode::Denied), 0, 0));
    let answer: Value = serde_json::from_str(shown(&outcome)[0]).unwrap();
    for label in ["a", "b", "c"] {
        assert_eq!(answer[label]["error"]["code"], "denied", "{answer}");
        assert_eq!(
            answer[label]["error"]["message"],
            "`over` was denied by kim (approval apr_p/b), and nothing was carried out: too much"
        );
    }
    // Both agree: it runs once the last of them did. While it waits, who conflicts with it goes on.
    let desk = Desk::new([("p/b", 2000, yes("careful")), ("p/c", 1000, yes(""))]);
    let (mut run, heard) = run(&desk);
    let mut batch = run.batch();
    batch.call(Call::new(0, "p", "plan", two(500))).unwrap();
    batch.call(Call::new(1, "beside", "free", json!({"key": "z"}))).unwrap();
    let outcomes = batch.finish().await;
    assert_eq!(words(&outcomes), "ok ok");
    assert_eq!(shown(&outcomes[0])[1..], ["the reviewer says of `b`: careful"]);
    assert_eq!(desk.asked(), [r#"0 p/b {"amount":500,"key":"b"}"#, r#"0 p/c {"key":"c"}"#]);
    let heard = std::mem::take(&mut *heard.0.lock().unwrap());
    assert!(heard.contains(&"100 beside ends".to_owned()) && heard.contains(&"2000 p starts".to_owned()), "{heard:?}");
    // The condition is not met: nobody but `c` is asked.
    let desk = Desk::new([]);
    assert!(!plan(&desk, two(5)).await.is_error());
    assert_eq!(desk.asked(), [r#"0 p/c {"key":"c"}"#]);
}

#[tokio::test(start_paused = true)]
async fn an_atomic_plan_whose_member_could_not_be_approved_as_it_will_run_is_refused() {
    let with = |input: Value| {
        let calls = [member("a", "free", json!({"key": "a", "amount": 5})), member("b", "over", input)];
        json!({ "calls": calls, "atomic": true })
    };
    let desk = Desk::new([]);
    let outcome = plan(&desk, with(json!({"key": "b", "amount": {"$ref": "a#/amount"}}))).await;
    assert_eq!(outcome.error_code(), Some(ErrorCode::InvalidInput));
    assert!(error(&outcome).starts_with("`b` (`over`) needs a person's approval, who is asked before"), "{outcome:?}");
    // What the condition looks at is known, and no reason to ask: the rest may be filled in later.
    let outcome = plan(&desk, with(json!({"key": {"$ref": "a#/key"}, "amount": 5}))).await;
    assert_eq!((outcome.error_code(), desk.asked()), (None, Vec::new()));
}
