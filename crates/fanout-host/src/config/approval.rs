//! `approval` of a tool: whether a person has to agree before a call of it runs.
//!
//! From the section of a tool. To its [`Policy`](fanout_core::tool::Policy). Nobody is asked here.

use fanout_core::approval::{Approval, Condition, Test};
use serde_json::{Number, Value};
use toml::de::DeValue;

use super::field::{Field, Given};
use super::keys::Kind;
use super::page::Section;

/// What a condition can look for.
const TESTS: [&str; 4] = ["over", "under", "equals", "absent"];

/// `"never"`, `"always"`, or a list of conditions.
pub(super) fn read(field: &Field<'_>) -> Option<Approval> {
    let expected = || {
        field.expected("\"never\", \"always\" or conditions such as [{ if = \"/amount\", over = 100 }]");
        None
    };
    match &field.given {
        Given::Toml(DeValue::String(text)) if text == "never" => Some(Approval::Never),
        Given::Toml(DeValue::String(text)) if text == "always" => Some(Approval::Always),
        Given::Toml(DeValue::Array(conditions)) if !conditions.is_empty() => {
            let fields = conditions.iter().map(|one| Field::of_toml(field.page, &field.key, one));
            let conditions: Vec<Option<Condition>> = fields.map(|field| condition(&field)).collect();
            conditions.into_iter().collect::<Option<_>>().map(Approval::When)
        }
        _ => expected(),
    }
}

fn condition(field: &Field<'_>) -> Option<Condition> {
    let section = field.section("a condition of `approval`", Kind::Condition)?;
    let pointer = pointer(&section);
    let test = test(&section);
    section.finish();
    Some(Condition { pointer: pointer?, test: test? })
}

fn pointer(section: &Section<'_>) -> Option<String> {
    let Some(field) = section.get("if") else {
        section.page.mistake(&section.spot, format!("{} needs `if`, where to look: \"/amount\", say", section.name));
        return None;
    };
    let pointer = field.string()?;
    if !(pointer.is_empty() || pointer.starts_with('/')) {
        field.expected("a JSON pointer such as \"/amount\"");
        return None;
    }
    Some(pointer.to_owned())
}

fn test(section: &Section<'_>) -> Option<Test> {
    let mut given = TESTS.into_iter().filter_map(|key| section.get(key));
    let Some(field) = given.next() else {
        let message = format!("{} needs one of `over`, `under`, `equals` and `absent`", section.name);
        section.page.mistake(&section.spot, message);
        return None;
    };
    if let Some(second) = given.next() {
        second.mistake(format!("{} looks for one thing: `{}` or `{}`", section.name, field.key, second.key));
        return None;
    }
    match field.key.as_str() {
        "over" => number(&field).map(Test::Over),
        "under" => number(&field).map(Test::Under),
        "equals" => field.json().map(Test::Equals),
        _ => field.boolean().map(Test::Absent),
    }
}

fn number(field: &Field<'_>) -> Option<Number> {
    let number = match &field.given {
        Given::Toml(value @ (DeValue::Integer(_) | DeValue::Float(_))) => super::field::to_json(value),
        _ => None,
    };
    match number {
        Some(Value::Number(number)) => Some(number),
        _ => {
            field.expected("a number such as 100 or 0.5");
            None
        }
    }
}
