//! Many runs and one model whose API keeps to limits of its own, on a paused clock.
//!
//! The API here counts by itself: a bucket of requests that refills evenly, what it bears at once, and waits that it names.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_agent::{Agent, AgentOptions, Conversation, Report, RunSettings, Status};
use fanout_anthropic::{BoxFuture, Left, Model, ModelError, Part, RateLimits, Request, Response};
use fanout_core::call::{CallerId, GroupName};
use fanout_core::run::{Scheduler, SchedulerOptions};
use fanout_core::toolbox::Toolbox;
use tokio::time::Instant;

const ANSWER: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"ok"}],
    "stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":5}}"#;

/// An API with limits.
struct Api {
    /// Requests a minute; none are counted where it is 0.
    a_minute: u64,
    /// More than so many at once are answered 529.
    at_once: usize,
    /// What the request of that number, counted from 0, is refused with.
    refuses: fn(usize) -> Option<(u16, Option<Duration>)>,
    state: Mutex<State>,
}

struct State {
    began: Instant,
    left: f64,
    counted_at: Instant,
    running: usize,
    /// When requests came, and how they were answered.
    seen: Vec<(Duration, u16)>,
}

impl Api {
    fn new(a_minute: u64, at_once: usize, refuses: fn(usize) -> Option<(u16, Option<Duration>)>) -> Arc<Self> {
        let now = Instant::now();
        let state = State { began: now, left: a_minute as f64, counted_at: now, running: 0, seen: Vec::new() };
        Arc::new(Self { a_minute, at_once, refuses, state: Mutex::new(state) })
    }

    /// What it says to a request that comes now.
    fn judge(&self) -> RateLimits {
        let mut state = self.state.lock().unwrap();
        let (now, a_second) = (Instant::now(), self.a_minute as f64 / 60.0);
        state.left = (state.left + (now - state.counted_at).as_secs_f64() * a_second).min(self.a_minute as f64);
        state.counted_at = now;
        let (status, retry_after) = if let Some(refusal) = (self.refuses)(state.seen.len()) {
            refusal
        } else if state.running >= self.at_once {
            (529, None)
        } else if self.a_minute > 0 && state.left < 1.0 {
            (429, Some(Duration::from_secs_f64((1.0 - state.left) / a_second)))
        } else {
            state.left -= 1.0;
            state.running += 1;
            (200, None)
        };
        let at = now - state.began;
        state.seen.push((at, status));
        let full_in = Duration::from_secs_f64((self.a_minute as f64 - state.left) / a_second.max(f64::EPSILON));
        let requests = Left { budget: "requests", limit: self.a_minute, left: state.left as u64, full_in };
        let budgets = if self.a_minute > 0 { vec![requests] } else { Vec::new() };
        RateLimits { status, retry_after, budgets }
    }

    fn seen(&self) -> Vec<(Duration, u16)> {
        self.state.lock().unwrap().seen.clone()
    }

    fn count(&self, status: u16) -> usize {
        self.seen().iter().filter(|(_, other)| *other == status).count()
    }
}

impl Model for Api {
    fn respond<'a>(
        &'a self,
        _: &'a Request,
        on_part: &'a mut (dyn FnMut(Part<'_>) + Send),
    ) -> BoxFuture<'a, Result<Response, ModelError>> {
        Box::pin(async move {
            let limits = self.judge();
            // The head of an answer is on its way for a while.
            tokio::time::sleep(Duration::from_millis(100)).await;
            on_part(Part::Limits(&limits));
            if limits.status != 200 {
                return Err(ModelError::Status {
                    status: limits.status,
                    kind: "an_error".to_owned(),
                    message: "no".to_owned(),
                    error_code: None,
                    retry_after: limits.retry_after,
                    should_retry: None,
                    request_id: None,
                });
            }
            tokio::time::sleep(Duration::from_millis(900)).await;
            self.state.lock().unwrap().running -= 1;
            Ok(Response::parse(ANSWER)?)
        })
    }
}

/// So many runs of one turn at once, and how long all took.
async fn runs(api: &Arc<Api>, count: usize) -> (Vec<Report>, Duration) {
    let options = AgentOptions::new("m");
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let agent = Agent::new(Arc::clone(api) as _, scheduler, Arc::new(Toolbox::new()), options).unwrap();
    let agent = Arc::new(agent);
    let began = Instant::now();
    let runs: Vec<_> = (0..count)
        .map(|_| {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move { agent.run(Conversation::from_prompt("go"), RunSettings::default()).await })
        })
        .collect();
    let mut reports = Vec::new();
    for run in runs {
        reports.push(run.await.unwrap());
    }
    (reports, began.elapsed())
}

#[track_caller]
fn all_done(reports: &[Report]) {
    let failed: Vec<_> = reports.iter().filter(|report| report.status != Status::Done).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), reports.len(), failed[0].reason);
}

