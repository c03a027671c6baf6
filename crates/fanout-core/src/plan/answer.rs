//! The one result of a plan: per label the value or the error, and no more of it than the model asked for.
//!
//! From what every call came to. To an [`Output`] whose text is a JSON object:
//! `{"user":{…},"detail":[…],"charge":{"error":{…}},"$left_out_bytes":{"orders":14210}}`. The labels stand in the order of
//! `return`, else of the plan; what failed and was not asked for follows, then how large is what was left out.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Member, Plan};
use crate::outcome::{CallError, Content, Output};
use crate::reference::{Reference, look_up};

/// What one member came to.
#[derive(Clone, Debug)]
pub enum Came {
    /// One call.
    One(Result<Arc<Output>, CallError>),
    /// A call per element, in their order.
    Each(Vec<Result<Arc<Output>, CallError>>),
}

/// So many failures are told with what happened, the others with their code alone: a flood of them says no more than the
/// first.
const MESSAGES_MAX: usize = 20;

/// Less than this of a value says nothing; it is left out whole, and its size told.
const LEAST: usize = 64;

/// Puts the answer together. `came` has one entry per member, in order. Its text has about `max` bytes at most, and the failures;
/// of one call's value no more is shown than its tool's `max_result`. What does not fit is shown as
/// `{"$cut":BEGINNING,"$bytes":SIZE}`, the small before the large, or left out where there is no room for a beginning.
///
/// It is an error only if nothing of the plan ended well.
pub fn answer(plan: &Plan, came: &[Came], max: usize) -> Output {
    let mut answer = Answer { fields: Vec::new(), pictures: Vec::new(), max, messages: 0 };
    let mut left_out = Vec::new();
    match &plan.shown {
        None => {
            for (member, came) in plan.members.iter().zip(came) {
                answer.part(&member.label, "", member, came);
            }
        }
        Some(shown) => {
            for one in shown {
                if let (Some(member), Some(came)) = (plan.members.get(one.member), came.get(one.member)) {
                    answer.part(&one.name, &one.pointer, member, came);
                }
            }
            for (at, (member, came)) in plan.members.iter().zip(came).enumerate() {
                let asked = || shown.iter().filter(|one| one.member == at);
                if asked().all(|one| !one.pointer.is_empty()) {
                    answer.failures(member, came, asked().next().is_some());
                }
                if asked().next().is_none() {
                    left_out.extend(size(came).map(|bytes| (member.label.to_string(), bytes)));
                }
            }
        }
    }
    let Answer { fields, pictures, .. } = answer;
    let mut printed: Vec<String> = Vec::with_capacity(fields.len() + 1);
    for (name, json) in within(fields, max) {
        match json {
            Ok(json) => printed.push(format!("{}:{json}", text(&name))),
            Err(bytes) => left_out.push((name, bytes)),
        }
    }
    if !left_out.is_empty() {
        let sizes: Vec<String> = left_out.iter().map(|(label, bytes)| format!("{}:{bytes}", text(label))).collect();
        printed.push(format!("\"$left_out_bytes\":{{{}}}", sizes.join(",")));
    }
    let mut content = vec![Content::Text(format!("{{{}}}", printed.join(",")).into())];
    content.extend(pictures);
    Output { content, structured: None, is_error: !came.iter().any(Came::has_success) }
}

/// The answer as it grows.
struct Answer {
    fields: Vec<(String, Field)>,
    pictures: Vec<Content>,
    max: usize,
    /// How many failures were told whole.
    messages: usize,
}

/// What stands under one name.
enum Field {
    /// A failure, which is shown whole.
    Failure(String),
    /// A value.
    Value(Json),
}

/// JSON text, or the beginning of it.
struct Json {
    text: String,
    /// How long all of it is.
    bytes: usize,
}

impl Json {
    /// Keeps no more of it than can be shown.
    fn new(mut text: String, max: usize) -> Self {
        let bytes = text.len();
        text.truncate(text.floor_char_boundary(max));
        Self { text, bytes }
    }

    /// All of it, or as much as there is room for; its size, if that is not even a beginning.
    fn shown(self, room: usize) -> Result<String, usize> {
        if self.text.len() == self.bytes && self.bytes <= room {
            return Ok(self.text);
        }
        if room < LEAST {
            return Err(self.bytes);
        }
        // Its quotes are escaped once more, so less of it may have to do.
        let mut end = room.min(self.text.len());
        loop {
            let beginning = &self.text[..self.text.floor_char_boundary(end)];
            let cut = json!({ "$cut": beginning, "$bytes": self.bytes }).to_string();
            if cut.len() <= room + LEAST {
                return Ok(cut);
            }
            end -= (cut.len() - room).clamp(1, end);
        }
    }

    /// The same within an array, where something must stand.
    fn element(self, room: usize) -> String {
        self.shown(room).unwrap_or_else(|bytes| json!({ "$bytes": bytes }).to_string())
    }
}

/// The fields in their order, values within so many bytes: one that is larger than its even share leaves none of it to waste.
fn within(fields: Vec<(String, Field)>, max: usize) -> Vec<(String, Result<String, usize>)> {
    let failures = fields.iter().map(|(name, field)| match field {
        Field::Failure(json) => json.len() + name.len() + 4,
        Field::Value(_) => name.len() + 4,
    });
    let mut left = max.saturating_sub(failures.sum());
    let length = |field: &Field| if let Field::Value(json) = field { json.text.len() } else { 0 };
    let mut by_length: Vec<usize> = (0..fields.len()).filter(|at| length(&fields[*at].1) > 0).collect();
    by_length.sort_by_key(|at| length(&fields[*at].1));
    let mut rooms = vec![0; fields.len()];
    for (done, at) in by_length.iter().enumerate() {
        rooms[*at] = length(&fields[*at].1).min(left / (by_length.len() - done));
        left -= rooms[*at];
    }
    let printed = fields.into_iter().zip(rooms).map(|((name, field), room)| match field {
        Field::Failure(json) => (name, Ok(json)),
        Field::Value(json) => (name, json.shown(room)),
    });
    printed.collect()
}

