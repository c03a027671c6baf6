//! The scripted model that plays a case in either way, and the tools that it calls.
//!
//! From `main`: a case, its latencies and the way. To it: how long the run took, and what the model was shown. The model reads
//! the results of a layer and writes them into the inputs of the next; every tool refuses an input that is not exactly what the
//! case names, so neither way can be quicker by doing less.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fanout_agent::{Agent, AgentOptions, Conversation, RunSettings, Status};
use fanout_anthropic::{HttpModel, HttpOptions};
use fanout_benches::tools::{Api, DESCRIPTION};
use fanout_benches::{clients, mock};
use fanout_core::run::Scheduler;
use fanout_core::tool::Attempt;
use fanout_core::toolbox::Toolbox;
use fanout_script::{Block, Conversation as Heard, Pace, Server, ServerOptions, Turn};
use fanout_testing::recorded::Case;
use fanout_testing::written::{Named, Written, answer_of, plan, put};
use fanout_tools::function::Function;
use serde_json::{Map, Value, json};

/// What the scripted model's own usage counts as a token.
pub const BYTES_PER_TOKEN: usize = 4;

/// What an id begins with; the label of the call follows.
const ID: &str = "toolu_";

/// How a case is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A turn for each layer of calls.
    Layers,
    /// One plan.
    Plan(Shown),
}

/// What a plan shows the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Everything.
    All,
    /// What the answer of the case is made of.
    Answer,
}

/// A case with everything that its calls must be given and give.
#[derive(Debug)]
pub struct Prepared {
    /// The case.
    pub case: Case,
    written: Vec<Written>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    layers: Vec<usize>,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Played {
    /// From the prompt to the last word.
    pub took: Duration,
    /// The text of all results in the last request.
    pub results_bytes: usize,
    /// The tools in it.
    pub tools_bytes: usize,
}

/// What the model was shown in the last request of each run, by its prompt.
type Ledger = Arc<Mutex<HashMap<String, (usize, usize)>>>;

/// The cases that are on, by prompt.
type Cases = Arc<Mutex<HashMap<String, (Arc<Prepared>, Way)>>>;

/// One model and one API.
pub struct Stage {
    server: Server,
    model: Arc<HttpModel>,
    api: Arc<Api>,
    scheduler: Scheduler,
    cases: Cases,
    ledger: Ledger,
    runs: Mutex<u64>,
}

/// In which layer each call of a case is, from 0.
pub fn layers(case: &Case) -> Vec<usize> {
    let mut layers: Vec<usize> = Vec::with_capacity(case.calls.len());
    for call in &case.calls {
        layers.push(call.depends_on.iter().map(|on| layers[*on] + 1).max().unwrap_or_default());
    }
    layers
}

impl Prepared {
    /// Makes every output of a case, about `bytes` long: what is named of it, and records like those of any API.
    ///
    /// # Errors
    /// If a call names what is not there.
    pub fn new(case: Case, bytes: usize) -> anyhow::Result<Self> {
        let written: Vec<Written> = (0..case.calls.len()).map(|at| Written::input(&case, at)).collect();
        let answer = answer_of(&case);
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (at, one) in written.iter().enumerate() {
            ensure!(one.named().iter().all(|named| named.call < at), "{}: a name of what comes later", case.id);
            inputs.push(one.filled(&outputs));
            let named = written.iter().flat_map(Written::named).chain(&answer).filter(|named| named.call == at);
            outputs.push(output(&case.calls[at].name, at, named, bytes));
        }
        let layers = layers(&case);
        Ok(Self { case, written, inputs, outputs, layers })
    }

    /// What both ways take if nothing takes time but the model and the tools: by layers, and as a plan.
    pub fn least(&self, takes: &[u64], think: Duration) -> (Duration, Duration) {
        let last = self.layers.iter().max().copied().unwrap_or_default();
        let slowest = |layer: usize| {
            let calls = self.layers.iter().zip(takes).filter(|(of, _)| **of == layer);
            Duration::from_millis(calls.map(|(_, ms)| *ms).max().unwrap_or_default())
        };
        let by_layers: Duration = (0..=last).map(|layer| think + slowest(layer)).sum();
        let needs: Vec<Vec<usize>> = self.case.calls.iter().map(|call| call.depends_on.clone()).collect();
        let path = Duration::from_millis(fanout_testing::recorded::critical_path(&needs, takes));
        (by_layers + think, think * 2 + path)
    }

