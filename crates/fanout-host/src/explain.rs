//! What would run when: the graph of a batch, without running it.
//!
//! From calls and a toolbox. To `fanout explain`, as text, JSON or a Mermaid diagram, and to the gateway's route.
//! The calls go into a batch that nobody lets start, so what is shown is what would happen.
//!
//! Of a plan its calls are shown. A `for_each` is one of them, however many elements it has: most have elements that nobody
//! knows before something ran.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use fanout_core::call::{Call, CallId, Input};
use fanout_core::effects::{Effects, Mode, Origin};
use fanout_core::event::{Wait, Why};
use fanout_core::outcome::CallError;
use fanout_core::plan::{Each, Plan};
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
    pub waits: Vec<Wait>,
    /// It is the `for_each` of a plan, and stands for a call per element.
    pub each: Option<Elements>,
    /// Whether a person has to agree before it runs; `None`: that is not known before something ran.
    pub asks: Option<bool>,
    /// The earliest round in which it can run, counted from 1.
    pub wave: usize,
    /// Why it cannot run at all.
    pub error: Option<CallError>,
}

/// How many elements a `for_each` has, if that is known before anything has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements(pub Option<usize>);

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
        let mut names: Vec<String> = Vec::with_capacity(calls.len());
        let mut each = Eachs::default();
        for call in calls {
            names.push(call.tool.to_string());
            each.read(&call, batch.toolbox());
            batch.call(call)?;
        }
        let mut explained = nodes(batch.arrived(), names, &each);
        let places: Places = explained.iter().enumerate().map(|(at, call)| (call.id.as_str().into(), at)).collect();
        for at in 0..explained.len() {
            let before = explained[at].waits.iter().filter_map(|wait| places.get(&wait.on));
            explained[at].wave = 1 + before.map(|on| explained[*on].wave).max().unwrap_or(0);
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
            let times = match call.each {
                None => String::new(),
                Some(Elements(None)) => " × ?".to_owned(),
                Some(Elements(Some(count))) => format!(" × {count}"),
            };
            let _ = writeln!(text, "  c{at}[\"{}{times}<br/>{}\"]", quoted(&call.tool), quoted(&call.id));
        }
        let places = self.places();
        for (at, call) in self.calls.iter().enumerate() {
            for wait in &call.waits {
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
        let _ = writeln!(text, "{calls} in {waves}; critical path: {}", one_line(&self.path()));
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

/// What the plans say of their `for_each`, by the ids of these.
#[derive(Default)]
struct Eachs(HashMap<CallId, Said>);

/// What is known of a `for_each` before it is opened.
struct Said {
    elements: Option<usize>,
    /// Its calls wait for these outputs, and it for its elements.
    uses: Vec<CallId>,
}

impl Eachs {
    /// Takes note of a call, if it is a plan that can be read.
    fn read(&mut self, call: &Call, toolbox: &Toolbox) {
        let is_plan = toolbox.get(&call.tool).is_some_and(|tool| tool.is_plan());
        let Input::Json(input) = &call.input else { return };
        let Some(plan) = is_plan.then(|| Plan::parse(input, toolbox, &|_| true).ok()).flatten() else { return };
        let ids: Vec<CallId> =
            plan.members.iter().map(|member| format!("{}/{}", call.id, member.label).into()).collect();
        for (at, member) in plan.members.iter().enumerate() {
            let (elements, items) = match &member.each {
                None => continue,
                Some(Each::In { uses, .. }) => {
                    (member.known_items().map(Vec::len), uses.iter().map(|one| one.on).collect())
                }
                Some(Each::With(on)) => (self.0.get(&ids[*on]).and_then(|said| said.elements), vec![*on]),
            };
            let uses: BTreeSet<usize> = items.into_iter().chain(member.uses.iter().map(|one| one.on)).collect();
            let uses = uses.into_iter().map(|on| ids[on].clone()).collect();
            self.0.insert(ids[at].clone(), Said { elements, uses });
        }
    }
}

/// The calls to show. What stands for others is left out, but for a `for_each`, which is shown in the place of its elements.
/// `names` are the tools that were asked for, call by call.
fn nodes<'b>(arrived: impl Iterator<Item = Arrived<'b>>, names: Vec<String>, each: &Eachs) -> Vec<Explained> {
    let (mut explained, mut names) = (Vec::with_capacity(names.len()), names.into_iter());
    let mut places = Places::with_capacity(names.len());
    // Where the elements of a `for_each` are shown.
    let mut shown_as: HashMap<CallId, CallId> = HashMap::new();
    for arrived in arrived {
        let asked = if arrived.part_of.is_none() { names.next() } else { None };
        if let Some(node) = arrived.part_of.and_then(|part_of| places.get(part_of)) {
            shown_as.insert(arrived.call.clone(), arrived.part_of.unwrap_or(arrived.call).clone());
            let node: &mut Explained = &mut explained[*node];
            node.take_element(&arrived);
        } else if arrived.part_of.is_some() || arrived.bundle.is_none() {
            let tool = arrived.tool.map(|tool| tool.spec.name.to_string());
            places.insert(arrived.call.clone(), explained.len());
            explained.push(Explained::new(&arrived, asked.or(tool).unwrap_or_default(), each.0.get(arrived.call)));
        }
    }
    for call in &mut explained {
        call.see(&shown_as);
    }
    explained
}

impl Explained {
    fn new(arrived: &Arrived<'_>, tool: String, said: Option<&Said>) -> Self {
        let is_open = matches!(arrived.bundle, Some(Some(_)));
        let uses = said.into_iter().flat_map(|said| &said.uses);
        let reference = |on: &CallId| Wait { on: on.clone(), why: Why::Reference, key: None, undeclared: false };
        let mut waits: Vec<Wait> = uses.map(reference).collect();
        // With its elements known, each of them says what it conflicts with.
        waits.extend(arrived.waits.iter().filter(|wait| !is_open || wait.why == Why::Order).cloned());
        Self {
            id: arrived.call.to_string(),
            tool,
            reads: keys(arrived.effects, Mode::Read),
            writes: keys(arrived.effects, Mode::Write),
            waits,
            each: said.map(|said| Elements(said.elements)),
            asks: if is_open { Some(false) } else { arrived.asks },
            wave: 1,
            error: arrived.outcome.and_then(|outcome| outcome.result.as_ref().err().cloned()),
        }
    }

    /// One call of a `for_each` that is known beforehand.
    fn take_element(&mut self, element: &Arrived<'_>) {
        for (mode, all) in [(Mode::Read, &mut self.reads), (Mode::Write, &mut self.writes)] {
            for key in keys(element.effects, mode) {
                if !all.contains(&key) {
                    all.push(key);
                }
            }
        }
        self.asks = match (self.asks, element.asks) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (None, _) | (_, None) => None,
            (Some(false), Some(false)) => Some(false),
        };
        self.waits.extend(element.waits.iter().filter(|wait| wait.why != Why::Reference).cloned());
    }

    /// Waits for what is shown: for a `for_each` where it waits for one of its elements, and for each but once.
    fn see(&mut self, shown_as: &HashMap<CallId, CallId>) {
        let mut seen = HashSet::new();
        for wait in &mut self.waits {
            if let Some(on) = shown_as.get(&wait.on) {
                wait.on = on.clone();
            }
        }
        let id = CallId::from(self.id.as_str());
        self.waits.retain(|wait| wait.on != id && seen.insert((wait.on.clone(), wait.why, wait.key.clone())));
    }

    fn to_json(&self) -> Value {
        let waits: Vec<Value> = self.waits.iter().map(wait_json).collect();
        let mut call = json!({
            "id": self.id, "tool": self.tool, "reads": self.reads, "writes": self.writes, "waits": waits, "wave": self.wave,
        });
        if let Some(Elements(elements)) = self.each {
            (call["for_each"], call["elements"]) = (json!(true), json!(elements));
        }
        if let Some(approval) = self.approval() {
            call["approval"] = json!(approval);
        }
        if let Some(error) = &self.error {
            call["error"] = json!({ "code": error.code.as_str(), "message": error.message });
        }
        call
    }

    /// Whether a person is asked, in a word: `needed` or `perhaps`.
    fn approval(&self) -> Option<&'static str> {
        match (&self.error, self.asks) {
            (Some(_), _) | (None, Some(false)) => None,
            (None, Some(true)) => Some("needed"),
            (None, None) => Some("perhaps"),
        }
    }

    fn print(&self, text: &mut String) {
        let list = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        let times = match self.each {
            None => String::new(),
            Some(Elements(None)) => ", once for each element".to_owned(),
            Some(Elements(Some(count))) => format!(", for each of {}", counted(count, "element")),
        };
        let _ = writeln!(text, "  {} ({}){times}", one_line(&self.tool), one_line(&self.id));
        match &self.error {
            Some(error) => {
                let _ = writeln!(text, "    will not run: {}", one_line(&error.to_string()));
            }
            None => {
                let _ = writeln!(text, "    reads {}; writes {}", list(&self.reads), list(&self.writes));
            }
        }
        match self.approval() {
            Some("needed") => text.push_str("    a person has to approve it\n"),
            Some(_) => text.push_str("    a person may have to approve it: its input is not known yet\n"),
            None => {}
        }
        for wait in &self.waits {
            let key = wait.key.as_ref().map(|key| format!(" on {key}")).unwrap_or_default();
            let want = if wait.undeclared { ", for want of a declaration" } else { "" };
            let on = one_line(wait.on.as_str());
            let _ = writeln!(text, "    waits for {on}: {}{key}{want}", wait.why.as_str());
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

/// A model can ask for a tool of any name; what it writes must not look like a line of ours.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn quoted(text: &str) -> String {
    one_line(text).replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}
