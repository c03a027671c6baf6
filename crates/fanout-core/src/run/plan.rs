//! Plans in a batch: their calls stand in the plan's place, and the plan is answered when all of them are.
//!
//! From `batch`: a call of `plan`. To its schedule: the plan's calls, those of a `for_each` once its elements are known.
//! What a plan may be, and what its answer looks like, stands in [`plan`](crate::plan).

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::batch::{Batch, BatchError};
use super::item::{Name, Named, New, Role};
use crate::call::{Call, CallId, Input, Position, ToolName};
use crate::effects::{Effects, Paths, Source};
use crate::event::Why;
use crate::graph::{Edge, Ix, Of, Opened, Part};
use crate::outcome::{CallError, ErrorCode, Output};
use crate::plan::{
    Atomic, AtomicMember, AtomicNamed, CALLS_MAX, Came, Each, ITEM, Member, Plan, Use, answer, too_many,
};
use crate::reference::{self, Bound, FILLED_IN_PLAN_MAX};
use crate::schedule::{NewPart, Terms};
use crate::toolbox::Registered;

/// A plan on its way.
#[derive(Debug)]
pub(super) struct Planned {
    plan: Arc<Plan>,
    /// Where its members stand.
    members: Vec<Ix>,
    /// How many calls it has, as far as is known.
    calls: usize,
    /// How many bytes its references have filled in.
    filled: usize,
    position: Position,
}

/// A plan that is one call.
#[derive(Debug)]
pub(super) struct Together {
    plan: Plan,
    /// As the last attempt has it.
    atomic: Arc<Atomic>,
    /// How many calls each member stands for; `None`: it is one.
    elements: Vec<Option<usize>>,
    /// The members that people have to agree to.
    pub(super) asks: Vec<Asks>,
}

/// A member that people have to agree to: its label, its tool, its final input.
pub(super) type Asks = (Arc<str>, ToolName, Arc<Value>);

impl Together {
    /// The tools that it calls.
    pub(super) fn tools(&self) -> impl Iterator<Item = &ToolName> {
        self.plan.members.iter().map(|member| &member.tool.spec.name)
    }

    /// Another attempt begins: nothing of an earlier one counts.
    pub(super) fn begin(&mut self) -> Arc<Atomic> {
        self.atomic = Arc::new(self.atomic.again());
        Arc::clone(&self.atomic)
    }
}

/// A call of a `for_each` as it becomes known.
struct Element {
    input: Arc<Value>,
    names: Vec<Name>,
    new: NewPart,
}

