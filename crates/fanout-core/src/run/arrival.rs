//! How a call becomes one of a batch: what it must wait for, how it is treated, and what is told of it.
//!
//! From [`Batch::call`], and from plans for their parts. To the schedule; one that cannot run is answered here.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::batch::{Batch, BatchError};
use super::item::{Item, Name, Named, New, Role};
use super::past;
use crate::call::{Call, CallId, Input, Need, Position, ToolName};
use crate::effects::{Effects, Source};
use crate::event::{Wait, What, Why};
use crate::graph::{Edge, Ix, Of};
use crate::outcome::{CallError, ErrorCode, Output};
use crate::schedule::Treatment;
use crate::toolbox::Registered;

/// At most so many tools are named to a model that asked for another.
const NAMED_MAX: usize = 20;

/// Earlier calls by what later ones may be declared to follow.
#[derive(Debug, Default)]
pub(super) struct Followed {
    tools: FxHashMap<ToolName, Vec<Ix>>,
    sources: FxHashMap<Source, Ix>,
}

impl Followed {
    pub(super) fn follow(&mut self, tool: Option<&Registered>, ix: Ix) {
        let Some(spec) = tool.map(|tool| &tool.spec) else { return };
        self.tools.entry(spec.name.clone()).or_default().push(ix);
        self.sources.insert(spec.source.clone(), ix);
    }
}

