//! The arguments of a program and its standard input, with the inputs in them.
//!
//! From the tool's author: texts such as `--max={n}` and `{path}`; `{{` and `}}` are plain braces.
//! To `tool`: for each call the arguments as they are handed over. One value is one argument or a part of one; only an array
//! that is all of an argument makes one argument per element.
//!
//! No value becomes an option: an argument that begins with an input must not begin with `-`, unless a `--` stands earlier.

use fanout_core::tool::ToolError;
use serde_json::Value;

use super::builder::CommandToolError;
use crate::text::{Piece, Text};
use crate::value::{any_text, lookup};

/// What a program is given: templates of its arguments and of its standard input.
pub(super) struct Line {
    arguments: Vec<Argument>,
    stdin: Option<Text>,
}

/// What one call gives a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) arguments: Vec<String>,
    /// `None`: it finds its standard input closed.
    pub(super) stdin: Option<String>,
}

struct Argument {
    text: Text,
    /// An input decides how it begins, and the program still looks for options.
    guarded: bool,
}

impl Line {
    /// Reads the templates.
    ///
    /// # Errors
    /// A brace without its partner, or an input that would choose the name of an option; the text is not repeated.
    pub(super) fn parse<'a>(
        arguments: impl IntoIterator<Item = &'a str>,
        stdin: Option<&str>,
    ) -> Result<Self, CommandToolError> {
        let mut options_ended = false;
        let read = |(at, text): (usize, &str)| {
            let place = || format!("argument {}", at + 1);
            let text = Text::parse(text).ok_or_else(|| CommandToolError::Brace { place: place() })?;
            let guarded = !options_ended && matches!(text.pieces().first(), Some(Piece::Field(_)));
            options_ended |= text.literal() == Some("--");
            match text.pieces() {
                [Piece::Literal(_)] => {}
                [Piece::Literal(start), ..] if !options_ended && start.bytes().all(|byte| byte == b'-') => {
                    return Err(CommandToolError::OptionName { place: place() });
                }
                _ => {}
            }
            Ok(Argument { text, guarded })
        };
        let arguments = arguments.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let unreadable = || CommandToolError::Brace { place: "`stdin`".to_owned() };
        let stdin = stdin.map(|text| Text::parse(text).ok_or_else(unreadable)).transpose()?;
        Ok(Self { arguments, stdin })
    }

    /// Every field that is named, as a path into the input, with the place that names it.
    pub(super) fn fields(&self) -> impl Iterator<Item = (String, &[String])> {
        let of_arguments = self.arguments.iter().enumerate().flat_map(|(at, argument)| {
            argument.text.fields().map(move |field| (format!("argument {}", at + 1), field))
        });
        let of_stdin = self.stdin.iter().flat_map(Text::fields).map(|field| ("`stdin`".to_owned(), field));
        of_arguments.chain(of_stdin)
    }

    /// Fills in one input.
    ///
    /// An absent input leaves out the argument that it is a part of, and one that is all of an argument is asked for: what
    /// comes after it would take its place. Without its input, standard input is closed.
    ///
    /// # Errors
    /// [`ToolError::BadInput`] for what must not be an argument. Nothing was started.
    pub(super) fn fill(&self, input: &Value) -> Result<Filled, ToolError> {
        let mut arguments = Vec::new();
        for argument in &self.arguments {
            argument.fill(input, &mut arguments)?;
        }
        Ok(Filled { arguments, stdin: self.stdin.as_ref().and_then(|text| text.fill(input)) })
    }
}

impl Argument {
    fn fill(&self, input: &Value, arguments: &mut Vec<String>) -> Result<(), ToolError> {
        let Some(field) = self.text.only_field() else {
            if let Some(text) = self.text.fill(input) {
                arguments.push(self.checked(text)?);
            }
            return Ok(());
        };
        let name = field.join(".");
        let value = lookup(input, field)
            .ok_or_else(|| ToolError::BadInput(format!("`{name}` is needed: it is an argument of its own")))?;
        let elements = match value {
            Value::Array(elements) => elements.as_slice(),
            value => std::slice::from_ref(value),
        };
        for element in elements {
            let text = any_text(element).ok_or_else(|| {
                ToolError::BadInput(format!("`{name}` must not hold null: each element is an argument of its own"))
            })?;
            arguments.push(self.checked(text)?);
        }
        Ok(())
    }

