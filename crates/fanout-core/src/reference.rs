//! `$ref` in an input: finding and filling, once.
//!
//! From a call of a [`plan`](crate::plan), and the outputs that its labels stand for.
//! To the input that the tool is given.
//!
//! A reference is an object with the one key `$ref` whose text is LABEL`#`JSON-POINTER; anything else is literal. Filled
//! values are never looked into: an output cannot smuggle in a reference.
//!
//! Beyond RFC 6901, `*` in a pointer stands for every element of an array: `lines#/*/price` is the array of their prices.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::outcome::{CallError, ErrorCode};

/// The one key of a reference.
const REF: &str = "$ref";

/// More bytes than this are not filled into one input, as JSON text. The number is the design's, for any output.
pub const FILLED_MAX: usize = 16 * 1024 * 1024;

/// And not more than this into all inputs of one plan: four of the largest. Each call has its own copy of what its references
/// stand for.
pub const FILLED_IN_PLAN_MAX: usize = 4 * FILLED_MAX;

/// No value of an input has more levels above it: what reads JSON stops at 127, one of which the value may be itself, and every
/// level costs stack.
pub const DEPTH_MAX: usize = 126;

/// A label is not longer than this, in bytes.
pub const LABEL_MAX: usize = 64;

/// What a label stands for.
#[derive(Clone, Debug)]
pub enum Bound {
    /// The whole output of one call.
    Whole(Arc<Value>),
    /// Of a call for each element the output of the one that the pointer begins with; `None`: there are only so many.
    Part(Result<Arc<Value>, usize>),
}

/// A reference as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The label.
    pub label: &'a str,
    /// What follows the `#`. Only if it is empty or begins with `/`, it is a pointer.
    pub pointer: &'a str,
}

impl<'a> Reference<'a> {
    /// Reads a value that has the form of one: an object with the one key `$ref` whose text begins with a label and a `#`.
    pub fn of(value: &'a Value) -> Option<Self> {
        let fields = value.as_object().filter(|fields| fields.len() == 1)?;
        Self::in_text(fields.get(REF)?.as_str()?)
    }

    /// Reads LABEL`#`POINTER.
    pub fn in_text(text: &'a str) -> Option<Self> {
        let (label, pointer) = text.split_once('#')?;
        is_label(label).then_some(Self { label, pointer })
    }

    /// Whether what follows the `#` is a pointer.
    pub fn has_pointer(&self) -> bool {
        self.pointer.is_empty() || self.pointer.starts_with('/')
    }

    /// The number that the pointer begins with, and what follows it.
    pub fn index(&self) -> Option<(usize, &'a str)> {
        let rest = self.pointer.strip_prefix('/')?;
        let (first, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some((index_in(first)?, rest))
    }
}

/// Whether a text can be a label: 1 to 64 letters, digits, `_` or `-`.
pub fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=LABEL_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// Hands every reference in a value to `each`, in order.
pub fn for_each_in<'a>(value: &'a Value, each: &mut dyn FnMut(Reference<'a>)) {
    match (Reference::of(value), value) {
        (Some(reference), _) => each(reference),
        (None, Value::Array(items)) => items.iter().for_each(|item| for_each_in(item, each)),
        (None, Value::Object(fields)) => fields.values().for_each(|field| for_each_in(field, each)),
        (None, _) => {}
    }
}

/// Fills every reference in one pass, and answers how many bytes were filled in. `bound` knows what a label stands for, given
/// the number that the pointer begins with; labels that it does not know are literal text.
///
/// # Errors
/// `unresolved_reference`, with the reference and the fields that were there, when a pointer points at nothing; `too_large`
/// when what comes out has more than [`FILLED_MAX`] bytes filled in or more than [`DEPTH_MAX`] levels.
pub fn fill(input: &Value, bound: &dyn Fn(&str, Option<usize>) -> Option<Bound>) -> Result<(Value, usize), CallError> {
    let mut left = FILLED_IN_PLAN_MAX;
    let filled = fill_within(&mut left, input, bound)?;
    Ok((filled, FILLED_IN_PLAN_MAX - left))
}

/// The same for one of many inputs of a plan, which leave `left` bytes for it. Nothing is copied that is more than that. What
/// was looked at counts, though it turned out to be too much: else a thousand calls could each have it looked at again.
///
/// # Errors
/// As for [`fill`].
pub fn fill_within(
    left: &mut usize,
    input: &Value,
    bound: &dyn Fn(&str, Option<usize>) -> Option<Bound>,
) -> Result<Value, CallError> {
    let mut filling = Filling { bound, bytes: 0, max: FILLED_MAX.min(*left) };
    let filled = filling.value(input, 0);
    *left = left.saturating_sub(filling.bytes);
    filled
}

struct Filling<'a> {
    bound: &'a dyn Fn(&str, Option<usize>) -> Option<Bound>,
    bytes: usize,
    max: usize,
}