impl Batch<'_> {
    pub(super) fn take_plan(&mut self, call: Call, tool: &Arc<Registered>) -> Result<(), BatchError> {
        // Its calls are known by its id and a label; an id with a `/` in it could be one of those.
        let below = format!("{}/", call.id);
        if let Some(taken) =
            self.items.iter().find(|item| item.bundle.is_none() && item.call.as_str().starts_with(&below))
        {
            return Err(BatchError::Twice(taken.call.clone()));
        }
        let parsed = match &call.input {
            Input::Invalid(raw) => Err(CallError::invalid_json(raw)),
            Input::Json(input) => {
                let allowed = self.run.options.plan_tools.clone();
                let may_call = |name: &_| allowed.as_ref().is_none_or(|allowed| allowed.contains(name));
                Plan::parse(input, &self.run.toolbox, &may_call)
            }
        };
        match parsed {
            Err(error) => self.refuse(&call, error),
            Ok(plan) if plan.atomic => self.take_atomic(call, tool, plan),
            Ok(plan) => {
                self.unfold(call, tool, plan);
                Ok(())
            }
        }
    }

    /// Puts the calls of a plan in its place.
    fn unfold(&mut self, call: Call, tool: &Arc<Registered>, plan: Plan) {
        let (calls, position) = (plan.members.len(), call.position.clone());
        let planned = Planned { plan: Arc::new(plan), members: Vec::new(), calls, filled: 0, position };
        let plan = Arc::clone(&planned.plan);
        let bundle = self.schedule.bundle(call.id.clone(), tool.spec.name.clone());
        self.push(New::plan(&call.id, tool, Role::Plan(Box::new(planned))));
        self.tell_arrival(bundle, call.position);
        let mut members = Vec::with_capacity(calls);
        for member in &plan.members {
            members.push(self.take_member(bundle, &plan, &members, member));
        }
        if let Role::Plan(planned) = &mut self.items[bundle].role {
            planned.members = members;
        }
        self.schedule.whole(bundle);
        self.act();
    }

    /// Takes the next member of a plan; `members` says where those before it stand.
    fn take_member(&mut self, bundle: Ix, plan: &Plan, members: &[Ix], member: &Member) -> Ix {
        let position = self.position(bundle, members.len());
        let call = format!("{}/{}", self.items[bundle].call, member.label).into();
        let (mut edges, names) = uses(plan, members, &member.uses);
        edges.extend(member.needs.iter().map(|on| Edge::named(members[*on], Why::Order, true)));
        edges.extend(self.declared_edges(&member.tool));
        let mut role = Role::Call;
        let mut refused = None;
        match &member.each {
            None => {
                refused = self.admit().or_else(|| self.out_of_use(&member.tool.spec.name));
                if refused.is_none() && names.is_empty() {
                    refused = member.tool.schema.check(member.tool.spec.name.as_str(), &member.input).err();
                }
            }
            Some(each) => {
                // Its calls wait for what their inputs refer to, each by itself; the `for_each` only for its elements.
                edges.retain(|edge| edge.why != Why::Reference);
                edges.extend(match each {
                    Each::In { uses: items, .. } => uses(plan, members, items).0,
                    Each::With(on) => vec![Edge::named(members[*on], Why::Reference, true).of(Of::Opening)],
                });
                role = Role::Each(members.len());
            }
        }
        let (tool, input) = (Arc::clone(&member.tool), Arc::clone(&member.input));
        let (new, shown) = (New { call, tool, input, names, bundle: Some(bundle), role }, CallId::from(&*member.label));
        match refused {
            None => self.accept(new, shown, position, edges),
            Some(error) => self.refuse_part(new, shown, position, error),
        }
    }

    fn refuse_part(&mut self, new: New, shown: CallId, position: Position, error: CallError) -> Ix {
        let (tool, bundle) = (new.tool.spec.name.clone(), new.bundle);
        let ix = self.push(new);
        self.schedule.refuse(bundle, shown, tool, error);
        self.tell_arrival(ix, position);
        ix
    }

    /// What a label of this call's input stands for, given the number that the pointer begins with.
    pub(super) fn bound(&self, call: Ix, label: &str, index: Option<usize>) -> Option<Bound> {
        let name = self.items[call].names.iter().find(|name| &*name.label == label)?;
        let on = match &name.named {
            Named::Value(value) => return Some(Bound::Whole(Arc::clone(value))),
            Named::Call(on) => *on,
        };
        self.came_to(on, index)
    }

    /// What a call came to, or one of those that it stands for.
    fn came_to(&self, call: Ix, index: Option<usize>) -> Option<Bound> {
        Some(match (self.schedule.parts(call), index) {
            (Some(parts), Some(index)) => Bound::Part(match parts.get(index) {
                Some(part) => Ok(self.value(*part)?),
                None => Err(parts.len()),
            }),
            (Some(_), None) | (None, _) => Bound::Whole(self.value(call)?),
        })
    }

    /// The output of a call as references see it, made once.
    fn value(&self, call: Ix) -> Option<Arc<Value>> {
        let item = &self.items[call];
        if let Some(value) = item.value.get() {
            return Some(Arc::clone(value));
        }
        let value = match self.schedule.parts(call) {
            Some(parts) => {
                let values = parts.iter().map(|part| self.value(*part).map(|value| (*value).clone()));
                Value::Array(values.collect::<Option<_>>()?)
            }
            None => item.outcome.as_ref()?.result.as_ref().ok()?.value(),
        };
        Some(Arc::clone(item.value.get_or_init(|| Arc::new(value))))
    }

    /// How many bytes may still be filled into the inputs of the plan that a call belongs to.
    pub(super) fn left_to_fill(&self, call: Ix) -> usize {
        let plan = self.plan_of(call).map(|plan| &self.items[plan].role);
        let Some(Role::Plan(planned)) = plan else { return FILLED_IN_PLAN_MAX };
        FILLED_IN_PLAN_MAX.saturating_sub(planned.filled)
    }

    /// Tells how many of them are left now.
    pub(super) fn leave_to_fill(&mut self, call: Ix, left: usize) {
        let plan = self.plan_of(call);
        if let Some(Role::Plan(planned)) = plan.map(|plan| &mut self.items[plan].role) {
            planned.filled = FILLED_IN_PLAN_MAX - left;
        }
    }

    /// The plan that a call belongs to.
    pub(super) fn plan_of(&self, call: Ix) -> Option<Ix> {
        let mut at = self.items[call].bundle?;
        while let Some(above) = self.items[at].bundle {
            at = above;
        }
        Some(at)
    }

    /// The elements of a `for_each` are known: a call for each of them.
    pub(super) fn open_each(&mut self, call: Ix, member: usize) {
        if !self.schedule.is_waiting(call) {
            // It was skipped or cancelled since it was asked for.
            return;
        }
        let (Some(tool), Some(plan)) = (self.items[call].tool.clone(), self.plan_of(call)) else { return };
        let (first, position) = (self.items.len(), self.position(plan, member));
        let elements = self.elements(plan, call, member);
        let parts = elements.map(|elements| {
            let places = (0..).zip(elements).map(|(index, Element { input, names, new }): (u32, _)| {
                let id = format!("{}/{index}", self.items[call].call).into();
                let (tool, bundle) = (Arc::clone(&tool), Some(call));
                let ix = self.push(New { call: id, tool, input, names, bundle, role: Role::Call });
                self.items[ix].limit = Arc::clone(&new.treatment.limit);
                new
            });
            places.collect()
        });
        let now = self.run.elapsed();
        let Opened { moved, .. } = self.schedule.opened(call, parts, now);
        for (index, ix) in (0..).zip(first..self.items.len()) {
            self.tell_arrival(ix, position.part(index));
        }
        self.tell_waits(&moved);
    }

    /// Where the member at this place of a plan stands in program order.
    fn position(&self, plan: Ix, member: usize) -> Position {
        let Role::Plan(planned) = &self.items[plan].role else { return Position::default() };
        planned.position.part(u32::try_from(member).unwrap_or(u32::MAX))
    }

    fn elements(&mut self, bundle: Ix, call: Ix, at: usize) -> Result<Vec<Element>, CallError> {
        let lost = || CallError::new(ErrorCode::Internal, "the call lost its plan");
        let Role::Plan(planned) = &self.items[bundle].role else { return Err(lost()) };
        let (plan, members) = (Arc::clone(&planned.plan), planned.members.clone());
        let member = &plan.members[at];
        let items = self.items_of(&plan, &members, member)?;
        self.count_calls(bundle, items.len())?;
        let (edges, names) = uses(&plan, &members, &member.uses);
        let first = self.items.len();
        let mut elements = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let mut edges = edges.clone();
            if let Named::Call(on) = &item {
                edges.push(Edge::named(*on, Why::Reference, true));
            }
            edges.extend(self.sibling(&member.tool, first, index));
            elements.push(self.element(call, member, index, item, names.clone(), edges));
        }
        Ok(elements)
    }

    /// What the elements of a `for_each` are: values, or calls whose outputs they will be.
    fn items_of(&self, plan: &Plan, members: &[Ix], member: &Member) -> Result<Vec<Named>, CallError> {
        let items = match &member.each {
            None => return Ok(Vec::new()),
            Some(Each::With(on)) => {
                let parts = self.schedule.parts(members[*on]).unwrap_or_default();
                return Ok(parts.iter().map(|part| Named::Call(*part)).collect());
            }
            Some(Each::In { items, .. }) => items,
        };
        let on = |label: &str| plan.members.iter().position(|other| &*other.label == label);
        let bound = |label: &str, index: Option<usize>| self.came_to(*members.get(on(label)?)?, index);
        match reference::fill(items, &bound)?.0 {
            Value::Array(items) => Ok(items.into_iter().map(|item| Named::Value(Arc::new(item))).collect()),
            other => {
                let (label, there) = (&member.label, reference::described(&other));
                let message = format!(
                    "the `for_each` of `{label}` is {items}, which is not an array: there is {there}. None of its calls was carried out"
                );
                Err(CallError::new(ErrorCode::UnresolvedReference, message))
            }
        }
    }

    /// Counts the calls of a `for_each`, which was one until now.
    fn count_calls(&mut self, plan: Ix, elements: usize) -> Result<(), CallError> {
        let Role::Plan(planned) = &mut self.items[plan].role else { return Ok(()) };
        let calls = planned.calls - 1 + elements;
        if calls > CALLS_MAX {
            return Err(too_many());
        }
        planned.calls = calls;
        Ok(())
    }

    /// What a call of a `for_each` follows among the others: where its tool follows itself, or its source.
    fn sibling(&self, tool: &Registered, first: Ix, index: usize) -> Option<Edge> {
        let before = first + index.checked_sub(1)?;
        let stops = self.stops_on_failure(tool);
        let follows = stops || tool.spec.policy.after.contains(&tool.spec.name);
        follows.then(|| Edge::named(before, Why::Order, stops))
    }

    fn element(
        &mut self,
        call: Ix,
        member: &Member,
        index: usize,
        item: Named,
        mut names: Vec<Name>,
        edges: Vec<Edge>,
    ) -> Element {
        let known = match &item {
            Named::Value(value) => Some(Arc::clone(value)),
            Named::Call(_) => None,
        };
        names.push(Name { label: ITEM.into(), named: item });
        let settled = known.is_some() && member.uses.is_empty();
        // With the element known its keys may be narrower than those of all. What it refers to beside is not known yet.
        let bound = |label: &str, _: Option<usize>| known.clone().filter(|_| label == ITEM).map(Bound::Whole);
        let mut left = self.left_to_fill(call);
        let filled = reference::fill_within(&mut left, &member.input, &bound);
        let effects = match &filled {
            Ok(input) => member.tool.effects_of(input, &self.run.options.paths),
            Err(_) => member.effects(&self.run.options.paths),
        };
        let mut treatment = self.treatment(&member.tool, format!("{}/{index}", member.label).into(), &effects);
        let mut input = Arc::clone(&member.input);
        let mut error = self.admit().or_else(|| self.out_of_use(&member.tool.spec.name));
        if let (true, None) = (settled, &error) {
            self.leave_to_fill(call, left);
            let name = member.tool.spec.name.as_str();
            match filled {
                Ok(filled) => {
                    error = member.tool.schema.check(name, &filled).err();
                    input = Arc::new(filled);
                }
                Err(unfilled) => error = Some(unfilled),
            }
            names.clear();
            treatment.asks = error.is_none() && member.tool.spec.policy.approval.asks(&input);
        }
        Element { input, names, new: NewPart { treatment, part: Part { effects, settled, edges }, error } }
    }

    /// All parts of a bundle have their outcomes.
    pub(super) fn gather(&mut self, bundle: Ix) {
        let result = match &self.items[bundle].role {
            Role::Plan(planned) => Ok(self.answer_of(planned, bundle)),
            Role::Each(_) => self.whole_of(bundle),
            Role::Call | Role::Atomic(_) => Err(CallError::new(ErrorCode::Internal, "this stands for no other calls")),
        };
        let now = self.run.elapsed();
        self.schedule.gathered(bundle, result, now);
    }

    fn answer_of(&self, planned: &Planned, bundle: Ix) -> Output {
        let lost = || CallError::new(ErrorCode::Internal, "the call has no outcome");
        let result = |call: &Ix| match &self.items[*call].outcome {
            Some(outcome) => outcome.result.clone(),
            None => Err(lost()),
        };
        let came = planned.members.iter().map(|member| match self.schedule.parts(*member) {
            Some(parts) => Came::Each(parts.iter().map(result).collect()),
            None => Came::One(result(member)),
        });
        let came: Vec<Came> = came.collect();
        answer(&planned.plan, &came, self.result_max(bundle))
    }

    fn result_max(&self, call: Ix) -> usize {
        self.items[call].tool.as_ref().map_or(usize::MAX, |tool| tool.spec.policy.result_max)
    }

    /// What a `for_each` came to: nothing by itself, if all its calls ended well.
    fn whole_of(&self, bundle: Ix) -> Result<Output, CallError> {
        let parts = self.schedule.parts(bundle).unwrap_or_default();
        let failed = |part: &Ix| self.items[*part].outcome.as_ref().and_then(|outcome| outcome.error_code());
        let mut codes = parts.iter().enumerate().filter_map(|(at, part)| Some((at, failed(part)?)));
        let Some((at, code)) = codes.next() else { return Ok(Output::default()) };
        let (count, all) = (1 + codes.count(), parts.len());
        Err(CallError::new(code, format!("{count} of its {all} calls failed, the first of them `{at}`")))
    }

    /// Forgets what the parts of an answered plan came to: nobody can refer to it any more.
    pub(super) fn forget_parts(&mut self, plan: Ix) {
        let Role::Plan(planned) = &self.items[plan].role else { return };
        let elements = planned.members.iter().filter_map(|member| self.schedule.parts(*member)).flatten();
        let parts: Vec<Ix> = planned.members.iter().chain(elements).copied().collect();
        for part in parts {
            let item = &mut self.items[part];
            (item.outcome, item.value) = (None, OnceCell::new());
        }
    }

    /// Takes a plan whose calls are one call.
    fn take_atomic(&mut self, call: Call, tool: &Arc<Registered>, plan: Plan) -> Result<(), BatchError> {
        let (members, elements) = flat(&plan);
        let Some(first) = members.first().map(|member| Arc::clone(&member.tool)) else {
            // Every `for_each` is empty: there is nothing to do.
            self.unfold(call, tool, plan);
            return Ok(());
        };
        let too_many = members.iter().filter_map(|_| self.admit()).last();
        let disabled = || members.iter().find_map(|member| self.out_of_use(&member.tool.spec.name));
        if let Some(error) = too_many.or_else(disabled) {
            self.refused(&call, Some(Arc::clone(tool)), error);
            return Ok(());
        }
        let asks = match people_asked(&members) {
            Ok(asks) => asks,
            Err(error) => {
                self.refused(&call, Some(Arc::clone(tool)), error);
                return Ok(());
            }
        };
        let effects = together(&members, &self.run.options.paths);
        let tool = Arc::new(as_one(tool, &first, &members));
        let mut treatment = self.treatment(&tool, call.id.clone(), &effects);
        treatment.limit = self.run.limit_of(&first);
        treatment.asks = !asks.is_empty();
        let tools = tools_of(&members);
        let edges = tools.iter().flat_map(|tool| self.declared_edges(tool)).collect();
        let atomic = Arc::new(Atomic::new(members, Arc::clone(&self.run.secrets)));
        let role = Role::Atomic(Box::new(Together { plan, atomic, elements, asks }));
        let ix = self.push(New::plan(&call.id, &tool, role));
        for tool in &tools {
            self.follow(tool, ix);
        }
        self.items[ix].limit = Arc::clone(&treatment.limit);
        let now = self.run.elapsed();
        self.schedule.arrive(treatment, effects, true, edges, now);
        self.tell_arrival(ix, call.position);
        self.act();
        Ok(())
    }

    /// The answer of an atomic plan, member by member; `result` is that of its one call.
    pub(super) fn answer_together(&self, call: Ix, result: Result<(), CallError>) -> Option<Output> {
        let Role::Atomic(together) = &self.items[call].role else { return None };
        if let Some(recorded) = together.atomic.recorded() {
            return Some(recorded);
        }
        let mut all = together.atomic.came_to(&result).into_iter().map(|came| came.map(Arc::new));
        let lost = || Err(CallError::new(ErrorCode::Internal, "the call has no outcome"));
        let came = together.elements.iter().map(|elements| match elements {
            None => Came::One(all.next().unwrap_or_else(lost)),
            Some(count) => Came::Each(all.by_ref().take(*count).collect()),
        });
        let came: Vec<Came> = came.collect();
        Some(answer(&together.plan, &came, self.result_max(call)))
    }
}