impl Batch<'_> {
    /// What a call of a batch that broke off came to, as far as that is settled.
    pub(super) fn known(&self, call: &CallId, tool: Option<&Registered>) -> Option<Result<Arc<Output>, CallError>> {
        if let Some(outcome) = self.past.outcome(call) {
            return Some(outcome.result.clone());
        }
        let (_, is_running) = self.past.attempts(call)?;
        // Whether a plan may is known once its calls are.
        let once = self.run.options.once.as_deref();
        let may_run = tool.is_some_and(|tool| tool.is_plan || tool.resumable(once));
        let name = tool.map_or_else(|| ToolName::from("a tool that is gone"), |tool| tool.spec.name.clone());
        (is_running && !may_run).then(|| Err(past::unknown(&name)))
    }

    /// Takes a call that has its outcome.
    pub(super) fn recall(
        &mut self,
        call: &Call,
        tool: Option<Arc<Registered>>,
        result: Result<Arc<Output>, CallError>,
    ) {
        let ix = self.push_bare(call.id.clone(), tool);
        self.items[ix].attempts = self.past.attempts(&call.id).map_or(0, |(attempts, _)| attempts);
        self.schedule.recalled(call.id.clone(), call.tool.clone(), result);
        self.act();
    }

    /// The edges that a call names itself or that declarations make, with what its labels stand for; or why it cannot be
    /// taken.
    pub(super) fn links(&self, call: &Call) -> Result<(Vec<Edge>, Vec<Name>), BatchError> {
        if self.by_id.contains_key(&call.id) {
            return Err(BatchError::Twice(call.id.clone()));
        }
        let (mut edges, mut names) = (Vec::new(), Vec::new());
        for link in &call.links {
            let no_such = || BatchError::NoSuchCall { call: call.id.clone(), on: link.on.clone() };
            let on = *self.by_id.get(&link.on).ok_or_else(no_such)?;
            edges.push(match &link.need {
                Need::Output { label } => {
                    names.push(Name { label: label.as_str().into(), named: Named::Call(on) });
                    Edge::named(on, Why::Reference, true)
                }
                Need::Success => Edge::named(on, Why::Order, true),
                Need::Order => Edge::named(on, Why::Order, false),
            });
        }
        if let Some(tool) = self.run.toolbox.get(&call.tool) {
            edges.extend(self.declared_edges(tool));
        }
        Ok((edges, names))
    }

    /// What a call is answered whose tool a person has taken out of use.
    pub(super) fn out_of_use(&self, tool: &ToolName) -> Option<CallError> {
        self.run.shared.disabled(tool).map(|told| CallError::new(ErrorCode::NotPermitted, &*told))
    }

    pub(super) fn input_of(&self, tool: &Registered, call: &Call, names: &[Name]) -> Result<Arc<Value>, CallError> {
        match &call.input {
            Input::Invalid(raw) => Err(CallError::invalid_json(raw)),
            Input::Json(input) => {
                if names.is_empty() {
                    tool.schema.check(call.tool.as_str(), input)?;
                }
                Ok(Arc::new(input.clone()))
            }
        }
    }

    /// The edges that declarations make: `after` and `stop_on_failure`.
    pub(super) fn declared_edges(&self, tool: &Registered) -> Vec<Edge> {
        if !self.run.toolbox.ordered {
            return Vec::new();
        }
        let earlier = tool.spec.policy.after.iter().filter_map(|tool| self.followed.tools.get(tool)).flatten();
        let mut edges: Vec<Edge> = earlier.map(|on| Edge::named(*on, Why::Order, false)).collect();
        let last = self.followed.sources.get(&tool.spec.source).filter(|_| self.stops_on_failure(tool));
        edges.extend(last.map(|on| Edge::named(*on, Why::Order, true)));
        edges
    }

    pub(super) fn stops_on_failure(&self, tool: &Registered) -> bool {
        tool.spec.policy.stop_on_failure && self.run.options.stop_on_failure
    }

    /// Takes a call that may run, or a `for_each`; [`Batch::act`] comes after. In messages it is `shown`.
    pub(super) fn accept(&mut self, new: New, shown: CallId, position: Position, edges: Vec<Edge>) -> Ix {
        let settled = new.names.is_empty() && !matches!(new.role, Role::Each(_));
        let effects = new.tool.effects_of(&new.input, &self.run.options.paths);
        let mut treatment = self.treatment(&new.tool, shown, &effects);
        treatment.asks = settled && new.tool.spec.policy.approval.asks(&new.input);
        let bundle = new.bundle;
        let ix = self.push(new);
        self.items[ix].limit = Arc::clone(&treatment.limit);
        let now = self.run.elapsed();
        self.schedule.arrive_in(bundle, treatment, effects, settled, edges, now);
        self.tell_arrival(ix, position);
        ix
    }

    pub(super) fn treatment(&mut self, tool: &Arc<Registered>, call: CallId, effects: &Effects) -> Treatment {
        Treatment {
            call,
            terms: Arc::clone(&tool.terms),
            limit: self.run.limit_of(tool),
            early: self.run.options.early_start && tool.terms.repeatable && effects.only_reads(),
            resumable: tool.resumable(self.run.options.once.as_deref()),
            in_doubt: false,
            asks: false,
            expected: tool.latency.expected(),
        }
    }

    pub(super) fn refused(&mut self, call: &Call, tool: Option<Arc<Registered>>, error: CallError) {
        self.push_bare(call.id.clone(), tool);
        if !self.past.contains(&call.id) {
            self.run.record(|| What::CallArrived {
                call: call.id.clone(),
                tool: call.tool.clone(),
                part_of: None,
                position: call.position.clone(),
                declared: true,
                input: match &call.input {
                    Input::Json(input) => Arc::new(input.clone()),
                    Input::Invalid(raw) => Arc::new(Value::from(raw.as_str())),
                },
                waits: Arc::from([]),
            });
        }
        self.schedule.refuse(None, call.id.clone(), call.tool.clone(), error);
        self.act();
    }

    pub(super) fn push(&mut self, new: New) -> Ix {
        let ix = self.push_bare(new.call, Some(new.tool));
        let item = &mut self.items[ix];
        (item.input, item.names, item.bundle, item.role) = (new.input, new.names, new.bundle, new.role);
        ix
    }

    pub(super) fn push_bare(&mut self, call: CallId, tool: Option<Arc<Registered>>) -> Ix {
        let ix = self.items.len();
        self.by_id.insert(call.clone(), ix);
        if let Some(tool) = &tool {
            self.follow(tool, ix);
        }
        self.items.push(Item {
            call,
            tool,
            input: Arc::default(),
            names: Vec::new(),
            bundle: None,
            role: Role::Call,
            value: OnceCell::new(),
            limit: Arc::clone(&self.run.unlimited),
            lock: None,
            asking: None,
            words: Vec::new(),
            running: None,
            started_at: Duration::ZERO,
            outcome: None,
            attempts: 0,
        });
        ix
    }

    pub(super) fn tell_arrival(&self, ix: Ix, position: Position) {
        if self.past.contains(&self.items[ix].call) {
            return;
        }
        let (item, declared) = (&self.items[ix], self.schedule.effects(ix).declared);
        self.run.record(|| {
            let (call, waits) = (item.call.clone(), self.waits(ix));
            let tool = item.tool.as_ref().map_or_else(|| "".into(), |tool| tool.spec.name.clone());
            let part_of = self.part_of(ix);
            match item.role {
                Role::Call | Role::Atomic(_) => {
                    let input = Arc::clone(&item.input);
                    What::CallArrived { call, tool, part_of, position, declared, input, waits }
                }
                Role::Plan(_) | Role::Each(_) => What::BundleArrived { call, tool, part_of, position, waits },
            }
        });
    }

    /// Tells what these calls wait for, now that it is known better.
    pub(super) fn tell_waits(&self, calls: &[Ix]) {
        for call in calls.iter().filter(|call| self.past.outcome(&self.items[**call].call).is_none()) {
            self.run.record(|| What::CallWaits { call: self.items[*call].call.clone(), waits: self.waits(*call) });
        }
    }

    pub(super) fn waits(&self, call: Ix) -> Arc<[Wait]> {
        // What only waits to know of which calls it will refer to, waits for nothing that anybody could see.
        let edges = self.schedule.edges(call).iter().filter(|edge| !edge.void && edge.of != Of::Opening);
        // What a source infers row by row, nobody could declare better.
        let is_known = self.items[call].tool.as_ref().is_some_and(|tool| tool.spec.source.names_rows());
        edges
            .map(|edge| Wait {
                on: self.items[edge.on].call.clone(),
                why: edge.why,
                key: edge.key.clone(),
                undeclared: edge.undeclared && !is_known,
            })
            .collect()
    }

    pub(super) fn unknown_tool(&self, name: &ToolName) -> CallError {
        let names: Vec<&str> = self.run.toolbox.iter().map(|tool| tool.spec.name.as_str()).take(NAMED_MAX).collect();
        let more = self.run.toolbox.len().saturating_sub(names.len());
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!("there is no tool `{name}`; there are: {}{rest}", names.join(", "));
        CallError::new(ErrorCode::UnknownTool, message)
    }
}