impl Filling<'_> {
    fn value(&mut self, input: &Value, depth: usize) -> Result<Value, CallError> {
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if let Some(reference) = Reference::of(input).filter(Reference::has_pointer)
            && let Some(bound) = (self.bound)(reference.label, reference.index().map(|(index, _)| index))
        {
            return self.reference(reference, &bound, depth);
        }
        Ok(match input {
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let filled = fields.iter().map(|(name, value)| Ok((name.clone(), self.value(value, depth + 1)?)));
                Value::Object(filled.collect::<Result<Map<_, _>, CallError>>()?)
            }
            other => other.clone(),
        })
    }

    fn reference(&mut self, reference: Reference<'_>, bound: &Bound, depth: usize) -> Result<Value, CallError> {
        let found = match bound {
            Bound::Whole(output) => look_up(output, reference.pointer),
            Bound::Part(Ok(output)) => look_up(output, reference.index().map_or(reference.pointer, |(_, rest)| rest)),
            Bound::Part(Err(count)) => Err(Nothing { there: format!("there are only {count} elements") }),
        };
        let found = found.map_err(|nothing| unresolved(reference, &nothing))?;
        for value in found.values() {
            match measure(value, DEPTH_MAX.saturating_sub(depth), self.max - self.bytes)? {
                Some(bytes) => self.bytes += bytes,
                None => {
                    self.bytes = self.max;
                    return Err(too_large(self.max));
                }
            }
        }
        Ok(found.to_value())
    }
}

/// What a pointer points at.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'v> {
    /// One value.
    One(&'v Value),
    /// One for every element that a `*` stands for.
    Each(Vec<Found<'v>>),
}

/// A pointer points at nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nothing {
    /// What is there instead.
    pub there: String,
}

impl<'v> Found<'v> {
    /// As a value of its own.
    pub fn to_value(&self) -> Value {
        match self {
            Self::One(value) => (*value).clone(),
            Self::Each(each) => Value::Array(each.iter().map(Self::to_value).collect()),
        }
    }

    fn values(&self) -> Vec<&'v Value> {
        match self {
            Self::One(value) => vec![value],
            Self::Each(each) => each.iter().flat_map(Self::values).collect(),
        }
    }
}

/// Follows a pointer.
///
/// # Errors
/// [`Nothing`] where it leaves the value.
pub fn look_up<'v>(value: &'v Value, pointer: &str) -> Result<Found<'v>, Nothing> {
    let Some(rest) = pointer.strip_prefix('/') else { return Ok(Found::One(value)) };
    let (first, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let name = first.replace("~1", "/").replace("~0", "~");
    let below = match value {
        Value::Object(fields) => fields.get(&name),
        Value::Array(items) if first == "*" => {
            return Ok(Found::Each(items.iter().map(|item| look_up(item, rest)).collect::<Result<_, _>>()?));
        }
        Value::Array(items) => index_in(first).and_then(|index| items.get(index)),
        _ => None,
    };
    look_up(below.ok_or_else(|| Nothing { there: format!("there is {}", described(value)) })?, rest)
}