/// The edges to what an input refers to, and what its labels stand for.
fn uses(plan: &Plan, members: &[Ix], uses: &[Use]) -> (Vec<Edge>, Vec<Name>) {
    let edges = uses.iter().map(|one| Edge::named(members[one.on], Why::Reference, true).of(one.of));
    let mut names: Vec<Name> = Vec::new();
    for one in uses {
        let label = &plan.members[one.on].label;
        if names.iter().all(|name| name.label != *label) {
            names.push(Name { label: Arc::clone(label), named: Named::Call(members[one.on]) });
        }
    }
    (edges.collect(), names)
}

/// The calls of an atomic plan one after another, and how many each member stands for.
fn flat(plan: &Plan) -> (Vec<AtomicMember>, Vec<Option<usize>>) {
    let mut all: Vec<AtomicMember> = Vec::new();
    let mut places: Vec<AtomicNamed> = Vec::new();
    let mut elements = Vec::new();
    for member in &plan.members {
        let mut names: Vec<(Arc<str>, AtomicNamed)> = Vec::new();
        for one in &member.uses {
            names.push((Arc::clone(&plan.members[one.on].label), places[one.on].clone()));
        }
        let items: Option<Vec<AtomicNamed>> = match &member.each {
            None => None,
            Some(Each::With(on)) => match &places[*on] {
                AtomicNamed::Members(members) => Some(members.iter().map(|at| AtomicNamed::Member(*at)).collect()),
                AtomicNamed::Member(_) | AtomicNamed::Value(_) => Some(Vec::new()),
            },
            Some(Each::In { .. }) => {
                let items = member.known_items().into_iter().flatten();
                Some(items.map(|item| AtomicNamed::Value(Arc::new(item.clone()))).collect())
            }
        };
        let (tool, input) = (&member.tool, &member.input);
        let one = |label: Arc<str>, names: Vec<(Arc<str>, AtomicNamed)>| AtomicMember {
            label,
            tool: Arc::clone(tool),
            input: Arc::clone(input),
            names,
        };
        let first = all.len();
        elements.push(items.as_ref().map(Vec::len));
        match items {
            None => {
                all.push(one(Arc::clone(&member.label), names));
                places.push(AtomicNamed::Member(first));
            }
            Some(items) => {
                places.push(AtomicNamed::Members((first..first + items.len()).collect()));
                for (index, item) in items.into_iter().enumerate() {
                    let mut names = names.clone();
                    names.push((ITEM.into(), item));
                    all.push(one(format!("{}/{index}", member.label).into(), names));
                }
            }
        }
    }
    (all, elements)
}

