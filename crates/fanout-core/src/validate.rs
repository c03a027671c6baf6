//! Whether an input is what a tool's schema asks for.
//!
//! From [`toolbox`](crate::toolbox), once a tool, and from [`run`](crate::run), once a call.
//! To the model, if not: every field that is wrong and the reason, so that its next try can be right.

use serde_json::Value;

use crate::outcome::{CallError, ErrorCode};

/// A schema that is ready to check inputs.
#[derive(Debug)]
pub struct InputSchema(jsonschema::Validator);

/// At most so many mistakes are named in one answer: a model mends a few at a time.
const MISTAKES_MAX: usize = 8;

impl InputSchema {
    /// Reads a JSON Schema. Remote references are not fetched.
    ///
    /// # Errors
    /// A sentence about what is wrong with the schema.
    pub fn new(schema: &Value) -> Result<Self, String> {
        jsonschema::validator_for(schema).map(Self).map_err(|error| error.to_string())
    }

    /// Checks an input.
    ///
    /// # Errors
    /// `invalid_input` that names each field with the reason.
    pub fn check(&self, tool: &str, input: &Value) -> Result<(), CallError> {
        if self.0.is_valid(input) {
            return Ok(());
        }
        let mut mistakes: Vec<String> = Vec::new();
        let mut more = 0;
        for error in self.0.iter_errors(input) {
            if mistakes.len() == MISTAKES_MAX {
                more += 1;
                continue;
            }
            let place = error.instance_path().to_string();
            let field = if place.is_empty() { "the input".to_owned() } else { format!("`{place}`") };
            mistakes.push(format!("{field}: {error}"));
        }
        let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
        let message = format!("the input does not fit the schema of `{tool}`: {}{rest}", mistakes.join("; "));
        Err(CallError::new(ErrorCode::InvalidInput, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_field_is_named_with_the_reason() {
        let schema = json!({"type": "object", "properties": {"ms": {"type": "integer"}}, "required": ["ms"]});
        let schema = InputSchema::new(&schema).unwrap();
        assert_eq!(schema.check("sleep", &json!({"ms": 5})), Ok(()));
        let error = |input: &Value| schema.check("sleep", input).unwrap_err().message;
        assert_eq!(
            error(&json!({"ms": "abc"})),
            "the input does not fit the schema of `sleep`: `/ms`: \"abc\" is not of type \"integer\""
        );
        assert_eq!(
            error(&json!({})),
            "the input does not fit the schema of `sleep`: the input: \"ms\" is a required property"
        );
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        assert!(InputSchema::new(&json!({"type": "objekt"})).is_err());
    }
}
