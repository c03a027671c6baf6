//! How far attempts say they are, and who hears it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::event::{Event, Recorder, What};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::Progress;
use serde_json::json;
use tokio::time::Instant;

use crate::driver::{Does, all, ms, toolbox, words};

/// When which call was said to be how far.
#[derive(Default)]
struct Heard(Mutex<Vec<(Duration, String, f64)>>);

impl Recorder for Heard {
    fn record(&self, event: &Event) {
        if let What::CallProgress { call, progress } = &event.what {
            self.0.lock().unwrap().push((event.at, call.to_string(), progress.done));
        }
    }
}

/// Counts on every 40 ms for three seconds, whether anybody waits for it or not, and never answers.
fn counter() -> Does {
    Does::new("count", |attempt| {
        Box::pin(async move {
            tokio::spawn(async move {
                for count in 0..75_u32 {
                    attempt.progress(Progress { done: f64::from(count), total: None, message: None });
                    tokio::time::sleep(ms(40)).await;
                }
            });
            std::future::pending().await
        })
    })
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_ten_times_a_second_until_the_time_out_that_it_does_not_move() {
    let heard = Arc::new(Heard::default());
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let options = RunOptions { recorder: Some(Arc::clone(&heard) as _), ..RunOptions::new("run") };
    let mut run = scheduler.run(toolbox([counter(), Does::new("late", |_| Box::pin(std::future::pending()))]), options);
    let started = Instant::now();
    assert_eq!(words(&all(&mut run, [("count", json!({"key": "a"}))]).await), "outcome_unknown");
    assert_eq!(started.elapsed(), ms(1000));
    // What still counts is now an earlier batch's, and has the place that a call of this one has.
    all(&mut run, [("late", json!({"key": "b"}))]).await;
    let heard = heard.0.lock().unwrap();
    // Of every 40 ms, the first that is 100 ms after the one before.
    let expected: Vec<_> = (0..9_u32).map(|at| (ms(u64::from(at) * 120), "c0".to_owned(), f64::from(at * 3))).collect();
    assert_eq!(*heard, expected);
}
