//! What hostile plans and outputs must not do, whoever thinks them up: a fuzzer, or a seed.
//!
//! From `fuzz/` (bytes that a fuzzer found) and from seeded tests (`text.rs`: JSON that is hostile from the start). To the parser of
//! plans and to the filler. Each function here panics if a promise is broken; what it answers says whether the case reached far.

mod oracle;
mod text;

pub use text::{filler_text, json_text, plan_text};

use std::sync::{Arc, LazyLock};

use fanout_core::effects::{EffectsSpec, KEYS_MAX, Paths, Source, Template};
use fanout_core::outcome::{ErrorCode, Output};
use fanout_core::plan::{CALLS_MAX, Each, Plan};
use fanout_core::reference::{Bound, DEPTH_MAX, FILLED_MAX, fill, look_up};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use serde_json::{Map, Value, json};

/// No error is longer than this, whatever was sent: it goes back to the model.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// A tool that answers with its input, and touches what it says.
#[derive(Debug)]
pub struct Echo(&'static str, Value);

impl Echo {
    /// A tool of this name that takes any object.
    pub fn new(name: &'static str) -> Self {
        Self(name, json!({ "type": "object" }))
    }
}

impl Tool for Echo {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.0, Source::from("hostile"));
        let template = |text: &str| Template::parse(text).into_iter().collect::<Vec<_>>();
        let reads = Some([template("a/{a}"), template("b/{items}"), template("c/{x.y...}")].concat());
        spec.effects = EffectsSpec { reads, writes: Some(Vec::new()), ..EffectsSpec::default() };
        spec.input_schema = self.1.clone();
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        Box::pin(async move { Ok(Output::json((*attempt.input).clone())) })
    }
}

/// The tools that hostile plans may name, and `plan`.
///
/// # Panics
/// Never, as long as they fit into one box.
pub fn toolbox() -> Toolbox {
    let mut toolbox = Toolbox::new();
    toolbox.add(Echo::new("echo")).expect("a tool");
    toolbox.add(Echo("picky", json!({ "type": "object", "required": ["a"] }))).expect("a tool");
    toolbox.add_plan(RESULT_MAX).expect("a tool");
    toolbox
}

/// About so many bytes of a plan's answer are shown.
pub const RESULT_MAX: usize = 64 * 1024;

static TOOLBOX: LazyLock<Toolbox> = LazyLock::new(toolbox);

/// Reads bytes as a plan. Answers whether they are a well-formed one.
///
/// # Panics
/// When a promise of the parser is broken.
pub fn parse(bytes: &[u8]) -> bool {
    let Ok(input) = serde_json::from_slice::<Value>(bytes) else { return false };
    let plan = match Plan::parse(&input, &TOOLBOX, &|_| true) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(matches!(error.code, ErrorCode::InvalidInput | ErrorCode::TooLarge), "{error:?}");
            assert!(!error.message.is_empty() && error.message.len() <= MESSAGE_MAX, "{} bytes", error.message.len());
            return false;
        }
    };
    assert!(!plan.atomic, "no tool here can be part of an atomic plan");
    assert!((1..=CALLS_MAX).contains(&plan.members.len()), "{} calls", plan.members.len());
    let mut labels: Vec<&str> = Vec::new();
    for (at, member) in plan.members.iter().enumerate() {
        assert!(!labels.contains(&&*member.label), "`{}` is there twice", member.label);
        labels.push(&member.label);
        let items = match &member.each {
            Some(Each::In { uses, .. }) => uses.as_slice(),
            Some(Each::With(on)) => {
                assert!(
                    *on < at && plan.members[*on].each.is_some(),
                    "`{}` pairs with what is no `for_each`",
                    member.label
                );
                &[]
            }
            None => &[],
        };
        let on = member.uses.iter().chain(items).map(|one| one.on).chain(member.needs.iter().copied());
        assert!(on.into_iter().all(|on| on < at), "`{}` waits for a later call", member.label);
    }
    let shown = plan.shown.iter().flatten();
    assert!(shown.into_iter().all(|one| one.member < plan.members.len()), "`return` names no call");
    assert!(plan.members.iter().all(|member| member.effects(&Paths::default()).accesses.len() <= KEYS_MAX));
    true
}

/// Fills a template: `[TEMPLATE, {LABEL: OUTPUT, …}, {LABEL: [OUTPUT of each element, …], …}]`. Answers whether it was filled.
///
/// # Panics
/// When a promise of the filler is broken: what it fills in is not what stands there, looks into what it filled in, is larger or
/// deeper than may be, or cannot be read again.
pub fn fill_in(bytes: &[u8]) -> bool {
    let Ok(Value::Array(parts)) = serde_json::from_slice::<Value>(bytes) else { return false };
    let [template, Value::Object(whole), Value::Object(each)] = parts.as_slice() else { return false };
    for pointer in [whole, each].into_iter().flat_map(Map::keys) {
        assert_eq!(look_up(template, pointer).ok().map(|found| found.to_value()), oracle::look_up(template, pointer));
    }
    let bound = |label: &str, index: Option<usize>| {
        if let Some(output) = whole.get(label) {
            return Some(Bound::Whole(Arc::new(output.clone())));
        }
        let all = each.get(label)?;
        let Some(index) = index else { return Some(Bound::Whole(Arc::new(all.clone()))) };
        let items = all.as_array().map(Vec::as_slice).unwrap_or_default();
        Some(Bound::Part(items.get(index).map(|item| Arc::new(item.clone())).ok_or(items.len())))
    };
    let expected = oracle::fill(template, whole, each);
    match fill(template, &bound) {
        Ok((filled, bytes)) => {
            assert_eq!(Some(&filled), expected.as_ref(), "{template}");
            assert!(bytes <= FILLED_MAX, "{bytes} bytes");
            // A text's escapes are not counted: `\u0000` is the longest.
            let (before, after) = (template.to_string().len(), filled.to_string());
            assert!(after.len() <= before + 6 * bytes, "{} bytes of {before} and {bytes}", after.len());
            assert!(oracle::depth(&filled) <= DEPTH_MAX, "{} levels", oracle::depth(&filled));
            assert!(serde_json::from_str::<Value>(&after).is_ok(), "what is filled cannot be read: {after}");
            true
        }
        Err(error) => {
            assert!(error.message.len() <= MESSAGE_MAX, "{} bytes", error.message.len());
            match error.code {
                ErrorCode::UnresolvedReference => assert_eq!(expected, None, "{template}"),
                ErrorCode::TooLarge => {
                    let is_small =
                        |value: &Value| value.to_string().len() < FILLED_MAX / 64 && oracle::depth(value) < 120;
                    assert!(!expected.as_ref().is_some_and(is_small), "{template}");
                }
                _ => panic!("{error:?}"),
            }
            false
        }
    }
}
