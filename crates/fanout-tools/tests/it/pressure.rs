//! An API that is asked for much, or is in trouble: what the server itself counts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fanout_core::event::{Event, Recorder, What};
use fanout_core::limits::{BreakerOptions, BreakerState, LimitOptions};
use fanout_core::outcome::{ErrorCode, Outcome};
use fanout_core::retry::Backoff;
use fanout_tools::http::HttpTool;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use crate::batch::{Bench, bounded, shown, word};

/// An API that serves so many at once, and refuses or fails the others.
#[derive(Default)]
struct Api {
    seen: AtomicUsize,
    running: AtomicUsize,
    running_most: AtomicUsize,
    /// More at once are answered 429 with this `Retry-After`.
    at_once: Option<(usize, &'static str)>,
    is_down: AtomicBool,
    /// The `Retry-After` of an API that is down.
    down_for: Option<&'static str>,
    /// Every answer needs a permit of it, if there is one.
    gate: Option<Semaphore>,
    came: Notify,
    /// What every good answer says beside.
    headers: Vec<(&'static str, &'static str)>,
}

impl Api {
    async fn start(self) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let api = Arc::new(self);
        let app = Router::new().fallback(answer).with_state(Arc::clone(&api));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (api, base)
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

/// One request less, also when the client hangs up.
struct Running<'a>(&'a Api);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(api): State<Arc<Api>>) -> Response {
    api.seen.fetch_add(1, Ordering::SeqCst);
    let running = api.running.fetch_add(1, Ordering::SeqCst) + 1;
    let _running = Running(&api);
    api.running_most.fetch_max(running, Ordering::SeqCst);
    api.came.notify_waiters();
    if api.is_down.load(Ordering::SeqCst) {
        let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
        if let Some(wait) = api.down_for {
            response.headers_mut().insert(header::RETRY_AFTER, wait.parse().unwrap());
        }
        return response;
    }
    if let Some((_, retry_after)) = api.at_once.filter(|(most, _)| running > *most) {
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, retry_after)]).into_response();
    }
    match &api.gate {
        Some(gate) => gate.acquire().await.unwrap().forget(),
        None => tokio::time::sleep(Duration::from_millis(20)).await,
    }
    let mut response = "ok".into_response();
    for (name, value) in &api.headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn bench(base: &str, limits: LimitOptions) -> Bench {
    Bench::new(
        base,
        limits,
        [HttpTool::builder("get", Method::GET, base), HttpTool::builder("post", Method::POST, base)],
    )
}

fn words(outcomes: &[Arc<Outcome>]) -> Vec<String> {
    outcomes.iter().map(|outcome| word(outcome)).collect()
}

#[tokio::test]
async fn three_calls_of_200_ms_are_there_at_once() {
    let (api, base) = Api { gate: Some(Semaphore::new(0)), ..Api::default() }.start().await;
    let bench = bench(&base, LimitOptions::at_once(32));
    let calls = tokio::spawn(async move { bench.calls("get", 3).await });
    // Nothing is answered before all three have come: one after the other would wait for ever.
    bounded(async {
        loop {
            let came = api.came.notified();
            if api.running.load(Ordering::SeqCst) == 3 {
                break;
            }
            came.await;
        }
    })
    .await;
    api.gate.as_ref().unwrap().add_permits(3);
    assert_eq!(words(&calls.await.unwrap()), ["ok after 1"; 3]);
    assert_eq!((api.seen(), api.running_most.load(Ordering::SeqCst)), (3, 3));
}

/// Writes down when attempts begin and end, and what the server had seen by then.
struct Log {
    api: Arc<Api>,
    lines: Mutex<Vec<Line>>,
}

struct Line {
    at: Duration,
    seen: usize,
    what: Step,
}

#[derive(PartialEq)]
enum Step {
    Started,
    Ended { refused: bool },
}

