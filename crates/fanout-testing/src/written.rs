//! How recorded inputs name earlier outputs, read into a tree: for a plan of the same calls, and for an oracle.
//!
//! From a [`Case`]: `"$var1.title$"` (a field of the output of `var1`), `"$var1$"` and `"$3"` (all of it), and texts in which
//! they are embedded, `"5 * $var1.Exchange Rate$"`. To tests and benches: the input with `$ref`s in their place, or filled from
//! outputs in hand. Nothing here asks the code that fills plans.
//!
//! A plan has no way to paste an output into a text, so an embedding text becomes the array of its pieces,
//! `["5 * ", {"$ref": "var1#/Exchange Rate"}]`: what is needed and when stays as it was. A name that begins or ends without its
//! `$` (one of the recorded ones does) is a text, as its edges have it.

use serde_json::{Map, Value, json};

use crate::recorded::Case;

/// An input, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// It stands for itself.
    Literal(Value),
    /// It stands for an earlier output.
    Named(Named),
    /// An array, or the pieces of a text.
    Items(Vec<Written>),
    /// An object.
    Fields(Vec<(String, Written)>),
}

/// An earlier output, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Which call of the case.
    pub call: usize,
    /// Where in its output.
    pub path: Vec<Step>,
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// An element of an array.
    Index(usize),
}

/// Puts a value where a path leads, making what is not there; arrays are filled up with `filler`. What is named there or below
/// it already stays.
pub fn put(into: &mut Value, path: &[Step], filler: &Value, value: Value) {
    let mut at = into;
    for step in path {
        at = match step {
            Step::Field(name) => {
                if !at.is_object() {
                    *at = json!({});
                }
                &mut at[name.as_str()]
            }
            Step::Index(index) => {
                if !at.is_array() {
                    *at = json!([]);
                }
                if let Value::Array(items) = &mut *at {
                    items.resize(items.len().max(index + 1), filler.clone());
                }
                &mut at[*index]
            }
        };
    }
    if at.is_null() || at == filler {
        *at = value;
    }
}

impl Written {
    /// The input of the call at this place.
    ///
    /// # Panics
    /// If it is no JSON: a case that cannot be read must not be left out.
    pub fn input(case: &Case, call: usize) -> Self {
        let input = serde_json::from_str(&case.calls[call].input).expect("a recorded input is JSON");
        Self::read(&input, case)
    }

    /// Any value that names calls of the case.
    pub fn read(value: &Value, case: &Case) -> Self {
        match value {
            Value::String(text) => in_text(text, case),
            Value::Array(items) => Self::Items(items.iter().map(|item| Self::read(item, case)).collect()),
            Value::Object(fields) => {
                Self::Fields(fields.iter().map(|(name, value)| (name.clone(), Self::read(value, case))).collect())
            }
            other => Self::Literal(other.clone()),
        }
    }

    /// What it names, in order, as often as it names it.
    pub fn named(&self) -> Vec<&Named> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Named(named) => vec![named],
            Self::Items(items) => items.iter().flat_map(Self::named).collect(),
            Self::Fields(fields) => fields.iter().flat_map(|(_, value)| value.named()).collect(),
        }
    }

    /// The same with what `named` makes of each name in its place.
    pub fn with(&self, named: &dyn Fn(&Named) -> Value) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Named(one) => named(one),
            Self::Items(items) => Value::Array(items.iter().map(|item| item.with(named)).collect()),
            Self::Fields(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), value.with(named)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// As a plan writes it.
    pub fn in_plan(&self, case: &Case) -> Value {
        self.with(&|named| json!({ "$ref": named.reference(case) }))
    }

    /// As the tool must get it.
    pub fn filled(&self, outputs: &[Value]) -> Value {
        self.with(&|named| named.of(&outputs[named.call]).clone())
    }
}

impl Named {
    /// LABEL`#`POINTER.
    pub fn reference(&self, case: &Case) -> String {
        let mut text = format!("{}#", case.calls[self.call].id);
        for step in &self.path {
            text.push('/');
            match step {
                Step::Field(name) => text.push_str(&name.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => text.push_str(&index.to_string()),
            }
        }
        text
    }

    /// What it is in this output.
    ///
    /// # Panics
    /// If there is no such thing in it.
    pub fn of<'v>(&self, output: &'v Value) -> &'v Value {
        self.path.iter().fold(output, |value, step| match (step, value) {
            (Step::Field(name), Value::Object(fields)) => fields.get(name).expect("the output has the field"),
            (Step::Index(index), Value::Array(items)) => items.get(*index).expect("the output has the element"),
            (step, value) => panic!("there is no {step:?} in {value}"),
        })
    }
}