impl Answer {
    fn part(&mut self, name: &str, pointer: &str, member: &Member, came: &Came) {
        let max = member.tool.spec.policy.result_max;
        let field = match came {
            Came::One(came) => self.one(name, pointer, came, max),
            Came::Each(all) => self.each(name, pointer, all, max),
        };
        self.fields.push((name.to_owned(), field));
    }

    fn one(&mut self, name: &str, pointer: &str, came: &Result<Arc<Output>, CallError>, max: usize) -> Field {
        match came {
            Err(error) => Field::Failure(self.error(error)),
            Ok(output) if output.is_error => Field::Failure(Json::new(whole_json(output), max).element(max)),
            Ok(output) if pointer.is_empty() => Field::Value(Json::new(self.value(output), max)),
            Ok(output) => match look_up(&output.value(), pointer) {
                Ok(found) => Field::Value(Json::new(found.to_value().to_string(), max)),
                Err(missing) => Field::Failure(nothing(&format!("`{name}` points at nothing: {}", missing.there))),
            },
        }
    }

    /// What a `for_each` came to, or a part of that.
    fn each(&mut self, name: &str, pointer: &str, all: &[Result<Arc<Output>, CallError>], max: usize) -> Field {
        let reference = Reference { label: name, pointer };
        if let Some((index, rest)) = reference.index() {
            return match all.get(index) {
                Some(came) => self.one(name, rest, came, max),
                None => Field::Failure(nothing(&format!("there are only {} elements", all.len()))),
            };
        }
        let rest = pointer.strip_prefix("/*").unwrap_or(pointer);
        let (mut shown, mut left) = (Vec::with_capacity(all.len()), self.max);
        for came in all {
            let json = match self.one(name, rest, came, max) {
                Field::Failure(json) => json,
                Field::Value(json) => json.element(left),
            };
            left = left.saturating_sub(json.len() + 1);
            shown.push(json);
        }
        Field::Value(Json::new(format!("[{}]", shown.join(",")), usize::MAX))
    }

    /// The failures of what was not asked for as a whole.
    fn failures(&mut self, member: &Member, came: &Came, is_asked_for: bool) {
        let failed: Vec<(String, &Result<Arc<Output>, CallError>)> = match came {
            // Where a part of it was asked for, the error stands there.
            Came::One(_) if is_asked_for => Vec::new(),
            Came::One(came) => vec![(member.label.to_string(), came)],
            Came::Each(all) => {
                all.iter().enumerate().map(|(at, came)| (format!("{}#/{at}", member.label), came)).collect()
            }
        };
        for (name, came) in failed.into_iter().filter(|(_, came)| !is_well(came)) {
            if self.fields.iter().all(|(other, _)| *other != name) {
                let field = self.one(&name, "", came, member.tool.spec.policy.result_max);
                self.fields.push((name, field));
            }
        }
    }

    /// A whole output as JSON; its pictures follow the text, and are told by their numbers.
    fn value(&mut self, output: &Output) -> String {
        let json = whole_json(output);
        let pictures: Vec<Content> =
            output.content.iter().filter(|content| matches!(content, Content::Image { .. })).cloned().collect();
        if pictures.is_empty() {
            return json;
        }
        let first = self.pictures.len() + 1;
        let numbers: Vec<String> = (first..first + pictures.len()).map(|number| number.to_string()).collect();
        self.pictures.extend(pictures);
        format!("{{\"value\":{json},\"$images\":[{}]}}", numbers.join(","))
    }

    fn error(&mut self, error: &CallError) -> String {
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return json!({ "error": { "code": error.code.as_str() } }).to_string();
        }
        error.body()
    }
}

impl Came {
    fn has_success(&self) -> bool {
        match self {
            Self::One(came) => is_well(came),
            // Nothing to do is done.
            Self::Each(all) => all.is_empty() || all.iter().any(is_well),
        }
    }
}

fn is_well(came: &Result<Arc<Output>, CallError>) -> bool {
    came.as_ref().is_ok_and(|output| !output.is_error)
}

/// How large what is not shown is; `None` for what failed, which is told otherwise.
fn size(came: &Came) -> Option<usize> {
    match came {
        Came::One(came) => is_well(came).then(|| size_of(came)),
        Came::Each(all) => Some(2 + all.iter().map(|came| size_of(came) + 1).sum::<usize>()),
    }
}

fn size_of(came: &Result<Arc<Output>, CallError>) -> usize {
    came.as_ref().map_or(0, |output| whole_json(output).len())
}

/// The value of an output as JSON text: as the tool wrote it, where that is JSON, so that the order of its fields and the
/// spelling of its numbers stay. What the tool itself calls an error says so.
fn whole_json(output: &Output) -> String {
    let value = output.value();
    let json = match output.texts().as_slice() {
        [one] if serde_json::from_str::<Value>(one).is_ok_and(|read| read == value) => (*one).to_owned(),
        _ => value.to_string(),
    };
    if output.is_error { format!("{{\"error\":{{\"code\":\"upstream\",\"output\":{json}}}}}") } else { json }
}

fn nothing(message: &str) -> String {
    json!({ "error": { "code": "unresolved_reference", "message": message } }).to_string()
}

fn text(text: &str) -> String {
    Value::from(text).to_string()
}