#[tokio::test(start_paused = true)]
async fn runs_queue_before_they_are_refused() {
    let api = Api::new(120, usize::MAX, |_| None);
    let (reports, took) = runs(&api, 600).await;
    all_done(&reports);
    assert_eq!(api.count(429), 0, "{:?}", api.seen());
    // 120 at once, the other 480 at two a second.
    assert!((240.0..252.0).contains(&took.as_secs_f64()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_one_run_is_told_holds_for_all() {
    let wait = Duration::from_secs(30);
    let api = Api::new(0, usize::MAX, |number| (number == 2).then_some((429, Some(Duration::from_secs(30)))));
    let (reports, _) = runs(&api, 200).await;
    all_done(&reports);
    // Told after 100 ms, when the first 64 were on their way.
    let told = Duration::from_millis(100);
    let during = api.seen().into_iter().filter(|(at, _)| *at > told && *at < told + wait).count();
    assert_eq!(during, 0, "{:?}", api.seen());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_names_no_wait_ends_its_own_run_and_is_not_repeated() {
    let api = Api::new(0, usize::MAX, |number| (number == 2).then_some((429, None)));
    let (reports, _) = runs(&api, 100).await;
    let ends: Vec<Status> = reports.iter().map(|report| report.status).collect();
    assert_eq!(ends.iter().filter(|status| **status == Status::Failed).count(), 1);
    assert_eq!(api.seen().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_api_is_asked_by_fewer_at_once() {
    let api = Api::new(0, 20, |_| None);
    let (reports, _) = runs(&api, 400).await;
    all_done(&reports);
    let refused = api.count(529);
    assert!(refused < 150, "{refused} requests were refused");
}

#[tokio::test(start_paused = true)]
async fn a_sudden_crowd_is_let_in_slowly() {
    let api = Api::new(0, usize::MAX, |_| None);
    let (reports, _) = runs(&api, 400).await;
    all_done(&reports);
    let at_first = api.seen().iter().filter(|(at, _)| at.is_zero()).count();
    assert_eq!(at_first, 64);
    assert!(api.seen().last().unwrap().0 < Duration::from_secs(4), "it doubles: 64, 128, 208");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_would_wait_past_its_deadline_ends_at_once_and_leaves_no_place_behind() {
    let api = Api::new(1, usize::MAX, |_| None);
    let mut options = AgentOptions::new("m");
    options.limits.deadline = Duration::from_secs(30);
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let agent = Agent::new(Arc::clone(&api) as _, scheduler.clone(), Arc::new(Toolbox::new()), options).unwrap();
    let first = agent.run(Conversation::from_prompt("go"), RunSettings::default()).await;
    let second = agent.run(Conversation::from_prompt("go"), RunSettings::default()).await;
    assert_eq!((first.status, second.status), (Status::Done, Status::Failed));
    assert!(second.retry_after.is_some_and(|wait| wait > Duration::from_secs(30)), "{:?}", second.reason);
    assert!(second.elapsed < Duration::from_secs(1), "{:?}", second.elapsed);
    let waiting: usize = scheduler.limits().iter().map(|group| group.waiting).sum();
    assert_eq!((waiting, api.seen().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_longer_than_a_run_has_left_ends_all_who_would_wait_for_it_at_once() {
    // 64 cross; the third is told of a wait that outlasts every run's quarter of an hour.
    let api = Api::new(0, usize::MAX, |number| (number == 2).then_some((429, Some(Duration::from_secs(100_000)))));
    let (reports, took) = runs(&api, 100).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let waits: Vec<_> = reports.iter().filter_map(|report| report.retry_after).collect();
    // The one that was told, and those who had not crossed by then.
    assert_eq!(waits.len(), 1 + 100 - 64, "{:?}", reports.iter().map(|report| &report.reason).collect::<Vec<_>>());
    assert!(waits.iter().all(|wait| *wait > Duration::from_secs(3500)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_the_queue_holds_nobody_up() {
    let api = Api::new(60, usize::MAX, |_| None);
    let gate = Scheduler::new(SchedulerOptions::default()).gate().clone();
    let (name, caller): (GroupName, CallerId) = ("model/x".into(), "c".into());
    let limits = api.judge();
    let pass = gate.enter(&name, &caller, [("requests", 1)].into_iter().collect(), Duration::MAX).await.unwrap();
    let reading = |left: &Left| fanout_core::limits::Reading {
        meter: left.budget,
        limit: 60,
        left: 0,
        full_in: Duration::from_secs(60),
    };
    pass.read(&limits.budgets.iter().map(reading).collect::<Vec<_>>());
    let enter = |requests| {
        let (gate, name, caller) = (gate.clone(), "model/x".into(), "c".into());
        async move { gate.enter(&name, &caller, [("requests", requests)].into_iter().collect(), Duration::MAX).await }
    };
    let began = Instant::now();
    let first = tokio::spawn(enter(50));
    tokio::task::yield_now().await;
    let second = tokio::spawn(enter(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!first.is_finished() && !second.is_finished());
    first.abort();
    second.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(pass);
}
