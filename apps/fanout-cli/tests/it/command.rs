//! Programs as tools, through the binary: what `call` answers, and that nothing is left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::binary::{Desk, code_of, content, ended};

const ECHO: &str = r#"
[[tool]]
name = "echo"
input = { text = { type = "string" } }
command = { program = "echo", args = ["{text}"] }
reads = ["echo/{text}"]
writes = []

[[tool]]
name = "fail"
command = { program = "sh", args = ["-c", "echo no such file >&2; exit 3"], env = ["PATH"] }
"#;

/// Two generations that ignore the signal that asks, and say who they are.
const STUBBORN: &str = r#"
[[tool]]
name = "stubborn"
command = { program = "sh", args = ["-c", "trap '' TERM; sh -c 'sleep 1000 & echo $$ $! > ids; wait'"], env = ["PATH"] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_called_like_any_tool() {
    let calls = content(&[
        ("a", "echo", r#"{"text":"$(id); *"}"#),
        ("b", "echo", r#"{"text":"--version"}"#),
        ("c", "fail", "{}"),
        ("d", "echo", r#"{"text":"{\"a\":1}"}"#),
    ]);
    let results = Desk::with(ECHO).run(&["call"], &calls).await.code(0).results();
    assert_eq!(results[0], ("a".to_owned(), false, "$(id); *\n".to_owned()));
    assert_eq!(code_of(&results[1].2), "invalid_input");
    assert_eq!(code_of(&results[2].2), "upstream");
    assert!(results[2].2.contains("exit status 3:\\nno such file"), "{}", results[2].2);
    assert_eq!(results[3].2, "{\"a\":1}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_a_program_and_what_it_touches() {
    let text = Desk::with(ECHO).run(&["check"], "").await.code(0).out;
    assert!(text.contains("\necho (command, repeatable)\n  reads echo/{text}; writes nothing (declared)\n"), "{text}");
    assert!(text.contains("\nfail (command, not repeatable: "), "{text}");
    assert!(text.contains("  reads nothing; writes command (inferred)\n"), "{text}");
    assert!(text.contains("; no limit group"), "{text}");
}

/// Whether none of these is alive. The dead whom nobody buried yet do nothing any more.
fn are_gone(ids: &str) -> bool {
    let dead = |id: &str| match std::fs::read_to_string(Path::new("/proc").join(id).join("stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => rustix::process::test_kill_process(Pid::from_raw(id.parse().unwrap()).unwrap()).is_err(),
    };
    assert_eq!(ids.split_whitespace().count(), 2, "{ids}");
    ids.split_whitespace().all(dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_program_leaves_no_process_behind() {
    for at_once in [false, true] {
        let desk = Desk::with(STUBBORN);
        let pipe = desk.folder().join("ids");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut child = desk.start(&["call"], &content(&[("a", "stubborn", "{}")]));
        let ids = tokio::task::spawn_blocking(|| std::fs::read_to_string(pipe)).await.unwrap().unwrap();
        assert!(!are_gone(&ids));
        let signal = |child: &std::process::Child| kill_process(Pid::from_child(child), Signal::INT).unwrap();
        signal(&child);
        if at_once {
            let mut said = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            while !line.contains("once more stops at once") {
                line.clear();
                assert!(said.read_line(&mut line).unwrap() > 0, "it ended too soon");
            }
            signal(&child);
            ended(child).await.code(130);
            // The system kills what it was told to kill a moment after it was told.
            while !are_gone(&ids) {
                tokio::task::yield_now().await;
            }
        } else {
            let came = ended(child).await.code(130);
            assert_eq!(code_of(&came.results()[0].2), "outcome_unknown");
            assert!(are_gone(&ids));
        }
    }
}
