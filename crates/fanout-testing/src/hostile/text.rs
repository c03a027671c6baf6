//! Hostile JSON from a seed: odd pointers, references everywhere, deep nesting, huge arrays, keys twice, numbers out of range.
//!
//! It is made as text, since a value cannot hold all of that. Some of it is no JSON at all.

use crate::seed::Rng;

/// Texts, as JSON spells them.
const TEXTS: [&str; 14] = [
    r#""""#,
    r#""a""#,
    r#""$ref""#,
    r#""c0#/a""#,
    r#""\u0000""#,
    r#""\ud834\udd1e""#,
    r#""\ud800""#,
    r#""é""#,
    r##""#""##,
    r#""item#""#,
    r##""c0#""##,
    r#""~1""#,
    r#""../../..""#,
    r#""\\\"\n""#,
];

const NUMBERS: [&str; 12] = [
    "0",
    "-0",
    "1",
    "-1",
    "0.1",
    "1e400",
    "1E-400",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "1e308",
    "00",
];

const POINTERS: [&str; 25] = [
    "",
    "",
    "",
    "/a",
    "/a",
    "/items",
    "/items/0",
    "/0",
    "/1",
    "/1/a",
    "/a/b",
    "/",
    "//",
    "/00",
    "/-1",
    "/*",
    "/*/a",
    "/*/*",
    "/~0",
    "/~1",
    "/~",
    "/é",
    "/18446744073709551616",
    "x",
    "/$ref",
];

const KEYS: [&str; 12] = ["a", "a", "b", "items", "items", "id", "$ref", "", "~", "/", "é", "*"];

/// A text that says one JSON value, or nearly.
pub fn json_text(rng: &mut Rng, labels: &[String]) -> String {
    let mut out = String::new();
    value(rng, labels, 0, &mut out);
    out
}

/// A template, outputs, and outputs of elements, as [`fill_in`](super::fill_in) takes them.
pub fn filler_text(rng: &mut Rng) -> String {
    let labels = ["a", "b", "each", "0", "_-"].map(str::to_owned);
    let mut out = String::from("[");
    value(rng, &labels, 0, &mut out);
    out.push_str(",{");
    for (at, label) in labels.iter().take(2).enumerate() {
        out.push_str(&format!("{}\"{label}\":", if at > 0 { "," } else { "" }));
        value(rng, &labels, 0, &mut out);
    }
    // What it is called is a pointer, too: it is looked up in the template.
    out.push_str(&format!(",\"{}\":1}},{{\"each\":", word(rng, &POINTERS)));
    if rng.percent(80) {
        items(rng, &labels, 0, &mut out);
    } else {
        value(rng, &labels, 0, &mut out);
    }
    out.push_str("}]");
    out
}

/// A plan: about half of them are well formed.
pub fn plan_text(rng: &mut Rng) -> String {
    let count = if rng.percent(2) { 995 + rng.below(10) } else { 1 + rng.below(7) };
    // One mistake is enough; most plans have none on purpose.
    let wrong = if rng.percent(25) { Some(rng.below(count)) } else { None };
    let mut labels: Vec<String> = Vec::new();
    let mut calls: Vec<String> = Vec::new();
    for at in 0..count {
        calls.push(call(rng, at, &labels, wrong == Some(at)));
        labels.push(format!("c{at}"));
    }
    let mut out = format!("{{\"calls\":[{}]", calls.join(","));
    if rng.percent(30) {
        let names = (0..rng.below(4))
            .map(|_| format!("\"{}{}\"", rng.pick(&labels), word(rng, &["", "#", "#/a", "#/*/a", "#/0"])));
        let names: Vec<String> = names.collect();
        out.push_str(&format!(",\"return\":[{}]", names.join(",")));
    }
    if rng.percent(3) {
        out.push_str(&format!(",\"{}\":{}", word(rng, &["atomic", "return", "calls", "x"]), json_text(rng, &labels)));
    }
    out.push('}');
    out
}

fn call(rng: &mut Rng, at: usize, before: &[String], wrong: bool) -> String {
    let mut fields: Vec<String> =
        vec![format!("\"label\":\"c{at}\""), format!("\"tool\":\"{}\"", word(rng, &["echo", "echo", "echo", "picky"]))];
    // A reference stands for an earlier call, or for nothing at all: then it is text.
    let each = rng.percent(25);
    let mut labels: Vec<String> = before.iter().rev().take(3).cloned().collect();
    if each {
        labels.push("item".to_owned());
        fields.push(format!("\"for_each\":{}", elements(rng, before)));
    }
    fields.push(format!("\"input\":{{\"a\":{},\"items\":{}}}", calm(rng, &labels), calm(rng, &labels)));
    if !before.is_empty() && rng.percent(20) {
        fields.push(format!("\"needs\":[\"{}\"]", rng.pick(before)));
    }
    if wrong {
        let long = "x".repeat(1 << rng.below(20));
        let mistake = match rng.below(7) {
            0 => format!("\"input\":{}", json_text(rng, &labels)),
            1 => format!("\"needs\":{}", json_text(rng, &labels)),
            2 => format!("\"for_each\":{}", json_text(rng, &labels)),
            3 => format!("\"label\":\"{long}\""),
            4 => format!("\"tool\":\"{long}\""),
            5 => format!("\"{long}\":1"),
            _ => "\"input\":{\"x\":{\"$ref\":\"c999#/a\"}}".to_owned(),
        };
        fields.push(mistake);
    }
    format!("{{{}}}", fields.join(","))
}

