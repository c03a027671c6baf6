//! What the model is told of `plan`: short, with two examples made of the tools at hand.
//!
//! From a toolbox that has all its other tools. To the description and the schema of one more.

use serde_json::{Map, Value, json};

use super::{CALLS_MAX, PLAN};
use crate::tool::ToolSpec;

/// At most so many fields of a tool stand in an example.
const FIELDS_MAX: usize = 3;

/// What the model reads. The examples name real tools, so that it sees what a call of them looks like here.
pub(crate) fn description(tools: &[&ToolSpec]) -> String {
    let mut text = format!(
        "Run several calls that depend on each other in one step, instead of one turn after another. Give every call a label; \
         wherever an input needs the output of an earlier call, put {{\"$ref\": \"LABEL#/json/pointer\"}} in its place (`LABEL#` is \
         the whole output). Calls run in parallel as far as their references and effects allow.\n\
         - `for_each`: an array, or a reference to one: one call per element, which is `item#/…` in its `input`. `LABEL#` is \
         then the array of outputs, `LABEL#/0/id` a part of one, `LABEL#/*/id` that part of each.\n\
         - `needs`: labels of earlier calls that must succeed first, where no reference says so.\n\
         - `return`: what you want to see, as `LABEL` or `LABEL#/pointer`; name only what you need. Failures are always \
         shown. Without it you see everything.\n\
         - `atomic`: true to have all calls take effect or none; SQL tools of one database only.\n\
         A call can only refer to calls before it. A failed call fails those that use its output, and no others. At most \
         {CALLS_MAX} calls."
    );
    for example in examples(tools) {
        text.push_str("\nExample: ");
        text.push_str(&example);
    }
    text
}

/// The JSON Schema of a plan.
pub(crate) fn schema(tools: &[&ToolSpec]) -> Value {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).filter(|name| *name != PLAN).collect();
    let label = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" });
    json!({
        "type": "object",
        "properties": {
            "calls": {
                "type": "array",
                "minItems": 1,
                "maxItems": CALLS_MAX,
                "items": {
                    "type": "object",
                    "properties": {
                        "label": label,
                        "tool": { "type": "string", "enum": names },
                        "input": { "type": "object", "description": "what the tool takes; {\"$ref\": \"LABEL#/pointer\"} stands for a value" },
                        "for_each": { "description": "an array, or {\"$ref\": \"LABEL#/pointer\"} to one: one call per element" },
                        "needs": { "type": "array", "items": label },
                    },
                    "required": ["label", "tool", "input"],
                    "additionalProperties": false,
                },
            },
            "return": { "type": "array", "items": { "type": "string" } },
            "atomic": { "type": "boolean" },
        },
        "required": ["calls"],
        "additionalProperties": false,
    })
}

/// Two plans: an output that fills an input, and a call for each element of an output.
fn examples(tools: &[&ToolSpec]) -> Vec<String> {
    let tools: Vec<&&ToolSpec> = tools.iter().filter(|tool| tool.name.as_str() != PLAN).collect();
    let field = |tool: &ToolSpec| required(&tool.input_schema).into_iter().next();
    let reads = |tool: &&&&ToolSpec| tool.repeatable();
    let Some(first) = tools.iter().find(reads).or(tools.first()) else { return Vec::new() };
    let others = || tools.iter().filter(|tool| tool.name != first.name && field(tool).is_some());
    // A reader and then a writer say most; where there are none, what there is.
    let Some(second) = others().find(|tool| !tool.repeatable()).or(others().next()) else { return Vec::new() };
    let Some(into) = field(second) else { return Vec::new() };
    let filled = |reference: &str| {
        let mut input = example(&second.input_schema);
        input.insert(into.clone(), json!({ "$ref": reference }));
        Value::Object(input)
    };
    let source = printed(&[
        ("label", json!("a")),
        ("tool", json!(first.name.as_str())),
        ("input", Value::Object(example(&first.input_schema))),
    ]);
    // What a statement comes to is known; of others it is a guess, which shows the form.
    let (list, element) = if first.source.names_rows() { ("/rows", "/rows/0") } else { ("/items", "") };
    let tool = json!(second.name.as_str());
    let one = format!("a#{element}/{into}");
    let one = printed(&[("label", json!("b")), ("tool", tool.clone()), ("input", filled(&one))]);
    let each = printed(&[
        ("label", json!("b")),
        ("tool", tool),
        ("for_each", json!({ "$ref": format!("a#{list}") })),
        ("input", filled(&format!("item#/{into}"))),
    ]);
    vec![
        format!("{{\"calls\":[{source},{one}],\"return\":[\"b\"]}}"),
        format!("{{\"calls\":[{source},{each}],\"return\":[\"a#{list}/0\",\"b\"]}}"),
    ]
}

