//! Whether a call needs a person's word before it runs, and what that person said.
//!
//! From a tool's [`Policy`](crate::tool::Policy): an [`Approval`], judged over the final input. To [`run`](crate::run), which
//! asks the [`Approver`] of its run and lets the call wait for the [`Decision`].
//!
//! Where questions are kept, who may answer them and how long they stay open is not known here.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde_json::{Number, Value};

use crate::call::{ApprovalId, CallId, CallerId, RunId, ToolName};
use crate::reference::Reference;
use crate::tool::BoxFuture;

/// Whether calls of a tool need a person's word before they run.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Approval {
    /// No call does.
    #[default]
    Never,
    /// Every call does.
    Always,
    /// A call does whose final input meets one of these. What cannot be judged is met.
    When(Vec<Condition>),
}

/// Something that an input may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Where to look: a JSON pointer into the input.
    pub pointer: String,
    /// What is met there.
    pub test: Test,
}

/// What a condition looks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// A number above this.
    Over(Number),
    /// A number below this.
    Under(Number),
    /// This value; numbers that are equal are, however they are spelt.
    Equals(Value),
    /// Nothing there, if `true`; anything there, if `false`.
    Absent(bool),
}

impl Approval {
    /// Whether a call with this final input needs a person's word.
    pub fn asks(&self, input: &Value) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::When(conditions) => conditions.iter().any(|condition| condition.is_met(input)),
        }
    }
}

impl Condition {
    /// Whether this input meets it. An input that it cannot be judged by does: nothing at the pointer, something else than a
    /// number to compare, a pointer that is none, or a `$ref` whose value nobody knows yet.
    fn is_met(&self, input: &Value) -> bool {
        let Found::Known(value) = look_up(input, &self.pointer) else { return true };
        let compared = |other: &Number| value.and_then(Value::as_number).and_then(|number| compare(number, other));
        match &self.test {
            Test::Absent(absent) => value.is_none() == *absent,
            Test::Over(most) => compared(most).is_none_or(Ordering::is_gt),
            Test::Under(least) => compared(least).is_none_or(Ordering::is_lt),
            Test::Equals(other) => value.is_none_or(|value| has_reference(value) || is_equal(value, other)),
        }
    }
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::Always => f.write_str("always"),
            Self::When(conditions) => {
                for (at, condition) in conditions.iter().enumerate() {
                    write!(f, "{}{condition}", if at == 0 { "if " } else { " or " })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pointer, test } = self;
        match test {
            Test::Over(most) => write!(f, "{pointer} is over {most}"),
            Test::Under(least) => write!(f, "{pointer} is under {least}"),
            Test::Equals(value) => write!(f, "{pointer} is {value}"),
            Test::Absent(true) => write!(f, "{pointer} is absent"),
            Test::Absent(false) => write!(f, "{pointer} is there"),
        }
    }
}

/// What stands at a pointer.
enum Found<'a> {
    /// This, or nothing.
    Known(Option<&'a Value>),
    /// Nobody knows yet, or the pointer is none.
    Unknown,
}

fn look_up<'a>(input: &'a Value, pointer: &str) -> Found<'a> {
    if !(pointer.is_empty() || pointer.starts_with('/')) {
        return Found::Unknown;
    }
    let mut at = input;
    for part in pointer.split('/').skip(1) {
        if Reference::of(at).is_some() {
            return Found::Unknown;
        }
        let part = part.replace("~1", "/").replace("~0", "~");
        let next = match at {
            Value::Object(fields) => fields.get(&part),
            Value::Array(elements) => part.parse().ok().and_then(|index: usize| elements.get(index)),
            _ => None,
        };
        let Some(next) = next else { return Found::Known(None) };
        at = next;
    }
    if Reference::of(at).is_some() { Found::Unknown } else { Found::Known(Some(at)) }
}

/// Whether a `$ref` stands somewhere in a value.
pub(crate) fn has_reference(value: &Value) -> bool {
    Reference::of(value).is_some()
        || match value {
            Value::Array(elements) => elements.iter().any(has_reference),
            Value::Object(fields) => fields.values().any(has_reference),
            _ => false,
        }
}

/// Whole numbers are compared as such: beyond 2^53 two that differ could be the same `f64`.
fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other).is_none_or(Ordering::is_eq),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| is_equal(one, other)))
        }
        _ => one == other,
    }
}

/// Asks people. One for each run, which knows how long it may wait for them.
pub trait Approver: Send + Sync + 'static {
    /// Asks whether this call may run. What is approved is exactly what runs.
    ///
    /// # Errors
    /// Why nobody could be asked, in words for the model; the call ends as `internal`.
    ///
    /// # Cancellation
    /// Dropping the future, or that of [`Asked::decision`], takes the question back: the call has ended otherwise.
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>>;
}

