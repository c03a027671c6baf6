//! A batch that broke off goes on: at every event of it, and as if nothing had been between.
//!
//! Time is paused. Tools count how often each of their calls was carried out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::approval::{Approval, Approver, Asked, Decision, Question, Said};
use fanout_core::call::Call;
use fanout_core::effects::{EffectsSpec, Paths, Source, Template};
use fanout_core::event::{Event, NotKept, Recorder, What};
use fanout_core::outcome::{ErrorCode, Outcome, Output};
use fanout_core::run::{Past, RunOptions, Scheduler};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};

/// How often each call was carried out, by its id.
type Carried = Arc<Mutex<BTreeMap<String, u32>>>;

/// `read` and `write` touch `k/{key}`, `set` writes it and is idempotent, `list` answers items; people are asked about `pay`
/// and `put`, which is idempotent.
struct Fake(&'static str, Carried);

impl Tool for Fake {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.0, Source::function());
        let template = |text| vec![Template::parse(text).unwrap()];
        spec.effects = match self.0 {
            "read" => EffectsSpec { reads: Some(template("k/{key}")), writes: Some(vec![]), ..spec.effects },
            "list" => EffectsSpec { reads: Some(vec![]), writes: Some(vec![]), ..spec.effects },
            _ => EffectsSpec { writes: Some(template("k/{key}")), ..spec.effects },
        };
        spec.policy.idempotent = ["set", "put"].contains(&self.0);
        if ["pay", "put"].contains(&self.0) {
            spec.policy.approval = Approval::Always;
        }
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let (name, carried) = (self.0, Arc::clone(&self.1));
        Box::pin(async move {
            *carried.lock().unwrap().entry(attempt.call.to_string()).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(attempt.input["ms"].as_u64().unwrap_or(5))).await;
            if attempt.input["fail"] == json!(true) {
                return Err(ToolError::Failed("no such thing".into()));
            }
            Ok(match name {
                "list" => Output::json(json!([{"key": "a"}, {"key": "b"}, {"key": "c"}])),
                _ => Output::json((*attempt.input).clone()),
            })
        })
    }
}

/// People who think for 3 ms, do not agree to the key `no`, and say something about every call. They count the questions.
#[derive(Clone, Default)]
struct People(Arc<Mutex<Vec<String>>>);

impl Approver for People {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        self.0.lock().unwrap().push(question.call.to_string());
        let said = Said { by: Some("kim".into()), words: Some(format!("of {}", question.input["key"]).into()) };
        let decision = match question.input["key"] == json!("no") {
            true => Decision::Denied(said),
            false => Decision::Approved(said),
        };
        let decision = Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            decision
        });
        Box::pin(async move { Ok(Asked { approval: format!("apr_{}", question.call).into(), decision }) })
    }
}

fn toolbox(carried: &Carried) -> Arc<Toolbox> {
    let mut toolbox = Toolbox::new();
    for name in ["read", "write", "set", "list", "pay", "put"] {
        toolbox.add(Fake(name, Arc::clone(carried))).unwrap();
    }
    toolbox.add_plan(50_000).unwrap();
    Arc::new(toolbox)
}

/// Calls that wait for each other in every way, a plan with a `for_each` among them.
fn calls() -> Vec<Call> {
    let plan = json!({"calls": [
        {"label": "all", "tool": "list", "input": {"ms": 3}},
        {"label": "each", "tool": "write", "for_each": {"$ref": "all#"}, "input": {"key": {"$ref": "item#/key"}, "ms": 7}},
        {"label": "bad", "tool": "write", "input": {"key": "z", "fail": true}},
        {"label": "never", "tool": "read", "needs": ["bad"], "input": {"key": "y"}},
        {"label": "paid", "tool": "pay", "input": {"key": "p", "ms": 2}},
        {"label": "put", "tool": "put", "needs": ["paid"], "input": {"key": "o", "ms": 4}},
        {"label": "sum", "tool": "set", "needs": ["each"], "input": {"key": {"$ref": "each#/1/key"}, "n": {"$ref": "all#"}}},
    ]});
    vec![
        Call::new(0, "r1", "read", json!({"key": "a", "ms": 4})),
        Call::new(1, "w1", "write", json!({"key": "a", "ms": 6})),
        Call::new(2, "s1", "set", json!({"key": "x", "ms": 9})),
        Call::new(3, "p", "plan", plan),
        Call::new(4, "bad", "write", json!({"key": "q", "fail": true})),
        Call::new(5, "gone", "no_such_tool", json!({})),
        Call::new(6, "r2", "read", json!({"key": "b", "ms": 2})),
        Call::new(7, "pay", "pay", json!({"key": "a", "ms": 5})),
        Call::new(8, "put", "put", json!({"key": "u", "ms": 8})),
        Call::new(9, "denied", "pay", json!({"key": "no"})),
    ]
}