    /// The argument, if the program takes it as its author meant it.
    fn checked(&self, text: String) -> Result<String, ToolError> {
        let named =
            || self.text.fields().map(|field| format!("`{}`", field.join("."))).collect::<Vec<_>>().join(" and ");
        if text.contains('\0') {
            return Err(ToolError::BadInput(format!("{} must not hold a NUL character: no argument can", named())));
        }
        if self.guarded && text.starts_with('-') {
            return Err(ToolError::BadInput(format!(
                "{} must not begin with `-`: the program would take it for an option. Give a value that begins otherwise; \
                 a file can be written with `./` before its name",
                named()
            )));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(arguments: &[&str], input: &Value, filled: &[&str]) {
        let line = Line::parse(arguments.iter().copied(), None).unwrap();
        let came = match line.fill(input) {
            Ok(filled) => filled.arguments,
            Err(error) => vec![error.to_string()],
        };
        assert_eq!(came, filled, "{arguments:?} {input}");
    }

    #[test]
    fn one_value_is_one_argument_whatever_it_holds() {
        for text in ["a b", "a;rm -rf /", "$(id)", "`id`", "a\nb", "'\"", "", "*", "{x}", "a -b"] {
            check(&["{x}"], &json!({ "x": text }), &[text]);
            check(&["--x={x}"], &json!({ "x": text }), &[&format!("--x={text}")]);
        }
        check(&["{x}", "{y.z}"], &json!({"x": 7.0, "y": {"z": true}}), &["7", "true"]);
        check(&["{x}"], &json!({"x": {"a": [1]}}), &[r#"{"a":[1]}"#]);
        check(&["--x={x}"], &json!({"x": ["a", "b"]}), &[r#"--x=["a","b"]"#]);
    }

    #[test]
    fn an_array_that_is_all_of_an_argument_makes_one_for_each_element() {
        check(&["x", "{ids}", "y"], &json!({"ids": ["a b", 7]}), &["x", "a b", "7", "y"]);
        check(&["x", "{ids}", "y"], &json!({"ids": []}), &["x", "y"]);
        let null = "`ids` must not hold null: each element is an argument of its own";
        check(&["{ids}"], &json!({"ids": ["a", null]}), &[null]);
    }

    #[test]
    fn a_value_never_becomes_an_option() {
        let refused = |name: &str| {
            format!(
                "{name} must not begin with `-`: the program would take it for an option. Give a value that begins \
                 otherwise; a file can be written with `./` before its name"
            )
        };
        for text in ["-", "-x", "--", "--x=1"] {
            check(&["a", "{x}"], &json!({ "x": text }), &[&refused("`x`")]);
            check(&["{x}.py"], &json!({ "x": text }), &[&refused("`x`")]);
            check(&["{x}"], &json!({ "x": ["a", text] }), &[&refused("`x`")]);
            check(&["{x}{y}"], &json!({ "x": "", "y": text }), &[&refused("`x` and `y`")]);
            check(&["{x}-b"], &json!({ "x": "" }), &[&refused("`x`")]);
            check(&["--", "{x}"], &json!({ "x": text }), &["--", text]);
            check(&["--", "{x}"], &json!({ "x": ["a", text] }), &["--", "a", text]);
            check(&["./{x}"], &json!({ "x": text }), &[&format!("./{text}")]);
            check(&["--a={x}"], &json!({ "x": text }), &[&format!("--a={text}")]);
        }
        check(&["{x}"], &json!({"x": -5}), &[&refused("`x`")]);
        // What an input says is no end of the options.
        check(&["a={x}", "{y}"], &json!({"x": "--", "y": "-z"}), &[&refused("`y`")]);
    }

    #[test]
    fn an_input_that_would_name_an_option_is_a_mistake_of_the_author() {
        for argument in ["-{x}", "--{x}", "--{x}=1"] {
            let error = Line::parse(["a", argument], None).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with("in argument 2 an input")), "{argument}");
            assert!(Line::parse(["--", argument], None).is_ok());
        }
    }

    #[test]
    fn what_is_absent_leaves_its_argument_out_or_is_asked_for() {
        check(&["--x={x}", "y"], &json!({}), &["y"]);
        check(&["--x={x}", "y"], &json!({"x": null}), &["y"]);
        check(&["{x}", "y"], &json!({}), &["`x` is needed: it is an argument of its own"]);
        check(&["a{x}"], &json!({"x": "\0"}), &["`x` must not hold a NUL character: no argument can"]);
    }

    #[test]
    fn standard_input_is_the_text_or_nothing() {
        let stdin = |text: &str, input: Value| {
            Line::parse([], Some(text)).unwrap().fill(&input).map(|filled| filled.stdin).unwrap()
        };
        assert_eq!(stdin("{x}", json!({"x": "-a\0b"})), Some("-a\0b".to_owned()));
        assert_eq!(stdin("{x}", json!({"x": [1]})), Some("[1]".to_owned()));
        assert_eq!(stdin("{x}", json!({})), None);
        assert_eq!(stdin("fixed", json!({})), Some("fixed".to_owned()));
    }
}
