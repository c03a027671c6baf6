//! Reading a plan: everything that is wrong with it, at once.
//!
//! From the input of one call. To a [`Plan`], or to the one error that lists every mistake with its place.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{CALLS_MAX, Each, ITEM, Member, PLAN, Plan, Shown, Use};
use crate::call::ToolName;
use crate::graph::Of;
use crate::outcome::{CallError, ErrorCode};
use crate::reference::{Reference, for_each_in, is_label};
use crate::toolbox::{Registered, Toolbox};

/// At most so many mistakes are named in one answer.
const MISTAKES_MAX: usize = 100;

/// At most so many tools or labels are named in one mistake.
const NAMES_MAX: usize = 20;

impl Plan {
    /// Reads a plan. `may_call` says which of the tools it may have; the others are as good as not there.
    ///
    /// # Errors
    /// `invalid_input` with every mistake and its place, or `too_large` for more than [`CALLS_MAX`] calls.
    pub fn parse(input: &Value, toolbox: &Toolbox, may_call: &dyn Fn(&ToolName) -> bool) -> Result<Self, CallError> {
        let mut parser =
            Parser { toolbox, may_call, mistakes: Vec::new(), labels: HashMap::new(), members: Vec::new() };
        let plan = parser.plan(input);
        let calls: usize = parser.members.iter().flatten().map(|member| member.known_items().map_or(1, Vec::len)).sum();
        if calls > CALLS_MAX || input["calls"].as_array().is_some_and(|calls| calls.len() > CALLS_MAX) {
            return Err(too_many());
        }
        match plan {
            Some(plan) if parser.mistakes.is_empty() => Ok(plan),
            _ => Err(parser.error()),
        }
    }
}

/// The error of a plan that has more calls than may be.
pub(crate) fn too_many() -> CallError {
    let message = format!(
        "a plan has at most {CALLS_MAX} calls, those of its `for_each` included; none of these was carried out. Take fewer elements at once"
    );
    CallError::new(ErrorCode::TooLarge, message)
}

struct Parser<'a> {
    toolbox: &'a Toolbox,
    may_call: &'a dyn Fn(&ToolName) -> bool,
    mistakes: Vec<String>,
    /// Where each label stands first.
    labels: HashMap<&'a str, usize>,
    /// The calls so far; `None` for those that cannot be read.
    members: Vec<Option<Member>>,
}