/// Keeps all events.
#[derive(Default)]
struct All(Mutex<Vec<What>>);

impl Recorder for All {
    fn record(&self, event: &Event) {
        self.0.lock().unwrap().push(event.what.clone());
    }
}

/// Runs the calls to their end, with what is known of them.
async fn play(carried: &Carried, people: &People, past: Option<Past>) -> (Vec<Arc<Outcome>>, Vec<What>) {
    let all = Arc::new(All::default());
    let mut options = RunOptions::new("r");
    options.recorder = Some(Arc::clone(&all) as _);
    options.approver = Some(Arc::new(people.clone()));
    let mut run = Scheduler::default().run(toolbox(carried), options);
    let mut batch = run.batch();
    if let Some(past) = past {
        batch.remember(past);
    }
    for call in calls() {
        batch.call(call).unwrap();
    }
    let outcomes = batch.finish().await;
    let events = std::mem::take(&mut *all.0.lock().unwrap());
    (outcomes, events)
}

fn past(events: &[What]) -> Past {
    let mut past = Past::default();
    (0..).zip(events).for_each(|(number, what)| past.take(what, number));
    past
}

fn ended(events: &[What]) -> BTreeMap<String, Arc<Outcome>> {
    let outcome = |what: &What| match what {
        What::CallEnded { outcome } | What::BundleEnded { outcome } => {
            Some((outcome.call.to_string(), Arc::clone(outcome)))
        }
        _ => None,
    };
    events.iter().filter_map(outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_breaks_off_at_any_event_goes_on_as_if_it_had_not() {
    let whole = Carried::default();
    let (outcomes, events) = play(&whole, &People::default(), None).await;
    let whole_ended = ended(&events);
    assert!(events.len() > 60, "{}", events.len());
    for cut in 0..=events.len() {
        let before = &events[..cut];
        let (known, underway): (_, Vec<String>) =
            (ended(before), past(before).underway().map(|call| call.call.to_string()).collect());
        let begun: Vec<String> = before
            .iter()
            .filter_map(|what| match what {
                What::AttemptStarted { call, .. } => Some(call.to_string()),
                _ => None,
            })
            .collect();
        let (carried, people) = (Carried::default(), People::default());
        let (again, after) = play(&carried, &people, Some(past(before))).await;
        for call in people.0.lock().unwrap().iter() {
            assert!(!known.contains_key(call) && !begun.contains(call), "{cut}: people are asked of `{call}` again");
        }
        let carried = carried.lock().unwrap();
        let is_unknown = |call: &str| underway.iter().any(|id| id == call) && !may_repeat(call);
        // Both parts together are one story: each call ends once, those that ended before are not run again.
        for (call, outcome) in ended(&after) {
            assert!(!known.contains_key(&call), "{cut}: `{call}` ended twice");
            match is_unknown(&call) {
                true => assert_eq!(outcome.error_code(), Some(ErrorCode::OutcomeUnknown), "{cut}: {call}"),
                // What was built on something unknown may be skipped, or be told of it.
                false if underway.iter().any(|id| is_unknown(id)) => {}
                false => assert_eq!(came(&outcome), came(&whole_ended[&call]), "{cut}: {call}"),
            }
        }
        for call in carried.keys() {
            assert!(!known.contains_key(call) && !is_unknown(call), "{cut}: `{call}` was carried out again");
            assert_eq!(carried[call], 1, "{cut}: {call}");
        }
        let all: Vec<String> = known.keys().cloned().chain(ended(&after).into_keys()).collect();
        if !underway.iter().any(|id| is_unknown(id)) {
            assert_eq!(all.len(), whole_ended.len(), "{cut}");
            let all = |outcomes: &[Arc<Outcome>]| outcomes.iter().map(|outcome| came(outcome)).collect::<Vec<_>>();
            assert_eq!(all(&again), all(&outcomes), "{cut}");
        }
        assert_eq!(again.len(), outcomes.len());
        let arrived = |events: &[What]| {
            events.iter().filter(|what| matches!(what, What::CallArrived { .. } | What::BundleArrived { .. })).count()
        };
        if !underway.iter().any(|id| is_unknown(id)) {
            assert_eq!(arrived(before) + arrived(&after), arrived(&events), "{cut}: each call arrives once");
        }
    }
}

/// What a call came to, however often it was tried.
fn came(outcome: &Outcome) -> Outcome {
    Outcome { attempts: 0, ..outcome.clone() }
}

/// By the tools of [`calls`].
fn may_repeat(call: &str) -> bool {
    ["r1", "r2", "s1", "put", "p/all", "p/never", "p/put", "p/sum"].contains(&call)
}

/// Says that what is recorded is never kept, or cannot be.
struct Unkept(Option<&'static str>);

impl Recorder for Unkept {
    fn record(&self, _: &Event) {}

    fn kept(&self) -> Option<BoxFuture<'static, Result<(), NotKept>>> {
        let said = self.0;
        Some(Box::pin(async move {
            match said {
                Some(said) => Err(NotKept(said.into())),
                None => std::future::pending().await,
            }
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_must_not_happen_twice_is_sent_before_its_beginning_is_kept() {
    for (said, code) in [(Some("the disk is full"), ErrorCode::Internal), (None, ErrorCode::OutcomeUnknown)] {
        let carried = Carried::default();
        let mut options = RunOptions::new("r");
        options.recorder = Some(Arc::new(Unkept(said)));
        let mut run = Scheduler::default().run(toolbox(&carried), options);
        let mut batch = run.batch();
        for (index, tool) in (0..).zip(["read", "write", "set", "list"]) {
            batch.call(Call::new(index, tool, tool, json!({"key": tool}))).unwrap();
        }
        let outcomes = batch.finish().await;
        let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.error_code()).collect();
        assert_eq!(codes, [None, Some(code), None, None]);
        assert_eq!(carried.lock().unwrap().keys().collect::<Vec<_>>(), ["list", "read", "set"]);
        if let (Some(said), Err(error)) = (said, &outcomes[1].result) {
            assert!(error.message.contains(said) && error.message.contains("Nothing was carried out"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_comes_before_anything_new_in_the_order_in_which_it_had_begun() {
    let carried = Carried::default();
    let toolbox = toolbox(&carried);
    let scheduler = Scheduler::default();
    let started = Arc::new(All::default());
    let input: Value = json!({"key": "a"});
    let effects = toolbox.get(&"set".into()).unwrap().effects_of(&input, &Paths::default());
    // They had begun in this order, in runs of their own; the last is new.
    let mut places: BTreeMap<&str, _> =
        ["one", "two", "three"].into_iter().map(|run| (run, scheduler.reenter(&effects))).collect();
    let runs = ["new", "three", "two", "one"].map(|name| {
        let arrived = What::CallArrived {
            call: name.into(),
            tool: "set".into(),
            part_of: None,
            position: fanout_core::call::Position::block(0),
            declared: true,
            input: Arc::new(input.clone()),
            waits: Arc::from([]),
        };
        let mut past = past(&[arrived, What::AttemptStarted { call: name.into(), number: 1 }]);
        let is_new = !places.contains_key(name);
        if let Some(Some(place)) = places.remove(name) {
            past.reenter(&name.into(), place);
        }
        let mut options = RunOptions::new(name);
        options.recorder = Some(Arc::clone(&started) as _);
        let (scheduler, toolbox) = (scheduler.clone(), Arc::clone(&toolbox));
        async move {
            let mut run = scheduler.run(toolbox, options);
            let mut batch = run.batch();
            if !is_new {
                batch.remember(past);
            }
            batch.call(Call::new(0, name, "set", json!({"key": "a"}))).unwrap();
            batch.finish().await
        }
    });
    let [a, b, c, d] = runs;
    tokio::join!(a, b, c, d);
    let events = started.0.lock().unwrap();
    let order: Vec<(String, u32)> = events
        .iter()
        .filter_map(|what| match what {
            What::AttemptStarted { call, number } => Some((call.to_string(), *number)),
            _ => None,
        })
        .collect();
    let expected = [("one", 2), ("two", 2), ("three", 2), ("new", 1)].map(|(call, number)| (call.to_owned(), number));
    assert_eq!(order, expected);
}
