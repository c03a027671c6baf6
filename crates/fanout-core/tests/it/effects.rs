//! What a template makes of an input that grows better known: effects only ever shrink.

use fanout_core::effects::{EffectsSpec, Mode, Paths, Source, Template};
use fanout_testing::seed::{Rng, each_seed};
use fanout_testing::touches::covers;
use serde_json::{Value, json};

const TEMPLATES: [&str; 12] = [
    "orders/{id}",
    "orders/{id}/items",
    "{id}",
    "{id}/{ids}",
    "users/u-{id}",
    "{id}-{ids}",
    "stock/{ids}/{id}",
    "file/{path...}",
    "file/{path...}/*",
    "{path...}",
    "orders/{order.id}/*",
    "all/*",
];

/// A value of a kind that inputs hold, `$ref`s not yet filled among them.
fn value(rng: &mut Rng, depth: usize) -> Value {
    match rng.below(if depth == 0 { 8 } else { 10 }) {
        0 => json!(rng.below(5)),
        1 => json!(rng.below(5) as f64 / 2.0),
        2 => json!(*rng.pick(&["7", "*", "a/b", "..", "", "/etc/*", "src/../x", "%2F", "a/*"])),
        3 => json!(rng.percent(50)),
        4 => Value::Null,
        5 | 6 => json!({"$ref": "a#/b"}),
        7 => json!({"id": rng.below(3)}),
        _ => Value::Array((0..rng.below(4)).map(|_| value(rng, depth - 1)).collect()),
    }
}

/// The same with every reference filled.
fn filled(rng: &mut Rng, input: &Value) -> Value {
    match input {
        Value::Object(fields) if fields.contains_key("$ref") => value(rng, 1),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), filled(rng, value))).collect(),
        Value::Array(items) => items.iter().map(|item| filled(rng, item)).collect(),
        other => other.clone(),
    }
}

#[test]
fn a_filled_reference_never_widens_what_a_call_touches() {
    each_seed(500, |seed| {
        let mut rng = Rng::new(seed);
        let mut templates = || {
            (0..rng.below(3))
                .map(|_| Template::parse(TEMPLATES[rng.below(TEMPLATES.len())]).unwrap())
                .collect::<Vec<_>>()
        };
        let spec = EffectsSpec { reads: Some(templates()), writes: Some(templates()), ..EffectsSpec::default() };
        let paths = Paths { root: rng.percent(50).then(|| "/w/repo".to_owned()) };
        let known = json!({"id": value(&mut rng, 2), "ids": value(&mut rng, 2), "path": value(&mut rng, 1), "order": value(&mut rng, 1)});
        let better = filled(&mut rng, &known);
        let (wide, narrow) =
            (spec.resolve(&Source::function(), &known, &paths), spec.resolve(&Source::function(), &better, &paths));
        for access in &narrow.accesses {
            let covered = wide.accesses.iter().any(|before| {
                covers(before.key.as_str(), access.key.as_str())
                    && (before.mode == Mode::Write || access.mode == Mode::Read)
            });
            assert!(covered, "{access:?} of {better} is not within {:?} of {known}", wide.accesses);
        }
    });
}