/// As RFC 6901 writes one: no sign, no leading zero.
fn index_in(text: &str) -> Option<usize> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// About how many bytes a value is as JSON text, a text's escapes not counted; `None`: more than `max`. What is short as
/// text and long in memory counts for more, so that the copy takes about ten times as much at most.
fn measure(value: &Value, depth_max: usize, max: usize) -> Result<Option<usize>, CallError> {
    let mut open = vec![(value, 0)];
    let mut bytes = 0_usize;
    while let Some((value, depth)) = open.pop() {
        if depth > depth_max {
            return Err(too_deep());
        }
        bytes = bytes.saturating_add(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 8,
            Value::String(text) => text.len() + 8,
            Value::Array(items) => {
                // As many as these are more in any case, and need not be put on the list.
                if items.len() > max {
                    return Ok(None);
                }
                open.extend(items.iter().map(|item| (item, depth + 1)));
                8
            }
            Value::Object(fields) => {
                open.extend(fields.values().map(|field| (field, depth + 1)));
                let names = fields.keys().map(|name| name.len() + 4).sum::<usize>();
                // However few its fields are, there is room for many.
                if fields.is_empty() { 8 } else { names.max(64) }
            }
        });
        if bytes > max {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

fn too_large(max: usize) -> CallError {
    let mib = |bytes: usize| bytes / 1024 / 1024;
    let message = if max == FILLED_MAX {
        format!(
            "what its references fill in is larger than {} MiB; refer to less of it, with a pointer. Nothing was carried out",
            mib(FILLED_MAX)
        )
    } else {
        format!(
            "what the references of the plan fill in is larger than {} MiB in all; refer to less of it, with pointers. Nothing \
             was carried out",
            mib(FILLED_IN_PLAN_MAX)
        )
    };
    CallError::new(ErrorCode::TooLarge, message)
}

fn too_deep() -> CallError {
    let message = format!(
        "with its references filled its input is nested more than {DEPTH_MAX} levels deep. Nothing was carried out"
    );
    CallError::new(ErrorCode::TooLarge, message)
}

fn unresolved(reference: Reference<'_>, nothing: &Nothing) -> CallError {
    let Reference { label, pointer } = reference;
    let message = format!("`{label}#{pointer}` points at nothing: {}", nothing.there);
    CallError::new(ErrorCode::UnresolvedReference, message)
}

/// At most so many fields are named: enough to see the mistake.
const NAMES_MAX: usize = 12;

/// And of a value or a name so many bytes.
const SHOWN_MAX: usize = 64;

/// What a value is, in a few words.
pub(crate) fn described(value: &Value) -> String {
    let short = |text: &str| match text.get(..text.floor_char_boundary(SHOWN_MAX)) {
        Some(cut) if cut.len() < text.len() => format!("{cut}…"),
        _ => text.to_owned(),
    };
    match value {
        Value::Object(fields) if fields.is_empty() => "an object with no fields".to_owned(),
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().take(NAMES_MAX).map(|name| format!("`{}`", short(name))).collect();
            let more = fields.len().saturating_sub(NAMES_MAX);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("an object with {}{rest}", names.join(", "))
        }
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::String(text) => format!("the text \"{}\"", short(text)),
        other => format!("`{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bound(label: &str, index: Option<usize>) -> Option<Bound> {
        let parts = [json!({"total": 5}), json!({"total": 6})];
        match (label, index) {
            ("user", _) => {
                let user = json!({"id": 7, "names": ["a", "b"], "trick": {"$ref": "user#/id"}, "a/b": {"~": 1}});
                Some(Bound::Whole(Arc::new(user)))
            }
            ("detail", Some(index)) => {
                Some(Bound::Part(parts.get(index).map(|part| Arc::new(part.clone())).ok_or(parts.len())))
            }
            ("detail", None) => Some(Bound::Whole(Arc::new(Value::from(parts.to_vec())))),
            _ => None,
        }
    }

    #[track_caller]
    fn check(input: Value, filled: Value) {
        assert_eq!(fill(&input, &bound).map(|(filled, _)| filled), Ok(filled));
    }

    #[track_caller]
    fn check_error(input: &Value, code: ErrorCode, message: &str) {
        let error = fill(input, &bound).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }

    #[test]
    fn a_reference_becomes_the_value_it_points_at() {
        check(json!({"id": {"$ref": "user#/id"}}), json!({"id": 7}));
        check(json!([{"$ref": "user#/names/1"}]), json!(["b"]));
        check(json!({"$ref": "user#/names"}), json!(["a", "b"]));
        check(json!({"$ref": "user#/a~1b/~0"}), json!(1));
        check(json!({"$ref": "detail#/1/total"}), json!(6));
        check(json!({"$ref": "detail#"}), json!([{"total": 5}, {"total": 6}]));
        check(json!({"$ref": "detail#/*/total"}), json!([5, 6]));
    }

    #[test]
    fn anything_else_is_literal() {
        for literal in [
            json!({"$ref": "other#/id"}),
            json!({"$ref": "user"}),
            json!({"$ref": "user#/id", "x": 1}),
            json!({"$ref": "#/definitions/x"}),
            json!({"$ref": "a.json#/x"}),
            json!({"$ref": 5}),
        ] {
            check(literal.clone(), literal);
        }
    }

    #[test]
    fn filled_values_are_not_scanned() {
        check(json!({"$ref": "user#/trick"}), json!({"$ref": "user#/id"}));
    }

    #[test]
    fn a_pointer_at_nothing_says_what_is_there() {
        let check = |text: &str, there: &str| {
            let message = format!("`{text}` points at nothing: {there}");
            check_error(&json!({"x": {"$ref": text}}), ErrorCode::UnresolvedReference, &message);
        };
        check("user#/nope", "there is an object with `a/b`, `id`, `names`, `trick`");
        check("user#/names/01", "there is an array of 2");
        check("user#/id/x", "there is `7`");
        check("detail#/2", "there are only 2 elements");
        check("detail#/*/nope", "there is an object with `total`");
    }

    #[test]
    fn what_is_filled_in_has_bounds() {
        let big = Arc::new(Value::String("x".repeat(FILLED_MAX / 2)));
        let bound = |_: &str, _: Option<usize>| Some(Bound::Whole(Arc::clone(&big)));
        let twice = |count: usize| fill(&json!(vec![json!({"$ref": "big#"}); count]), &bound).map(|(_, bytes)| bytes);
        assert_eq!(twice(1), Ok(FILLED_MAX / 2 + 8));
        assert_eq!(twice(2).unwrap_err().code, ErrorCode::TooLarge);
        let deep = Arc::new((0..DEPTH_MAX).fold(Value::Null, |inner, _| json!([inner])));
        let bound = |_: &str, _: Option<usize>| Some(Bound::Whole(Arc::clone(&deep)));
        assert!(fill(&json!({"$ref": "deep#"}), &bound).is_ok());
        assert_eq!(fill(&json!([{"$ref": "deep#"}]), &bound).unwrap_err().code, ErrorCode::TooLarge);
    }
}
