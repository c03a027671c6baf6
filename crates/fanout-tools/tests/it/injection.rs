//! Whatever an input holds: one value is one argument, and never an option.

use fanout_core::tool::{Attempt, Tool, ToolError};
use fanout_tools::command::{CommandTool, CommandToolBuilder, Programs};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

/// Prints its arguments, each ended by a NUL: no argument can hold one.
const PRINT: &str = "for a; do printf '%s\\0' \"$a\"; done";

fn text() -> impl Strategy<Value = String> {
    let nasty = select(vec![
        "",
        " ",
        "-",
        "--",
        "-x",
        "--x=1",
        "-- x",
        "$(id)",
        "`id`",
        "${HOME}",
        "*",
        "a b",
        "a\tb",
        "'",
        "\"",
        "\\",
        "a\n-x",
        ";reboot",
        "|cat",
        "&",
        ">x",
        "{ids}",
        "}}",
        "{{",
        "\u{2014}x",
        "\u{2212}x",
        "é",
        "%s",
        "!!",
        "~",
    ]);
    prop_oneof![8 => nasty.prop_map(str::to_owned), 8 => "[^\0]{0,12}", 1 => "-[^\0]{0,5}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_value_becomes_more_than_one_argument_or_an_option(
        x in text(), y in text(), z in text(), ids in prop::collection::vec(text(), 0..4)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tool = CommandTool::builder("t", "sh").argument("-c").argument(PRINT).argument("sh");
        let tool = ["--y={y}", "{x}", "{ids}", "{z}.txt", "--", "{x}", "{ids}"].into_iter().fold(tool, CommandToolBuilder::argument);
        let tool = tool.build(&Programs::new()).unwrap();
        let input = json!({ "x": x, "y": y, "z": z, "ids": ids });
        let came = runtime.block_on(tool.call(Attempt::detached("t", input)));
        let dashes = [&x, &z].into_iter().chain(&ids).any(|value| value.starts_with('-'));
        match came {
            Err(ToolError::BadInput(_)) => prop_assert!(dashes, "refused without a reason"),
            Err(error) => prop_assert!(false, "{error}"),
            Ok(output) => {
                prop_assert!(!dashes, "an option got through");
                let mut expected = vec![format!("--y={y}"), x.clone()];
                expected.extend(ids.iter().cloned());
                expected.extend([format!("{z}.txt"), "--".to_owned(), x.clone()]);
                expected.extend(ids.iter().cloned());
                let printed = output.value();
                let printed: Vec<&str> = printed.as_str().unwrap().split_terminator('\0').collect();
                prop_assert_eq!(printed, expected);
            }
        }
    }
}
