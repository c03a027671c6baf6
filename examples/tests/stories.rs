//! Every story runs and says what it promises.

use std::process::Command;

#[track_caller]
fn check(program: &str, says: &[&str]) {
    let output = Command::new(program).output().expect("the story starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    for words in says {
        assert!(out.contains(words), "`{words}` is missing in:\n{out}");
    }
}

#[test]
fn three_reads_one_write_says_what_the_write_waited_for() {
    check(env!("CARGO_BIN_EXE_three_reads_one_write"), &["toolu_3: ok", "the longest path: toolu_0 → toolu_3"]);
}

#[test]
fn a_tool_in_twenty_lines_answers_each_call_once() {
    let says = [
        r#"toolu_0: {"cents":500,"from":"ada","key":"transfers/toolu_0","to":"bob"}"#,
        "toolu_1: upstream: a transfer of nothing; name an amount of at least one cent",
        "toolu_2: invalid_input:",
    ];
    check(env!("CARGO_BIN_EXE_a_tool_in_twenty_lines"), &says);
}

#[test]
fn an_agent_goes_from_prompt_to_answer() {
    check(env!("CARGO_BIN_EXE_an_agent"), &["done after 2 turns and 2 calls: Both have 21 °C."]);
}

#[test]
fn a_source_of_your_own_and_a_layer_see_every_attempt() {
    let says = [
        "toolu_0: sent\ntoolu_1: sent\ntoolu_2: sent\n",
        r#"["\"ada\": \"first\"", "\"ada\": \"second\""]; 4 attempts"#,
    ];
    check(env!("CARGO_BIN_EXE_your_own_source"), &says);
}

#[test]
fn every_source_stands_in_one_batch() {
    let says = [r#""sku":"desk-lamp""#, r#""id":"123""#, "toolu_2: 6", "toolu_3: \"DONE\""];
    check(env!("CARGO_BIN_EXE_every_source"), &says);
}
