//! Mistakes in flags, configuration and surroundings: exit 2, and a sentence that says what to do.

use crate::binary::{Desk, content};

async fn check(desk: &Desk, arguments: &[&str], said: &str) {
    let came = desk.run(arguments, &content(&[("a", "t", "{}")])).await.code(2);
    assert!(came.err.contains(said), "{arguments:?}: {}", came.err);
    assert_eq!(came.out, "", "{arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_words_are_refused() {
    let desk = Desk::new();
    check(&desk, &[], "Usage: fanout").await;
    check(&desk, &["frob"], "unrecognized subcommand 'frob'").await;
    check(&desk, &["explian"], "'explain'").await;
    check(&desk, &["call", "--nope"], "unexpected argument '--nope'").await;
    check(&desk, &["explain", "--format", "xml"], "invalid value 'xml'").await;
    check(&desk, &["run"], "<PROMPT>").await;
    check(&desk, &["run", " "], "the prompt is empty").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_mistake_is_named_with_its_place() {
    let desk = Desk::with("[run]\nmax_turn = 3\n");
    for command in [&["check"][..], &["call"], &["explain"], &["run", "hi"]] {
        check(&desk, command, "fanout.toml:2:1").await;
        check(&desk, command, "`max_turns`").await;
    }
    check(&Desk::new(), &["check", "--config", "nope.toml"], "nope.toml cannot be read: No such file").await;
    check(&Desk::new().set("FANOUT_RUN__MAX_TURNS", "many"), &["check"], "FANOUT_RUN__MAX_TURNS").await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_another_user_is_not_taken_unasked() {
    let desk = Desk::new();
    let path = desk.folder().join("fanout.toml");
    if rustix::process::geteuid().is_root() {
        desk.write("fanout.toml", "");
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
    } else {
        // A file of root's that anybody can read, and that holds nothing.
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    }
    check(&desk, &["call"], "belongs to another user").await;
    check(&desk, &["call"], "--config").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_response_is_refused() {
    let desk = Desk::new();
    let call = r#"{"type":"tool_use","id":"a","name":"t","input":{}}"#;
    for (input, said) in [
        (String::new(), "standard input is empty"),
        ("hello".to_owned(), "standard input is not JSON"),
        ("3".to_owned(), "neither a message nor an array"),
        ("[] []".to_owned(), "not JSON"),
        (r#"{"type":"error","error":{"type":"x","message":"y"}}"#.to_owned(), "no assistant message"),
        (r#"[{"type":"text","text":"x"}]"#.to_owned(), "no `tool_use` block"),
        ("[1]".to_owned(), "cannot be read"),
        (format!("[{call},{call}]"), "two `tool_use` blocks have the id `a`"),
        (format!(r#"{{"role":"user","content":[{call}]}}"#), "not the model's"),
        (format!(r#"{{"role":"assistant","stop_reason":"refusal","content":[{call}]}}"#), "is a refusal"),
        ("[".repeat(100_000), "standard input is"),
    ] {
        for command in ["call", "explain"] {
            let came = desk.run(&[command], &input).await.code(2);
            assert!(came.err.contains(said), "{command}: {}", came.err);
            assert_eq!(came.out, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_run_calls_end_somewhere() {
    let input = content(&[("a", "t", "{}")]);
    let desk = |depth: &str| Desk::with("[run]\nmax_depth = 2\n").set("FANOUT_DEPTH", depth);
    desk("1").run(&["call"], &input).await.code(0);
    for command in [&["call"][..], &["run", "hi"]] {
        check(&desk("2"), command, "`max_depth` in [run] is 2").await;
        check(&desk("deep"), command, "FANOUT_DEPTH is `deep`, which is no number").await;
    }
    desk("9").run(&["explain"], &input).await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_in_dollars_without_a_price_is_refused_before_anything_is_sent() {
    let desk = Desk::with("[model]\nname = \"m\"\n[run]\nmax_cost_usd = 1.0\n").set("ANTHROPIC_API_KEY", "k");
    check(&desk, &["run", "hi"], "no price for `m`; add [prices.\"m\"] with input, output, cache_read and cache_write")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_budget_in_dollars_is_waived_for_a_model_without_a_price() {
    let desk = Desk::with("[model]\nname = \"m\"\n").set("ANTHROPIC_BASE_URL", "http://127.0.0.1:9");
    let came = desk.run(&["run", "hi"], "").await;
    assert!(came.err.contains("warning: no price for `m`, so the default budget of $5 is not kept"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_demo_and_the_variable_are_named() {
    check(&Desk::new(), &["run", "hi"], "set ANTHROPIC_API_KEY").await;
    check(&Desk::new(), &["run", "hi"], "fanout demo").await;
    let came = Desk::new().set("ANTHROPIC_BASE_URL", "nonsense").set("ANTHROPIC_API_KEY", "k");
    check(&came, &["run", "hi"], "see ANTHROPIC_BASE_URL").await;
}
