//! Filling a second time, in the plainest way, without bounds.

use serde_json::{Map, Value};

/// What the template is with all its references filled; `None` if one of them points at nothing.
pub(super) fn fill(template: &Value, whole: &Map<String, Value>, each: &Map<String, Value>) -> Option<Value> {
    if let Some((label, pointer)) = reference(template) {
        if let Some(output) = whole.get(label) {
            return look_up(output, pointer);
        }
        if let Some(all) = each.get(label) {
            return of_each(all, pointer);
        }
    }
    Some(match template {
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, whole, each)).collect::<Option<_>>()?),
        Value::Object(fields) => {
            let mut filled = Map::new();
            for (name, value) in fields {
                filled.insert(name.clone(), fill(value, whole, each)?);
            }
            Value::Object(filled)
        }
        other => other.clone(),
    })
}

/// Where a number comes first it is an element's, and anything but an array has none; else all elements are meant.
fn of_each(all: &Value, pointer: &str) -> Option<Value> {
    let first = pointer.split('/').nth(1);
    match first.and_then(number) {
        Some(index) => {
            let item = all.as_array()?.get(index)?;
            let rest = pointer.splitn(3, '/').nth(2);
            look_up(item, &rest.map(|rest| format!("/{rest}")).unwrap_or_default())
        }
        None => look_up(all, pointer),
    }
}

fn reference(value: &Value) -> Option<(&str, &str)> {
    let fields = value.as_object()?;
    let text = fields.get("$ref")?.as_str()?;
    let (label, pointer) = (&text[..text.find('#')?], &text[text.find('#')? + 1..]);
    let is_label = label.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
    let fits = fields.len() == 1 && is_label && !label.is_empty() && label.len() <= 64;
    (fits && (pointer.is_empty() || pointer.starts_with('/'))).then_some((label, pointer))
}

/// What a pointer points at. What does not begin with `/` is all of it.
pub(super) fn look_up(value: &Value, pointer: &str) -> Option<Value> {
    if !pointer.starts_with('/') {
        return Some(value.clone());
    }
    let steps: Vec<&str> = pointer.split('/').skip(1).collect();
    follow(value, &steps)
}

fn follow(value: &Value, steps: &[&str]) -> Option<Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value.clone()) };
    match value {
        Value::Object(fields) => follow(fields.get(&step.replace("~1", "/").replace("~0", "~"))?, rest),
        Value::Array(items) if *step == "*" => {
            Some(Value::Array(items.iter().map(|item| follow(item, rest)).collect::<Option<_>>()?))
        }
        Value::Array(items) => follow(items.get(number(step)?)?, rest),
        _ => None,
    }
}

fn number(text: &str) -> Option<usize> {
    let number: usize = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// How many levels stand above the lowest value.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 1 + depth(item)).max().unwrap_or_default(),
        Value::Object(fields) => fields.values().map(|field| 1 + depth(field)).max().unwrap_or_default(),
        _ => 0,
    }
}
