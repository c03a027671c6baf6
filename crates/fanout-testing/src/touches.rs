//! What a generated call touches, and the oracle's own word on which calls clash.
//!
//! From a generator or a recorded graph. To [`stage`](crate::stage) as the core's effects, and to the judges as pairs.
//! The overlap test here knows only the rules' text: it splits keys anew each time.

use fanout_core::effects::{Access, Effects, EffectsSpec, Key, Mode, Origin, Paths, Source, Template};
use serde_json::json;

use crate::seed::Rng;

/// One key that a call touches.
#[derive(Clone, Debug, PartialEq)]
pub struct Touch {
    /// The key's text, `orders/7` or `orders/*`.
    pub key: String,
    /// It writes; else it reads.
    pub write: bool,
    /// The author says so; else the source infers it.
    pub declared: bool,
}

/// All that one call touches.
#[derive(Clone, Debug, PartialEq)]
pub struct Touches {
    /// The tool's source.
    pub source: String,
    /// Whether the tool's writes are declared.
    pub declared: bool,
    /// The keys.
    pub keys: Vec<Touch>,
}

/// The sources of generated tools. Inferred keys of the SQL ones exclude between runs too.
const SOURCES: [&str; 4] = ["function", "http/shop.test", "sql/a", "sql/b"];

/// The keys of generated calls: few and deep, so that they meet often and at every level.
const KEYS: [&str; 16] = [
    "a", "a/1", "a/2", "a/1/x", "a/1/y", "a/1/x/p", "a/*", "a/1/*", "a/1/x/*", "b", "b/1", "b/2", "b/*", "ab/1", "c/1",
    "*",
];

impl Touches {
    /// A call that touches nothing, by its author's word.
    pub fn nothing() -> Self {
        Self { source: "function".to_owned(), declared: true, keys: Vec::new() }
    }

    /// Random keys: mostly one or two, now and then all there is.
    pub fn random(rng: &mut Rng) -> Self {
        let source = (*rng.pick(&SOURCES)).to_owned();
        let declared = rng.percent(60);
        let mut keys = Vec::new();
        for _ in 0..rng.below(4) {
            let star = rng.percent(97);
            let key = if star { *rng.pick(&KEYS[..15]) } else { "*" };
            // An undeclared tool may still have declared what it reads.
            let (write, by_author) = (rng.percent(45), rng.percent(if declared { 80 } else { 20 }));
            keys.push(Touch { key: key.to_owned(), write, declared: by_author && (declared || !write) });
        }
        if rng.percent(if declared { 30 } else { 70 }) {
            keys.push(Touch { key: source.clone(), write: rng.percent(60), declared: false });
        }
        Self { source, declared, keys }
    }

    /// The same with some keys cut, as they stand before a reference is filled.
    #[must_use]
    pub fn widened(&self, rng: &mut Rng) -> Self {
        let mut wide = self.clone();
        for touch in &mut wide.keys {
            if rng.percent(60) {
                let parts: Vec<&str> =
                    touch.key.trim_end_matches('*').split('/').filter(|part| !part.is_empty()).collect();
                let kept = rng.below(parts.len() + 1);
                touch.key = parts[..kept].iter().map(|part| format!("{part}/")).collect::<String>() + "*";
            }
        }
        if rng.percent(20) {
            // What turns out to be an empty array.
            wide.keys.push(Touch {
                key: (*rng.pick(&KEYS)).to_owned(),
                write: rng.percent(50),
                declared: self.declared,
            });
        }
        wide
    }

    /// As the core has it.
    ///
    /// # Panics
    /// On a key that is no template.
    pub fn effects(&self) -> Effects {
        let access = |touch: &Touch| Access {
            key: key(&touch.key),
            mode: if touch.write { Mode::Write } else { Mode::Read },
            origin: if touch.declared { Origin::Declared } else { Origin::Inferred },
        };
        Effects {
            source: Source::from(self.source.as_str()),
            declared: self.declared,
            accesses: self.keys.iter().map(access).collect(),
        }
    }

    /// Whether two calls may not overlap in one batch, by the rules' text.
    pub fn clash(&self, other: &Self) -> bool {
        self.keys.iter().any(|mine| {
            other.keys.iter().any(|theirs| {
                let comparable = if self.source != other.source {
                    true
                } else if self.declared && other.declared {
                    mine.declared && theirs.declared
                } else {
                    !mine.declared && !theirs.declared
                };
                comparable && (mine.write || theirs.write) && overlap(&mine.key, &theirs.key)
            })
        })
    }

    /// The part that excludes calls of other runs: declared keys, and all of SQL's.
    #[must_use]
    pub fn between_runs(&self) -> Self {
        let kept = self.keys.iter().filter(|touch| touch.declared || self.source.starts_with("sql/"));
        Self { keys: kept.cloned().collect(), ..self.clone() }
    }

    /// Whether it writes nothing, by the author's word if there is one.
    pub fn only_reads(&self) -> bool {
        !self.keys.iter().any(|touch| touch.write && touch.declared == self.declared)
    }
}

/// The core's key of this text.
///
/// # Panics
/// On a text that is no template.
pub fn key(text: &str) -> Key {
    let template = Template::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let spec = EffectsSpec { inferred_reads: vec![template], ..EffectsSpec::default() };
    spec.resolve(&Source::function(), &json!({}), &Paths::default()).accesses[0].key.clone()
}

/// Whether two keys overlap: equal, or one ends in `/*` above the other.
pub fn overlap(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// Whether the first key is the second, or ends in `/*` above it.
pub fn covers(high: &str, low: &str) -> bool {
    let (high_parts, low_parts): (Vec<&str>, Vec<&str>) = (high.split('/').collect(), low.split('/').collect());
    match high_parts.split_last() {
        Some((&"*", path)) => low_parts.strip_suffix(&["*"]).unwrap_or(&low_parts).starts_with(path),
        _ => high == low,
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn the_oracle_reads_the_rules_as_they_are_written() {
        for (a, b, meet) in [
            ("orders/7", "orders/7", true),
            ("orders/7", "orders/8", false),
            ("orders/*", "orders/7/items", true),
            ("orders/*", "orders", true),
            ("orders/*", "orders/*", true),
            ("orders/7/*", "orders/*", true),
            ("orders/7/*", "orders/8/*", false),
            ("orders", "orders/7", false),
            ("*", "anything", true),
            ("*", "*", true),
            ("a/*", "ab/1", false),
        ] {
            assert_eq!(overlap(a, b), meet, "{a} and {b}");
            assert_eq!(overlap(b, a), meet, "{b} and {a}");
        }
    }
}