/// What a `for_each` is over.
fn elements(rng: &mut Rng, before: &[String]) -> String {
    match rng.below(4) {
        0 if !before.is_empty() => format!("{{\"$ref\":\"{}#/items\"}}", rng.pick(before)),
        1 if !before.is_empty() => format!("{{\"$ref\":\"{}#\"}}", rng.pick(before)),
        2 => format!("[{}]", vec!["{\"a\":[1,2]}"; rng.below(40)].join(",")),
        _ => "[1,{\"a\":[]},\"x\",{\"$ref\":\"no label #/a\"}]".to_owned(),
    }
}

/// A value that a well-formed plan may hold.
fn calm(rng: &mut Rng, labels: &[String]) -> String {
    match rng.below(6) {
        0 | 1 if !labels.is_empty() => {
            // Of a call per element only some pointers make sense.
            let fits_all = ["", "", "", "/0", "/0/a", "/*/a"];
            let pointer = if rng.percent(85) { word(rng, &fits_all) } else { word(rng, &["/a", "/items", "/items/0"]) };
            format!("{{\"$ref\":\"{}#{pointer}\"}}", rng.pick(labels))
        }
        2 => format!("[{},{}]", scalar(rng), "[{\"a\":1},{\"a\":{\"$ref\":\"no label #\"}}]"),
        3 => "{\"$ref\":\"not a label#/a\"}".to_owned(),
        4 => format!("{}{}{}", "[".repeat(40), scalar(rng), "]".repeat(40)),
        _ => scalar(rng).to_owned(),
    }
}

/// A value that is always JSON.
fn scalar(rng: &mut Rng) -> &'static str {
    word(
        rng,
        &[
            "0",
            "-0",
            "null",
            "true",
            "\"\"",
            "\"\\u0000\"",
            "18446744073709551616",
            "1e308",
            "\"\\ud834\\udd1e\"",
            "{}",
            "[]",
        ],
    )
}

fn value(rng: &mut Rng, labels: &[String], depth: usize, out: &mut String) {
    // Every level down makes it likelier to end there.
    match if depth > 6 { rng.below(3) } else { rng.below(12) } {
        0 => out.push_str(word(rng, &["null", "true", "false"])),
        // Most of what is no JSON would end the case at once.
        1 => out.push_str(if rng.percent(2) { word(rng, &NUMBERS) } else { word(rng, &NUMBERS[..5]) }),
        2 => out.push_str(if rng.percent(2) { word(rng, &TEXTS) } else { word(rng, &TEXTS[..6]) }),
        3..=5 => reference(rng, labels, out),
        6 => {
            let levels = if rng.percent(10) { 90 + rng.below(45) } else { rng.below(30) };
            out.push_str(&"[".repeat(levels));
            value(rng, labels, depth + 6, out);
            out.push_str(&"]".repeat(levels));
        }
        7 if rng.percent(10) => {
            let one = word(rng, &["0", "[]", "{}", "{\"\":0}", "{\"$ref\":\"a#\"}"]);
            out.push_str(&format!("[{}]", vec![one; 1 + rng.below(3000)].join(",")));
        }
        8 | 9 => items(rng, labels, depth, out),
        _ => {
            out.push('{');
            for at in 0..rng.below(5) {
                // The same key twice is likely, and as it should be.
                out.push_str(&format!("{}\"{}\":", if at > 0 { "," } else { "" }, word(rng, &KEYS)));
                value(rng, labels, depth + 1, out);
            }
            out.push('}');
        }
    }
}

fn items(rng: &mut Rng, labels: &[String], depth: usize, out: &mut String) {
    out.push('[');
    for at in 0..rng.below(5) {
        if at > 0 {
            out.push(',');
        }
        value(rng, labels, depth + 1, out);
    }
    out.push(']');
}

fn reference(rng: &mut Rng, labels: &[String], out: &mut String) {
    let label = if labels.is_empty() || rng.percent(5) { "nobody" } else { rng.pick(labels).as_str() };
    let pointer = if rng.percent(70) { word(rng, &POINTERS[..12]) } else { word(rng, &POINTERS) };
    let text = format!("\"{label}#{pointer}\"");
    out.push_str(&match rng.below(20) {
        0 => format!("{{\"$ref\":{text},\"x\":1}}"),
        1 => format!("{{\"$ref\":1,\"$ref\":{text}}}"),
        2 => format!("{{\"$ref\":{{\"$ref\":{text}}}}}"),
        3 => format!("{{\"$ref\":\"{label}#{}\"}}", "/a".repeat(rng.below(500))),
        4 => format!("{{\"$ref\":\"{label}\"}}"),
        _ => format!("{{\"$ref\":{text}}}"),
    });
}

fn word(rng: &mut Rng, from: &[&'static str]) -> &'static str {
    from[rng.below(from.len())]
}