impl Recorder for Log {
    fn record(&self, event: &Event) {
        let what = match &event.what {
            What::AttemptStarted { .. } => Step::Started,
            What::AttemptEnded { error, .. } => {
                Step::Ended { refused: error.as_ref().is_some_and(|error| error.contains("429")) }
            }
            _ => return,
        };
        self.lines.lock().unwrap().push(Line { at: event.at, seen: self.api.seen(), what });
    }
}

impl Log {
    fn new(api: &Arc<Api>) -> Arc<Self> {
        Arc::new(Self { api: Arc::clone(api), lines: Mutex::default() })
    }

    /// Checks that, once the attempts that ran beside a refusal have ended, the server saw nothing more until the wait was
    /// over. Answers how many pauses there were.
    fn check_pauses(&self, wait: Duration) -> usize {
        let lines = self.lines.lock().unwrap();
        let (mut running, mut pauses) = (0_usize, 0);
        let mut until = Duration::ZERO;
        let mut quiet: Option<usize> = None;
        for line in lines.iter() {
            match line.what {
                Step::Started => {
                    if let Some(seen) = quiet.take() {
                        pauses += 1;
                        assert_eq!(line.seen, seen, "nothing came in the pause");
                        assert!(line.at >= until, "{:?} is before {until:?}", line.at);
                    }
                    running += 1;
                }
                Step::Ended { refused } => {
                    running -= 1;
                    if refused {
                        until = line.at + wait;
                    }
                    quiet = (running == 0 && line.at < until).then_some(line.seen);
                }
            }
        }
        pauses
    }
}

#[tokio::test]
async fn a_storm_of_429_ends_with_every_call_answered() {
    let (api, base) = Api { at_once: Some((5, "1")), ..Api::default() }.start().await;
    let retry = Backoff { attempts: 8, ..Backoff::default() };
    let bench = bench(&base, LimitOptions { retry, ..LimitOptions::at_once(32) });
    let log = Log::new(&api);
    let outcomes = bench.recorded("get", 50, Some(Arc::clone(&log) as Arc<dyn Recorder>)).await;
    assert!(outcomes.iter().all(|outcome| outcome.error_code().is_none()), "{:?}", words(&outcomes));
    let attempts: u32 = outcomes.iter().map(|outcome| outcome.attempts).sum();
    assert_eq!(api.seen(), attempts as usize);
    assert!(attempts > 50, "nothing was refused");
    assert!(attempts <= 150, "{attempts} attempts at 50 calls");
    assert!(log.check_pauses(Duration::from_secs(1)) >= 1);
}

/// The pauses that a run was told of.
#[derive(Default)]
struct Pauses(Mutex<Vec<Duration>>);

impl Recorder for Pauses {
    fn record(&self, event: &Event) {
        if let What::LimitPaused { wait, .. } = event.what {
            self.0.lock().unwrap().push(wait);
        }
    }
}

#[tokio::test]
async fn a_used_up_budget_pauses_the_group_though_the_call_went_well() {
    let headers = vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "50")];
    let (api, base) = Api { headers, ..Api::default() }.start().await;
    let bench = bench(&base, LimitOptions { wait_max: Duration::from_secs(20), ..LimitOptions::at_once(32) });
    let pauses = Arc::new(Pauses::default());
    let outcomes = bench.recorded("get", 1, Some(Arc::clone(&pauses) as Arc<dyn Recorder>)).await;
    assert_eq!(words(&outcomes), ["ok after 1"]);
    assert_eq!(*pauses.0.lock().unwrap(), [Duration::from_secs(50)], "the run is told");
    let outcomes = bench.calls("post", 2).await;
    for outcome in &outcomes {
        assert_eq!(word(outcome), "rate_limited after 0");
        let error = outcome.result.as_ref().unwrap_err();
        let wait = error.retry_after.unwrap();
        assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(50), "{wait:?}");
    }
    assert_eq!(api.seen(), 1);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_told_at_once_and_nobody_waits_it_out() {
    let (api, base) = Api { at_once: Some((0, "3000")), ..Api::default() }.start().await;
    let bench = bench(&base, LimitOptions::at_once(1));
    let outcomes = bench.calls("get", 3).await;
    assert_eq!(words(&outcomes), ["rate_limited after 1", "rate_limited after 0", "rate_limited after 0"]);
    for outcome in &outcomes {
        let wait = outcome.result.as_ref().unwrap_err().retry_after.unwrap();
        assert!(wait > Duration::from_secs(2_000) && wait <= Duration::from_secs(3_000), "{wait:?}");
    }
    assert_eq!(api.seen(), 1);
}

