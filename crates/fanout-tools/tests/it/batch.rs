//! Calls through the real scheduler, each test with a bound.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::event::{Recorder, outcome_word};
use fanout_core::limits::LimitOptions;
use fanout_core::outcome::{Content, Outcome};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::toolbox::Toolbox;
use fanout_tools::http::{HttpClient, HttpToolBuilder};
use serde_json::{Value, json};

/// No test waits longer for anything.
const BOUND: Duration = Duration::from_secs(60);

/// A scheduler, and the tools of one server.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) scheduler: Scheduler,
    toolbox: Arc<Toolbox>,
    input: Value,
}

impl Bench {
    /// These tools, whose server at `base` has these limits.
    pub(crate) fn new(base: &str, limits: LimitOptions, tools: impl IntoIterator<Item = HttpToolBuilder>) -> Self {
        let client = HttpClient::direct();
        let mut toolbox = Toolbox::new();
        for tool in tools {
            toolbox.add(tool.build(&client).unwrap()).unwrap();
        }
        let host = base.split_once("://").unwrap().1;
        let limits = [(format!("http/{host}").as_str().into(), limits)].into();
        let scheduler = Scheduler::new(SchedulerOptions { limits, ..SchedulerOptions::default() });
        Self { scheduler, toolbox: Arc::new(toolbox), input: json!({}) }
    }

    /// What every call is given; nothing unless said.
    pub(crate) fn with_input(self, input: Value) -> Self {
        Self { input, ..self }
    }

    /// One batch of so many calls of one tool.
    pub(crate) async fn calls(&self, tool: &str, count: u32) -> Vec<Arc<Outcome>> {
        self.recorded(tool, count, None).await
    }

    /// The same, told to somebody.
    pub(crate) async fn recorded(
        &self,
        tool: &str,
        count: u32,
        recorder: Option<Arc<dyn Recorder>>,
    ) -> Vec<Arc<Outcome>> {
        let options = RunOptions { recorder, ..RunOptions::new("r") };
        let mut run = self.scheduler.run(Arc::clone(&self.toolbox), options);
        let mut batch = run.batch();
        for index in 0..count {
            batch.call(Call::new(index, format!("c{index}").as_str(), tool, self.input.clone())).unwrap();
        }
        batch.commit();
        bounded(batch.finish()).await
    }
}

/// What a future comes to, within the bound.
pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.unwrap()
}

/// Such as `timeout after 2`: what a call came to, and how many attempts it took.
pub(crate) fn word(outcome: &Outcome) -> String {
    format!("{} after {}", outcome_word(outcome.error_code()), outcome.attempts)
}

/// The text that the model reads of an outcome.
pub(crate) fn shown(outcome: &Outcome) -> String {
    let text = |content: &Content| match content {
        Content::Text(text) => text.to_string(),
        Content::Image { .. } => "image".to_owned(),
    };
    outcome.shown.iter().map(text).collect::<Vec<_>>().join("\n")
}