    /// What the model says next.
    fn turn(&self, way: Way, heard: &Heard) -> Turn {
        let turn = heard.assistant_turns();
        let blocks = match way {
            Way::Plan(_) if turn > 0 => Vec::new(),
            Way::Plan(shown) => {
                let names: Option<Vec<String>> = (shown == Shown::Answer).then(|| self.shown());
                let input = plan(&self.case, names.as_deref()).to_string();
                vec![Block::tool_use("plan", input).with_id(format!("{ID}plan"))]
            }
            Way::Layers => {
                let outputs = self.heard(heard);
                let calls = (0..self.case.calls.len()).filter(|at| self.layers[*at] == turn);
                let block = |at: usize| {
                    let call = &self.case.calls[at];
                    let input = self.written[at].filled(&outputs).to_string();
                    Block::tool_use(&call.name, input).with_id(format!("{ID}{}", call.id))
                };
                calls.map(block).collect()
            }
        };
        if blocks.is_empty() { Turn::text("done") } else { Turn::new(blocks) }
    }

    fn shown(&self) -> Vec<String> {
        answer_of(&self.case).iter().map(|named| named.reference(&self.case)).collect()
    }

    /// The outputs that are in the history; the others are `null`.
    fn heard(&self, heard: &Heard) -> Vec<Value> {
        let mut outputs = vec![Value::Null; self.case.calls.len()];
        for part in heard.messages().iter().flat_map(|message| &message.parts) {
            let label = part.tool_use_id.as_deref().and_then(|id| id.strip_prefix(ID));
            let at = label.and_then(|label| self.case.calls.iter().position(|call| call.id == label));
            if let (Some(at), Ok(output)) = (at, serde_json::from_str(&part.text)) {
                outputs[at] = output;
            }
        }
        outputs
    }

    /// The tools of the case; each call takes as long as is said for it.
    fn toolbox(self: &Arc<Self>, api: &Arc<Api>, takes: &Arc<[u64]>, way: Way) -> anyhow::Result<Toolbox> {
        let mut names: Vec<&str> = self.case.calls.iter().map(|call| call.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut toolbox = Toolbox::new();
        for name in names {
            let (prepared, api, takes) = (Arc::clone(self), Arc::clone(api), Arc::clone(takes));
            let call = move |input: Map<String, Value>, attempt: Attempt| {
                let (prepared, api, takes) = (Arc::clone(&prepared), Arc::clone(&api), Arc::clone(&takes));
                async move { prepared.call(Value::Object(input), &attempt, &api, &takes).await }
            };
            let function = Function::new(name, DESCRIPTION, call).input_schema(json!({ "type": "object" }));
            toolbox.add(function.reads([]).writes([]).build()?)?;
        }
        if way != Way::Layers {
            toolbox.add_plan(RESULT_MAX)?;
        }
        Ok(toolbox)
    }

    async fn call(&self, input: Value, attempt: &Attempt, api: &Api, takes: &[u64]) -> Result<Value, String> {
        let id = attempt.call.as_str();
        let label = id.rsplit_once('/').map_or_else(|| id.strip_prefix(ID), |(_, label)| Some(label));
        let at = self.case.calls.iter().position(|call| Some(call.id.as_str()) == label);
        let at = at.ok_or_else(|| format!("no call `{id}`"))?;
        if input != self.inputs[at] {
            return Err(format!("`{id}` was given {input}, not {}", self.inputs[at]));
        }
        api.call("sleep_tool", &json!({ "ms": takes[at] })).await?;
        Ok(self.outputs[at].clone())
    }
}

/// All that a plan of these cases shows fits.
const RESULT_MAX: usize = 1024 * 1024;

impl Stage {
    /// Starts a model that takes so long for a turn, and an API.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(think: Duration) -> anyhow::Result<Self> {
        let listener = mock::listen().await?;
        let base = format!("http://{}", listener.local_addr()?);
        tokio::spawn(mock::serve(listener));
        let (cases, ledger) = (Cases::default(), Ledger::default());
        let (on, told) = (Arc::clone(&cases), Arc::clone(&ledger));
        let respond = move |heard: &Heard| {
            let prompt: String = heard.first_user_texts().collect();
            let case = on.lock().unwrap_or_else(PoisonError::into_inner).get(&prompt).cloned();
            let Some((prepared, way)) = case else { return Turn::text("which case?") };
            let parts = || heard.messages().iter().flat_map(|message| &message.parts);
            let results = || parts().filter(|part| part.kind == "tool_result");
            // Of what a plan shows, failures are always a part.
            if let Some(failed) = results().find(|part| part.is_error || part.text.contains(r#""error":{"#)) {
                return Turn::text(&*failed.text);
            }
            let results = results().map(|part| part.text.len()).sum();
            let tools = heard.tools().iter().map(|tool| tool.to_string().len()).sum();
            told.lock().unwrap_or_else(PoisonError::into_inner).insert(prompt, (results, tools));
            prepared.turn(way, heard).pace(Pace::new(think, 0.0))
        };
        let server = Server::start(ServerOptions::responder(respond).keep_requests(false))?;
        let model = HttpModel::new(HttpOptions { base_url: server.base_url(), ..HttpOptions::default() })?;
        let api = Api { base, log: false, http: clients::tools()? };
        Ok(Self {
            server,
            model: Arc::new(model),
            api: Arc::new(api),
            scheduler: Scheduler::default(),
            cases,
            ledger,
            runs: Mutex::default(),
        })
    }