/// A call that somebody has to approve.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its run.
    pub run: RunId,
    /// Who began the run.
    pub caller: CallerId,
    /// The call; in an atomic plan the member that needs it, as `PLAN/LABEL`.
    pub call: CallId,
    /// Its tool.
    pub tool: ToolName,
    /// Its final input: references filled, fits the schema, secrets of the configuration never in it.
    pub input: Arc<Value>,
}

/// A question that stands where people see it.
pub struct Asked {
    /// Under which id.
    pub approval: ApprovalId,
    /// What comes of it. It ends by itself: when somebody decided, or when nobody did in time.
    pub decision: BoxFuture<'static, Decision>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("approval", &self.approval).finish_non_exhaustive()
    }
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The call may run.
    Approved(Said),
    /// It may not.
    Denied(Said),
    /// Nobody decided in time.
    Expired,
}

/// Who decided, and what they said to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Who, as the approver knows them.
    pub by: Option<Arc<str>>,
    /// Their words for the model.
    pub words: Option<Arc<str>>,
}

impl Decision {
    /// The word that every surface uses.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Approved(_) => "approved",
            Self::Denied(_) => "denied",
            Self::Expired => "expired",
        }
    }

    /// Who decided, and what they said, if anybody did.
    pub fn said(&self) -> Option<&Said> {
        match self {
            Self::Approved(said) | Self::Denied(said) => Some(said),
            Self::Expired => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(test: &Test, pointer: &str, input: &Value, asks: bool) {
        let condition = Condition { pointer: pointer.to_owned(), test: test.clone() };
        assert_eq!(Approval::When(vec![condition.clone()]).asks(input), asks, "{condition} of {input}");
    }

    fn over(number: impl Into<Number>) -> Test {
        Test::Over(number.into())
    }

    #[test]
    fn numbers_are_compared_as_they_are() {
        for (amount, asks) in [(99, false), (100, false), (101, true), (-5, false)] {
            check(&over(100), "/amount", &json!({ "amount": amount }), asks);
        }
        check(&over(100), "/amount", &json!({"amount": 100.01}), true);
        check(&Test::Under(0.into()), "/items/1/n", &json!({"items": [{"n": 5}, {"n": -1}]}), true);
        check(&Test::Under(0.into()), "/items/0/n", &json!({"items": [{"n": 5}, {"n": -1}]}), false);
        check(&over(9_007_199_254_740_992_u64), "/n", &json!({"n": 9_007_199_254_740_993_u64}), true);
    }

    #[test]
    fn values_are_equal_however_numbers_are_spelt() {
        check(&Test::Equals(json!("prod")), "/a~1b", &json!({"a/b": "prod"}), true);
        check(&Test::Equals(json!("prod")), "/a~1b", &json!({"a/b": "test"}), false);
        check(&Test::Equals(json!({"n": [5.0]})), "", &json!({"n": [5]}), true);
        check(&Test::Equals(json!(null)), "/x", &json!({"x": null}), true);
    }

    #[test]
    fn what_is_absent_can_be_asked_for_either_way() {
        check(&Test::Absent(true), "/limit", &json!({}), true);
        check(&Test::Absent(true), "/limit", &json!({"limit": 5}), false);
        check(&Test::Absent(false), "/force", &json!({"force": false}), true);
        check(&Test::Absent(false), "/force", &json!({}), false);
    }

    #[test]
    fn what_cannot_be_judged_asks() {
        for input in
            [json!({}), json!({"amount": "5"}), json!({"amount": null}), json!([]), json!({"amount": {"$ref": "a#/b"}})]
        {
            check(&over(100), "/amount", &input, true);
        }
        check(&over(100), "amount", &json!({"amount": 5}), true);
        check(&Test::Equals(json!({"a": 1})), "/x", &json!({"x": {"a": {"$ref": "a#"}}}), true);
        check(&Test::Equals(json!(1)), "/x/y", &json!({"x": {"$ref": "a#"}}), true);
        check(&Test::Absent(true), "/x/y", &json!({"x": {"$ref": "a#"}}), true);
    }

    #[test]
    fn one_condition_that_is_met_is_enough() {
        let when = |test| Condition { pointer: "/n".to_owned(), test };
        let approval = Approval::When(vec![when(over(100)), when(Test::Under(0.into()))]);
        let asks = |n: i64| approval.asks(&json!({ "n": n }));
        assert_eq!((asks(-1), asks(50), asks(101)), (true, false, true));
        assert_eq!(approval.to_string(), "if /n is over 100 or /n is under 0");
        assert!(Approval::Always.asks(&json!({})) && !Approval::Never.asks(&json!({})));
    }
}
