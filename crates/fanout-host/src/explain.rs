//! What would run when: the graph of a batch, without running it.
//!
//! From calls and a toolbox. To `fanout explain`, as text, JSON or a Mermaid diagram, and to the gateway's route.
//! The calls go into a batch that nobody lets start, so what is shown is what would happen.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use fanout_core::call::{Call, CallId};
use fanout_core::effects::{Effects, Mode, Origin};
use fanout_core::event::Wait;
use fanout_core::outcome::CallError;
use fanout_core::run::{Arrived, BatchError, RunOptions, Scheduler, SchedulerOptions};
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};

use crate::advice::advice;

/// A critical path of more calls than this is not printed whole as text: its line would fill a screen. JSON has it all.
const PATH_MAX: usize = 20;

/// Where each call stands. Looked up rather than searched for: a batch may have tens of thousands.
type Places = HashMap<CallId, usize>;

/// The graph of one batch.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The calls, in program order.
    pub calls: Vec<Explained>,
    /// The ids of the calls on the longest path, first to last; each call counts 1, ties go to the first.
    pub critical_path: Vec<String>,
    /// How many calls stand on it.
    pub waves: usize,
}

/// One call in the graph.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Its id.
    pub id: String,
    /// The tool that it asks for.
    pub tool: String,
    /// The keys that it reads.
    pub reads: Vec<String>,
    /// The keys that it writes.
    pub writes: Vec<String>,
    /// What it waits for.
    pub waits: Arc<[Wait]>,
    /// The earliest round in which it can run, counted from 1.
    pub wave: usize,
    /// Why it cannot run at all.
    pub error: Option<CallError>,
}

impl Explanation {
    /// Finds the graph of these calls.
    ///
    /// # Errors
    /// As a batch would refuse them: an id twice.
    pub fn of(calls: Vec<Call>, toolbox: Arc<Toolbox>) -> Result<Self, BatchError> {
        let mut options = RunOptions::new("explain");
        options.early_start = false;
        let mut run = Scheduler::new(SchedulerOptions::default()).run(toolbox, options);
        let mut batch = run.batch();
        let tools: Vec<String> = calls.iter().map(|call| call.tool.to_string()).collect();
        for call in calls {
            batch.call(call)?;
        }
        let mut explained: Vec<Explained> = Vec::with_capacity(tools.len());
        let mut places = Places::with_capacity(tools.len());
        for (arrived, tool) in batch.arrived().zip(tools) {
            let before = arrived.waits.iter().filter_map(|wait| places.get(&wait.on));
            let wave = 1 + before.map(|at| explained[*at].wave).max().unwrap_or(0);
            places.insert(arrived.call.clone(), explained.len());
            explained.push(Explained::new(&arrived, tool, wave));
        }
        let waves = explained.iter().map(|call| call.wave).max().unwrap_or(0);
        Ok(Self { critical_path: critical_path(&explained, &places), calls: explained, waves })
    }

    /// The lines that would take away waits which are there only for want of a declaration.
    pub fn advice(&self, toolbox: &Toolbox) -> Vec<String> {
        let places = self.places();
        let mut tools: BTreeSet<&str> = BTreeSet::new();
        for call in &self.calls {
            for wait in call.waits.iter().filter(|wait| wait.undeclared) {
                let on = places.get(&wait.on).map(|at| &self.calls[*at]);
                tools.extend([Some(call), on].into_iter().flatten().map(|call| call.tool.as_str()));
            }
        }
        let specs = tools.into_iter().filter_map(|tool| toolbox.get(&tool.into())).map(|tool| &tool.spec);
        specs.filter(|spec| !spec.effects.is_declared()).map(advice).collect()
    }

    /// The graph as JSON: the shape is part of the command's contract.
    pub fn to_json(&self) -> Value {
        let calls: Vec<Value> = self.calls.iter().map(Explained::to_json).collect();
        json!({ "calls": calls, "critical_path": self.critical_path, "waves": self.waves })
    }