/// Waits until a probe may find out whether the API is well again.
async fn half_open(bench: &Bench) {
    bounded(async {
        while bench.scheduler.limits()[0].breaker != BreakerState::HalfOpen {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_outage_opens_the_breaker_and_one_probe_closes_it() {
    let api = Api { is_down: AtomicBool::new(true), gate: Some(Semaphore::new(0)), ..Api::default() };
    let (api, base) = api.start().await;
    let breaker = BreakerOptions { cool_down: Duration::from_millis(500), ..BreakerOptions::default() };
    let bench = bench(&base, LimitOptions { breaker, ..LimitOptions::at_once(4) });

    let outcomes = bench.calls("get", 50).await;
    // The last failure that counts, and what ran beside it.
    let most = breaker.calls_min as usize - 1 + 4;
    assert!(api.seen() >= breaker.calls_min as usize && api.seen() <= most, "the server saw {}", api.seen());
    for outcome in &outcomes {
        assert_eq!(outcome.error_code(), Some(ErrorCode::CircuitOpen), "{outcome:?}");
        let wait = outcome.result.as_ref().unwrap_err().retry_after.unwrap();
        // No call is told to come back sooner than in a second.
        assert!(
            wait <= breaker.cool_down.max(Duration::from_secs(1)) && shown(outcome).contains("retry_after_s"),
            "{outcome:?}"
        );
    }

    half_open(&bench).await;
    api.is_down.store(false, Ordering::SeqCst);
    let before = api.seen();
    let probing = tokio::spawn({
        let bench = bench.clone();
        async move { bench.calls("get", 1).await }
    });
    bounded(async {
        while api.seen() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(words(&bench.calls("get", 5).await), ["circuit_open after 0"; 5], "the probe is under way");
    assert_eq!(api.seen(), before + 1);
    api.gate.as_ref().unwrap().add_permits(100);
    assert_eq!(words(&probing.await.unwrap()), ["ok after 1"]);
    assert_eq!(bench.scheduler.limits()[0].breaker, BreakerState::Closed);
    assert_eq!(words(&bench.calls("get", 20).await), vec!["ok after 1"; 20]);
}

#[tokio::test]
async fn a_probe_that_waits_for_the_end_of_a_pause_outlives_those_beside_it() {
    let api = Api { is_down: AtomicBool::new(true), down_for: Some("1"), ..Api::default() };
    let (api, base) = api.start().await;
    let breaker = BreakerOptions { calls_min: 4, cool_down: Duration::from_millis(50), ..BreakerOptions::default() };
    let retry = Backoff { attempts: 1, ..Backoff::default() };
    let bench = bench(&base, LimitOptions { breaker, retry, ..LimitOptions::at_once(4) });
    assert_eq!(words(&bench.calls("get", 4).await), ["upstream after 1"; 4]);
    half_open(&bench).await;
    assert!(bench.scheduler.limits()[0].paused_for > Duration::ZERO);
    api.is_down.store(false, Ordering::SeqCst);
    let mut words = words(&bench.calls("get", 3).await);
    words.sort();
    assert_eq!(words, ["circuit_open after 0", "circuit_open after 0", "ok after 1"]);
    assert_eq!(api.seen(), 5);
}