/// One call while it is read.
struct Place<'a> {
    at: usize,
    name: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Parser<'a> {
    fn plan(&mut self, input: &'a Value) -> Option<Plan> {
        let Some(fields) = input.as_object() else {
            self.mistake("a plan is an object, as in {\"calls\": [{\"label\": …, \"tool\": …, \"input\": …}]}");
            return None;
        };
        self.unknown("the plan", fields, &["calls", "return", "atomic"]);
        let calls = match fields.get("calls") {
            Some(Value::Array(calls)) if !calls.is_empty() => calls,
            _ => {
                self.mistake("`calls` must be an array with at least one call");
                return None;
            }
        };
        if calls.len() > CALLS_MAX {
            return None;
        }
        for (at, call) in calls.iter().enumerate() {
            if let Some(label) = call.get("label").and_then(Value::as_str) {
                self.labels.entry(label).or_insert(at);
            }
        }
        for (at, call) in calls.iter().enumerate() {
            let member = self.call(at, call);
            self.members.push(member);
        }
        let atomic = match given(fields, "atomic") {
            None => false,
            Some(Value::Bool(atomic)) => *atomic,
            Some(_) => {
                self.mistake("`atomic` must be true or false");
                false
            }
        };
        let shown = given(fields, "return").map(|shown| self.shown(shown));
        if atomic {
            self.check_atomic();
        }
        let members = self.members.iter().cloned().collect::<Option<Vec<Member>>>()?;
        Some(Plan { members, shown, atomic })
    }

    fn call(&mut self, at: usize, call: &'a Value) -> Option<Member> {
        let Some(fields) = call.as_object() else {
            self.mistake(format!("`calls[{at}]` must be an object with `label`, `tool` and `input`"));
            return None;
        };
        let label = fields.get("label").and_then(Value::as_str);
        let name = label.map_or(String::new(), |label| format!(" (`{}`)", short(label)));
        let place = Place { at, name: format!("`calls[{at}]`{name}"), fields };
        self.unknown(&place.name, fields, &["label", "tool", "input", "for_each", "needs"]);
        let label = self.label(&place, label);
        let tool = self.tool(&place);
        let each = given(fields, "for_each").map(|items| self.each(&place, items));
        let (input, uses) = self.input(&place);
        let needs = self.needs(&place);
        Some(Member { label: label?, tool: tool?, input: Arc::new(input?), each: each.flatten(), uses, needs })
    }

    fn label(&mut self, place: &Place<'a>, label: Option<&'a str>) -> Option<Arc<str>> {
        let Some(label) = label else {
            self.mistake(format!("{}: `label` must be a text, by which others refer to the call", place.name));
            return None;
        };
        if !is_label(label) {
            self.mistake(format!("{}: a label is 1 to 64 letters, digits, `_` or `-`", place.name));
        } else if label == ITEM {
            self.mistake(format!("{}: `{ITEM}` is the element of a `for_each`; use another label", place.name));
        } else if let Some(first) = self.labels.get(label).filter(|first| **first != place.at) {
            self.mistake(format!("{}: `calls[{first}]` has that label already", place.name));
        }
        Some(label.into())
    }

    fn tool(&mut self, place: &Place<'a>) -> Option<Arc<Registered>> {
        let Some(name) = place.fields.get("tool").and_then(Value::as_str) else {
            self.mistake(format!("{}: `tool` must be the name of a tool", place.name));
            return None;
        };
        if name == PLAN {
            self.mistake(format!("{}: a plan cannot have a plan in it; give its calls here", place.name));
            return None;
        }
        let tool = self.toolbox.get(&name.into()).filter(|tool| (self.may_call)(&tool.spec.name));
        if tool.is_none() {
            let names = self.toolbox.iter().map(|tool| &tool.spec.name).filter(|name| (self.may_call)(name));
            let names = list(names.map(ToolName::as_str).filter(|name| *name != PLAN));
            self.mistake(format!(
                "{}: there is no tool `{}` that a plan can call; there are: {names}",
                place.name,
                short(name)
            ));
        }
        tool.cloned()
    }

    fn input(&mut self, place: &Place<'a>) -> (Option<Value>, Vec<Use>) {
        match place.fields.get("input") {
            None => (Some(Value::Object(Map::new())), Vec::new()),
            Some(input @ Value::Object(_)) => {
                let uses = self.uses(place, "input", input, given(place.fields, "for_each").is_some());
                (Some(input.clone()), uses)
            }
            Some(_) => {
                self.mistake(format!("{}: `input` must be an object", place.name));
                (None, Vec::new())
            }
        }
    }

    fn each(&mut self, place: &Place<'a>, items: &'a Value) -> Option<Each> {
        let reference = Reference::of(items);
        if let Some(reference) = reference.filter(|reference| reference.pointer.is_empty())
            && let Some(on) = self.earlier(place.at, reference.label)
            && self.members[on].as_ref().is_some_and(|member| member.each.is_some())
        {
            return Some(Each::With(on));
        }
        if reference.is_none() && !items.is_array() {
            self.mistake(format!(
                "{}: `for_each` must be an array or a reference to one, as in {{\"$ref\": \"orders#/items\"}}",
                place.name
            ));
            return None;
        }
        let uses = self.uses(place, "for_each", items, false);
        Some(Each::In { items: Arc::new(items.clone()), uses })
    }

    fn needs(&mut self, place: &Place<'a>) -> Vec<usize> {
        let needs = match given(place.fields, "needs") {
            None => return Vec::new(),
            Some(Value::Array(needs)) => needs,
            Some(_) => {
                self.mistake(format!("{}: `needs` must be an array of labels", place.name));
                return Vec::new();
            }
        };
        let mut all: Vec<usize> = Vec::with_capacity(needs.len());
        for need in needs {
            match need.as_str() {
                Some(label) => {
                    if let Some(on) = self.checked(place, &format!("`needs` names `{}`", short(label)), label) {
                        all.push(on);
                    }
                }
                None => self.mistake(format!("{}: `needs` must be an array of labels", place.name)),
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What a value refers to, each once.
    fn uses(&mut self, place: &Place<'a>, field: &str, value: &'a Value, has_item: bool) -> Vec<Use> {
        let mut references = Vec::new();
        for_each_in(value, &mut |reference| references.push(reference));
        let mut uses: Vec<Use> = Vec::new();
        for reference in references {
            let Reference { label, pointer } = reference;
            let written = format!("`{label}#{}` in `{field}`", short(pointer));
            if label == ITEM && has_item {
                self.pointer(place, &written, reference);
                continue;
            }
            if label == ITEM && !self.labels.contains_key(ITEM) {
                self.mistake(format!(
                    "{}: {written}: `{ITEM}` is there only in the `input` of a `for_each`",
                    place.name
                ));
                continue;
            }
            let Some(on) = self.checked(place, &written, label) else { continue };
            if !self.pointer(place, &written, reference) {
                continue;
            }
            if let Some(of) = self.of(place, &written, on, reference) {
                uses.push(Use { on, of });
            }
        }
        uses.sort_unstable_by_key(|one| (one.on, matches!(one.of, Of::Part(_)), part(one.of)));
        uses.dedup();
        uses
    }

    /// Of a call per element: all of them, or the one that the pointer begins with.
    fn of(&mut self, place: &Place<'a>, written: &str, on: usize, reference: Reference<'a>) -> Option<Of> {
        let is_each = self.members[on].as_ref().is_some_and(|member| member.each.is_some());
        if !is_each || reference.pointer.is_empty() {
            return Some(Of::All);
        }
        match reference.index() {
            Some((index, _)) => Some(Of::Part(index)),
            None if says_which(reference) => Some(Of::All),
            None => {
                self.mistake(format!("{}: {written}: {}", place.name, which(reference)));
                None
            }
        }
    }

    fn pointer(&mut self, place: &Place<'a>, written: &str, reference: Reference<'a>) -> bool {
        let is_pointer = reference.has_pointer();
        if !is_pointer {
            let Reference { label, pointer } = reference;
            self.mistake(format!(
                "{}: {written}: what follows `#` is a JSON pointer, as in `{label}#/{}`",
                place.name,
                short(pointer)
            ));
        }
        is_pointer
    }

    /// The member with this label, if it stands before the call.
    fn checked(&mut self, place: &Place<'a>, written: &str, label: &str) -> Option<usize> {
        match self.labels.get(label) {
            Some(on) if *on < place.at => Some(*on),
            Some(on) if *on == place.at => {
                self.mistake(format!("{}: {written}, which is itself", place.name));
                None
            }
            Some(on) => {
                self.mistake(format!(
                    "{}: {written}, which stands later (`calls[{on}]`); a call can only use those before it",
                    place.name
                ));
                None
            }
            None => {
                let labels = self.labels_in_order();
                self.mistake(format!("{}: {written}, and no call has that label; there are: {labels}", place.name));
                None
            }
        }
    }

    fn earlier(&self, at: usize, label: &str) -> Option<usize> {
        self.labels.get(label).copied().filter(|on| *on < at)
    }

    fn labels_in_order(&self) -> String {
        let mut labels: Vec<(usize, &str)> = self.labels.iter().map(|(label, at)| (*at, *label)).collect();
        labels.sort_unstable();
        list(labels.iter().map(|(_, label)| *label))
    }

    fn shown(&mut self, shown: &Value) -> Vec<Shown> {
        let Some(names) = shown.as_array() else {
            self.mistake("`return` must be an array of labels, or of labels with pointers, as in \"orders#/items\"");
            return Vec::new();
        };
        let mut all: Vec<Shown> = Vec::with_capacity(names.len());
        for name in names {
            let Some(name) = name.as_str() else {
                self.mistake("`return` must be an array of texts, as in [\"user\", \"orders#/items\"]");
                continue;
            };
            let (label, pointer) = name.split_at(name.find('#').unwrap_or(name.len()));
            let pointer = pointer.strip_prefix('#').unwrap_or_default();
            let Some(member) = self.labels.get(label).copied() else {
                let labels = self.labels_in_order();
                self.mistake(format!(
                    "`return` names `{}`, and no call has that label; there are: {labels}",
                    short(label)
                ));
                continue;
            };
            let reference = Reference { label, pointer };
            let is_each =
                self.members.get(member).is_some_and(|one| one.as_ref().is_some_and(|one| one.each.is_some()));
            if is_each && reference.has_pointer() && !pointer.is_empty() && !says_which(reference) {
                self.mistake(format!("`return`: `{}`: {}", short(name), which(reference)));
            }
            if !reference.has_pointer() {
                self.mistake(format!(
                    "`return`: what follows `#` in `{}` is no JSON pointer, which begins with `/`",
                    short(name)
                ));
            }
            let one = Shown { name: name.to_owned(), member, pointer: pointer.to_owned() };
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }

    fn check_atomic(&mut self) {
        let mut mistakes = Vec::new();
        let mut first: Option<&Member> = None;
        for (at, member) in self.members.iter().enumerate() {
            let Some(member) = member else { continue };
            let name = format!("`calls[{at}]` (`{}`)", member.label);
            let tool = &member.tool.spec;
            if tool.atomic.is_none() {
                mistakes.push(format!(
                    "{name}: `{}` cannot be part of an atomic plan: only SQL tools can, all of one database",
                    tool.name
                ));
            } else if let Some(first) = first.filter(|first| first.tool.spec.source != tool.source) {
                let (mine, others) = (&tool.source, &first.tool.spec.source);
                mistakes.push(format!("{name}: an atomic plan has one database, and this is {mine}, not {others}"));
            } else if let Some(first) = first.filter(|first| first.tool.spec.policy.limit != tool.policy.limit) {
                // It is one call, and takes one permit.
                let group = |member: &Member| match &member.tool.spec.policy.limit {
                    Some(group) => format!("`{group}`"),
                    None => "that of its database".to_owned(),
                };
                mistakes.push(format!(
                    "{name}: an atomic plan has one limit group, and this draws on {}, not on {}",
                    group(member),
                    group(first)
                ));
            }
            if tool.atomic.is_some() {
                first = first.or(Some(member));
            }
            if !self.is_known(member) {
                mistakes.push(format!("{name}: in an atomic plan `for_each` must be an array without references"));
            }
        }
        self.mistakes.extend(mistakes);
    }

    /// Whether it is known beforehand which calls a member stands for.
    fn is_known(&self, member: &Member) -> bool {
        match &member.each {
            None => true,
            Some(Each::In { .. }) => member.known_items().is_some(),
            Some(Each::With(on)) => self.members[*on].as_ref().is_none_or(|on| self.is_known(on)),
        }
    }

    fn unknown(&mut self, what: &str, fields: &Map<String, Value>, known: &[&str]) {
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            self.mistake(format!("{what} has no field `{}`; there are {}", short(name), known.join(", ")));
        }
    }

    fn mistake(&mut self, mistake: impl Into<String>) {
        self.mistakes.push(mistake.into());
    }

    fn error(&self) -> CallError {
        let (count, more) = (self.mistakes.len(), self.mistakes.len().saturating_sub(MISTAKES_MAX));
        let mut message = format!(
            "the plan is not well formed, and nothing of it was carried out. Mend {} and send it again:",
            if count == 1 { "this" } else { "these" }
        );
        for mistake in self.mistakes.iter().take(MISTAKES_MAX) {
            message.push_str("\n- ");
            message.push_str(mistake);
        }
        if more > 0 {
            message.push_str(&format!("\n- and {more} more"));
        }
        CallError::new(ErrorCode::InvalidInput, message)
    }
}

/// A field that says something; `null` says nothing.
fn given<'v>(fields: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// Whether a pointer into the outputs of a `for_each` begins with the number of one, or stands for all.
fn says_which(reference: Reference<'_>) -> bool {
    reference.index().is_some() || reference.pointer == "/*" || reference.pointer.starts_with("/*/")
}

fn which(reference: Reference<'_>) -> String {
    let (label, pointer) = (reference.label, short(reference.pointer));
    format!(
        "`{label}` is one call per element, so say of which: `{label}#/0{pointer}`, or `{label}#/*{pointer}` for the array of all"
    )
}

fn part(of: Of) -> usize {
    if let Of::Part(part) = of { part } else { 0 }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let all: Vec<&str> = names.collect();
    let shown: Vec<String> = all.iter().take(NAMES_MAX).map(|name| format!("`{}`", short(name))).collect();
    let more = all.len().saturating_sub(NAMES_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

/// What the model wrote, where it is named in a mistake: not all of a long text, and none of what would look like our own words.
fn short(text: &str) -> String {
    text[..text.floor_char_boundary(80)].replace(char::is_control, "\u{fffd}")
}