    /// One run of a case.
    ///
    /// # Errors
    /// When it does not end as it must: all calls made, none of them failed, in as many turns as the way has.
    pub async fn play(&self, prepared: &Arc<Prepared>, way: Way, takes: &[u64]) -> anyhow::Result<Played> {
        let prompt = {
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            *runs += 1;
            format!("{} {runs}", prepared.case.id)
        };
        let toolbox = prepared.toolbox(&self.api, &takes.into(), way)?;
        let model = Arc::clone(&self.model);
        let agent = Agent::new(model, self.scheduler.clone(), toolbox, AgentOptions::new("claude-sonnet-4-5"))?;
        let on = (Arc::clone(prepared), way);
        self.cases.lock().unwrap_or_else(PoisonError::into_inner).insert(prompt.clone(), on);
        let started = Instant::now();
        let report = agent.run(Conversation::from_prompt(&prompt), RunSettings::default()).await;
        let took = started.elapsed();
        self.cases.lock().unwrap_or_else(PoisonError::into_inner).remove(&prompt);
        let shown = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).remove(&prompt);
        let (results_bytes, tools_bytes) = shown.context("the model was asked")?;
        let last = prepared.layers.iter().max().copied().unwrap_or_default();
        let turns = if way == Way::Layers { last + 2 } else { 2 };
        let id = &prepared.case.id;
        ensure!(report.status == Status::Done && report.answer == "done", "{id}, {way:?}: {report:?}");
        ensure!(usize::try_from(report.turns)? == turns, "{id}, {way:?}: {} turns, not {turns}", report.turns);
        Ok(Played { took, results_bytes, tools_bytes })
    }

    /// Stops the model, which must have had nothing to refuse.
    ///
    /// # Errors
    /// When it had.
    pub async fn end(self) -> anyhow::Result<()> {
        let refused = self.server.violations();
        ensure!(refused.is_empty(), "the model refused requests: {refused:?}");
        self.server.stop().await;
        Ok(())
    }
}

/// What is named of an output, and records until it is as long as it should be.
fn output<'n>(tool: &str, at: usize, named: impl Iterator<Item = &'n Named>, bytes: usize) -> Value {
    let mut output = json!({});
    for named in named.filter(|named| !named.path.is_empty()) {
        put(&mut output, &named.path, &Value::Null, json!(format!("{tool} {at}")));
    }
    let mut records: Vec<Value> = Vec::new();
    while output.to_string().len() + records.iter().map(|record| record.to_string().len() + 1).sum::<usize>() < bytes {
        let number = records.len();
        records.push(json!({
            "id": format!("{tool}-{at}-{number}"), "rank": number, "name": format!("Entry {number} of {tool}"),
            "summary": "What a service says of one entry of a list, in a sentence or two that somebody wrote once.",
            "updated": "2026-01-01T00:00:00Z", "active": true,
        }));
    }
    output["records"] = Value::Array(records);
    output
}