/// An object whose fields keep this order.
fn printed(fields: &[(&str, Value)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn required(schema: &Value) -> Vec<String> {
    let named = |name: &Value| name.as_str().map(str::to_owned);
    schema["required"].as_array().map(|names| names.iter().filter_map(named).collect()).unwrap_or_default()
}

/// An input that has the required fields.
fn example(schema: &Value) -> Map<String, Value> {
    let value = |name: &str| sample(&schema["properties"][name]);
    required(schema).into_iter().take(FIELDS_MAX).map(|name| (name.clone(), value(&name))).collect()
}

fn sample(schema: &Value) -> Value {
    let given = schema.get("default").or_else(|| schema["examples"].get(0)).or_else(|| schema["enum"].get(0));
    if let Some(given) = given.or_else(|| schema.get("const")) {
        return given.clone();
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::Source;

    fn tool(name: &str, field: &str, kind: &str, reads: bool) -> ToolSpec {
        let mut spec = ToolSpec::new(name, Source::function());
        spec.input_schema = json!({"type": "object", "properties": {field: {"type": kind}}, "required": [field]});
        spec.safe = reads;
        spec
    }

    #[test]
    fn the_examples_are_plans_of_the_tools_at_hand() {
        let (get, charge) = (tool("get_order", "id", "integer", true), tool("charge", "amount", "integer", false));
        let text = description(&[&charge, &get]);
        let examples: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Example: ")).collect();
        assert_eq!(
            examples,
            [
                r##"{"calls":[{"label":"a","tool":"get_order","input":{"id":1}},{"label":"b","tool":"charge","input":{"amount":{"$ref":"a#/amount"}}}],"return":["b"]}"##,
                r##"{"calls":[{"label":"a","tool":"get_order","input":{"id":1}},{"label":"b","tool":"charge","for_each":{"$ref":"a#/items"},"input":{"amount":{"$ref":"item#/amount"}}}],"return":["a#/items/0","b"]}"##,
            ]
        );
        assert_eq!(
            schema(&[&charge, &get])["properties"]["calls"]["items"]["properties"]["tool"]["enum"],
            json!(["charge", "get_order"])
        );
    }

    #[test]
    fn what_a_statement_comes_to_is_a_list_of_rows() {
        let sql =
            |name: &str, reads: bool| ToolSpec { source: Source::sql("shop"), ..tool(name, "sku", "string", reads) };
        let text = description(&[&sql("get_stock", true), &sql("take", false)]);
        assert!(text.contains(r##"{"$ref":"a#/rows/0/sku"}"##) && text.contains(r##"{"$ref":"a#/rows"}"##), "{text}");
        assert!(text.contains(r##"["a#/rows/0","b"]"##), "{text}");
    }

    #[test]
    fn without_tools_that_fit_there_is_no_example_and_still_a_description() {
        assert!(!description(&[]).contains("Example"));
        assert!(!description(&[&tool("only", "id", "string", true)]).contains("Example"));
    }
}