/// The members that people have to agree to, with what they are given. They are asked before anything runs, so an input that
/// is filled only then could not be what they agreed to.
fn people_asked(members: &[AtomicMember]) -> Result<Vec<Asks>, CallError> {
    let mut asked = Vec::new();
    for member in members {
        let name = member.tool();
        let known = member.known_input();
        if !member.tool.spec.policy.approval.asks(&known) {
            continue;
        }
        if !member.is_settled() {
            let message = format!(
                "`{}` (`{name}`) needs a person's approval, who is asked before an atomic plan begins: its input may not \
                 refer to the output of another call of the plan. Nothing was carried out; write the value, or leave \
                 `atomic` out",
                member.label
            );
            return Err(CallError::new(ErrorCode::InvalidInput, message));
        }
        member.tool.schema.check(name.as_str(), &known)?;
        asked.push((Arc::clone(&member.label), name.clone(), Arc::new(known)));
    }
    Ok(asked)
}

/// Their tools, each once.
fn tools_of(members: &[AtomicMember]) -> Vec<Arc<Registered>> {
    let mut tools: Vec<Arc<Registered>> = Vec::new();
    for member in members {
        if tools.iter().all(|tool| !Arc::ptr_eq(tool, &member.tool)) {
            tools.push(Arc::clone(&member.tool));
        }
    }
    tools
}