    /// The graph as a Mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (at, call) in self.calls.iter().enumerate() {
            let _ = writeln!(text, "  c{at}[\"{}<br/>{}\"]", quoted(&call.tool), quoted(&call.id));
        }
        let places = self.places();
        for (at, call) in self.calls.iter().enumerate() {
            for wait in call.waits.iter() {
                let Some(on) = places.get(&wait.on) else { continue };
                let label = match &wait.key {
                    Some(key) => format!("{}: {key}", wait.why.as_str()),
                    None => wait.why.as_str().to_owned(),
                };
                let _ = writeln!(text, "  c{on} -->|\"{}\"| c{at}", quoted(&label));
            }
        }
        text
    }

    /// The graph as text, wave by wave.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut calls: Vec<&Explained> = self.calls.iter().collect();
        calls.sort_by_key(|call| call.wave);
        for wave in calls.chunk_by(|a, b| a.wave == b.wave) {
            let _ = writeln!(text, "wave {}", wave[0].wave);
            for call in wave {
                call.print(&mut text);
            }
        }
        let (calls, waves) = (counted(self.calls.len(), "call"), counted(self.waves, "wave"));
        let _ = writeln!(text, "{calls} in {waves}; critical path: {}", self.path());
        text
    }

    /// The critical path on one line; of a long one the two ends.
    fn path(&self) -> String {
        let path = &self.critical_path;
        if path.len() <= PATH_MAX {
            return path.join(" → ");
        }
        let (first, last) = (&path[..PATH_MAX / 2], &path[path.len() - PATH_MAX / 2..]);
        format!("{} → … {} more … → {}", first.join(" → "), path.len() - first.len() - last.len(), last.join(" → "))
    }

    fn places(&self) -> Places {
        self.calls.iter().enumerate().map(|(at, call)| (call.id.as_str().into(), at)).collect()
    }
}

impl Explained {
    fn new(arrived: &Arrived<'_>, tool: String, wave: usize) -> Self {
        Self {
            id: arrived.call.to_string(),
            tool,
            reads: keys(arrived.effects, Mode::Read),
            writes: keys(arrived.effects, Mode::Write),
            waits: Arc::clone(&arrived.waits),
            wave,
            error: arrived.outcome.and_then(|outcome| outcome.result.as_ref().err().cloned()),
        }
    }

    fn to_json(&self) -> Value {
        let waits: Vec<Value> = self.waits.iter().map(wait_json).collect();
        let mut call = json!({
            "id": self.id, "tool": self.tool, "reads": self.reads, "writes": self.writes, "waits": waits, "wave": self.wave,
        });
        if let Some(error) = &self.error {
            call["error"] = json!({ "code": error.code.as_str(), "message": error.message });
        }
        call
    }

    fn print(&self, text: &mut String) {
        let list = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        let _ = writeln!(text, "  {} ({})", self.tool, self.id);
        match &self.error {
            Some(error) => {
                let _ = writeln!(text, "    will not run: {error}");
            }
            None => {
                let _ = writeln!(text, "    reads {}; writes {}", list(&self.reads), list(&self.writes));
            }
        }
        for wait in self.waits.iter() {
            let key = wait.key.as_ref().map(|key| format!(" on {key}")).unwrap_or_default();
            let want = if wait.undeclared { ", for want of a declaration" } else { "" };
            let _ = writeln!(text, "    waits for {}: {}{key}{want}", wait.on, wait.why.as_str());
        }
    }
}

/// A wait as every surface prints it.
pub fn wait_json(wait: &Wait) -> Value {
    let mut json = json!({ "on": wait.on.as_str(), "why": wait.why.as_str() });
    if let Some(key) = &wait.key {
        json["key"] = json!(key.as_str());
    }
    json
}

/// The keys that decide, for one mode: the declared ones, or without a declaration all there are.
fn keys(effects: &Effects, mode: Mode) -> Vec<String> {
    let counts = |origin: Origin| !effects.declared || origin == Origin::Declared;
    let keys = effects.accesses.iter().filter(|access| access.mode == mode && counts(access.origin));
    keys.map(|access| access.key.to_string()).collect()
}

fn critical_path(calls: &[Explained], places: &Places) -> Vec<String> {
    let last = calls.iter().map(|call| call.wave).max().unwrap_or(0);
    let mut path = Vec::new();
    let mut next = calls.iter().position(|call| call.wave == last);
    while let Some(at) = next {
        path.push(calls[at].id.clone());
        let before = calls[at].waits.iter().filter_map(|wait| places.get(&wait.on)).copied();
        next = before.filter(|on| calls[*on].wave + 1 == calls[at].wave).min();
    }
    path.reverse();
    path
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn quoted(text: &str) -> String {
    let line = text.replace(char::is_control, " ");
    line.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}