/// The whole plan of a case, each call under its recorded id; `shown` is its `return`, if it has one.
pub fn plan(case: &Case, shown: Option<&[String]>) -> Value {
    let calls = case.calls.iter().enumerate().map(
        |(at, call)| json!({ "label": call.id, "tool": call.name, "input": Written::input(case, at).in_plan(case) }),
    );
    let mut plan = json!({ "calls": calls.collect::<Vec<Value>>() });
    if let Some(shown) = shown {
        plan["return"] = json!(shown);
    }
    plan
}

/// What the answer of a case is made of. Where that is not told, or names calls that the case has not, it is what nobody else
/// needs.
pub fn answer_of(case: &Case) -> Vec<Named> {
    let written = Written::read(&case.result, case);
    let told: Vec<Named> = written.named().into_iter().cloned().collect();
    if !told.is_empty() {
        return told;
    }
    let is_needed = |at: &usize| case.calls.iter().any(|call| call.depends_on.contains(at));
    (0..case.calls.len()).filter(|at| !is_needed(at)).map(|call| Named { call, path: Vec::new() }).collect()
}

/// A text with the names in it.
fn in_text(text: &str, case: &Case) -> Written {
    let call = |id: &str| case.calls.iter().position(|call| call.id == id);
    if let Some(call) = text.strip_prefix('$').and_then(call) {
        return Written::Named(Named { call, path: Vec::new() });
    }
    let mut pieces: Vec<Written> = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        literal.push_str(before);
        let named = after.split_once('$').and_then(|(name, after)| {
            let (id, path) = name.split_once('.').unwrap_or((name, ""));
            Some((Named { call: call(id)?, path: steps(path) }, after))
        });
        match named {
            Some((named, after)) => {
                if !literal.is_empty() {
                    pieces.push(Written::Literal(Value::from(std::mem::take(&mut literal))));
                }
                pieces.push(Written::Named(named));
                rest = after;
            }
            None => {
                literal.push('$');
                rest = after;
            }
        }
    }
    literal.push_str(rest);
    match pieces.pop() {
        None => Written::Literal(Value::from(literal)),
        Some(only) if pieces.is_empty() && literal.is_empty() => only,
        Some(last) => {
            pieces.push(last);
            if !literal.is_empty() {
                pieces.push(Written::Literal(Value::from(literal)));
            }
            Written::Items(pieces)
        }
    }
}

/// `author[0].id`: a field, an element, a field.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Field(name.to_owned()));
        steps.extend(indexes.split(['[', ']']).filter_map(|index| index.parse().ok()).map(Step::Index));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::Recorded;

    fn case() -> Case {
        let call = |id: &str| Recorded {
            id: id.to_owned(),
            name: "tool".to_owned(),
            input: "{}".to_owned(),
            depends_on: Vec::new(),
            conflicts_with: None,
            reads: Vec::new(),
            writes: Vec::new(),
        };
        Case { id: "case".to_owned(), calls: ["var1", "var2", "3"].map(call).to_vec(), result: Value::Null }
    }

    #[track_caller]
    fn check(text: &str, in_plan: Value) {
        let case = case();
        assert_eq!(Written::read(&Value::from(text), &case).in_plan(&case), in_plan, "{text}");
    }

    #[test]
    fn a_text_that_is_a_name_is_a_reference() {
        check("$var1$", json!({"$ref": "var1#"}));
        check("$3", json!({"$ref": "3#"}));
        check("$var2.location.name$", json!({"$ref": "var2#/location/name"}));
        check("$var2.author[0].id$", json!({"$ref": "var2#/author/0/id"}));
        check("$var2.a/b$", json!({"$ref": "var2#/a~1b"}));
    }

    #[test]
    fn a_text_with_names_in_it_is_the_array_of_its_pieces() {
        check("5 * $var1.Exchange Rate$", json!(["5 * ", {"$ref": "var1#/Exchange Rate"}]));
        check("$var1.a$ - $var2.b$", json!([{"$ref": "var1#/a"}, " - ", {"$ref": "var2#/b"}]));
        check("see $var1$ with John", json!(["see ", {"$ref": "var1#"}, " with John"]));
    }

    #[test]
    fn any_other_text_is_itself() {
        for text in ["var1.product_id$", "$5 and $6", "$var9.x$", "$", ""] {
            check(text, Value::from(text));
        }
    }
}