/// What all of them touch; what a reference stands for is not known, and will not be before they run.
fn together(members: &[AtomicMember], paths: &Paths) -> Effects {
    let effects = Effects::union(members.iter().map(|member| member.effects(paths)));
    effects.unwrap_or_else(|| Effects::none(Source::function()))
}

/// The tool of an atomic plan: `plan` in name, carried out by that of its first call, with the time of all of them.
fn as_one(plan: &Registered, first: &Registered, members: &[AtomicMember]) -> Registered {
    let policies = || members.iter().map(|member| &member.tool.spec.policy);
    let timeout: Duration = policies().map(|policy| policy.timeout).fold(Duration::ZERO, Duration::saturating_add);
    let deadline = policies().map(|policy| policy.deadline).max().unwrap_or_default().max(timeout);
    let repeatable = members.iter().all(|member| member.tool.terms.repeatable);
    let terms = Terms { timeout, deadline, repeatable, ..(*plan.terms).clone() };
    let mut spec = plan.spec.clone();
    spec.source = first.spec.source.clone();
    let is_one = members.iter().all(|member| member.tool.spec.database == first.spec.database);
    spec.database = first.spec.database.clone().filter(|_| is_one);
    Registered {
        spec,
        terms: Arc::new(terms),
        is_limited: first.is_limited,
        schema: Arc::clone(&plan.schema),
        latency: Arc::clone(&plan.latency),
        service: first.service.clone(),
        is_plan: true,
    }
}
