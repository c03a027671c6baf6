//! Programs as tools: real processes through the real scheduler.
//!
//! What a test waits for is told by the programs themselves, through named pipes; nothing sleeps.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::outcome::{Outcome, Output};
use fanout_core::run::{Run, RunOptions, Scheduler, SchedulerOptions};
use fanout_core::secrets::Secrets;
use fanout_core::tool::{Attempt, Policy, Tool, ToolError};
use fanout_core::toolbox::Toolbox;
use fanout_tools::command::{CommandTool, CommandToolBuilder, Programs};
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::batch::{bounded, shown, word};

/// A shell is a program like any other; here it plays every part.
fn sh(name: &str, script: &str) -> CommandToolBuilder {
    CommandTool::builder(name, "sh")
        .argument("-c")
        .argument(script.replace('{', "{{").replace('}', "}}"))
        .inherit("PATH")
}

/// Programs and a folder of their own to stand in.
struct Scene {
    folder: TempDir,
    programs: Programs,
    scheduler: Scheduler,
}

impl Scene {
    fn new() -> Self {
        Self::within(1024)
    }

    fn within(in_flight_max: usize) -> Self {
        let scheduler = Scheduler::new(SchedulerOptions { in_flight_max, ..SchedulerOptions::default() });
        Self { folder: TempDir::new().unwrap(), programs: Programs::new(), scheduler }
    }

    fn run(&self, tools: impl IntoIterator<Item = CommandToolBuilder>) -> Run {
        let (mut toolbox, mut secrets) = (Toolbox::new(), Secrets::new());
        secrets.add("TOKEN", "s3cret");
        toolbox.hide(secrets);
        for tool in tools {
            toolbox.add(tool.folder(self.folder.path()).build(&self.programs).unwrap()).unwrap();
        }
        self.scheduler.run(Arc::new(toolbox), RunOptions::new("r"))
    }

    /// What one call of a tool comes to.
    async fn call(&self, tool: CommandToolBuilder, input: Value) -> Outcome {
        let mut run = self.run([tool]);
        let mut batch = run.batch();
        batch.call(Call::new(0, "c", "t", input)).unwrap();
        batch.commit();
        (*bounded(batch.finish()).await.remove(0)).clone()
    }

    /// What one call comes to, and what the model reads of it.
    async fn check(&self, tool: CommandToolBuilder, expected: &str, text: &str) {
        let outcome = self.call(tool, json!({})).await;
        assert_eq!((word(&outcome).as_str(), shown(&outcome).contains(text)), (expected, true), "{outcome:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A named pipe in the folder.
    fn pipe(&self, name: &str) -> PathBuf {
        let made = std::process::Command::new("mkfifo").arg(self.path(name)).status().unwrap();
        assert!(made.success());
        self.path(name)
    }
}

/// What a program says through a named pipe, once it has.
async fn said(pipe: &Path) -> String {
    let pipe = pipe.to_owned();
    let text = bounded(tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe))).await;
    text.unwrap().unwrap().trim().to_owned()
}

/// Whether none of these processes is alive. The dead whom nobody buried yet do nothing any more.
fn are_gone(ids: &str) -> bool {
    let id = |id: &str| Pid::from_raw(id.parse().unwrap()).unwrap();
    let dead = |id: &str| std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    assert!(!ids.is_empty());
    ids.split_whitespace().all(|text| test_kill_process(id(text)).is_err() || dead(text))
}

fn within(timeout: Duration) -> Policy {
    Policy { timeout, ..Policy::default() }
}

#[tokio::test]
async fn how_a_program_ends_is_what_its_call_comes_to() {
    let scene = Scene::new();
    scene.check(sh("t", "echo hello"), "ok after 1", "hello\n").await;
    scene.check(sh("t", "echo noise >&2; echo '{\"a\":1}'"), "ok after 1", "{\"a\":1}\n").await;
    scene.check(sh("t", ":"), "ok after 1", "exit status 0, no output").await;
    let failed = "`t` ended with exit status 3:\\nbroken\\nstandard output: partly";
    scene.check(sh("t", "echo partly; echo broken >&2; exit 3"), "upstream after 1", failed).await;
    scene.check(sh("t", "exit 200"), "upstream after 1", "`t` ended with exit status 200").await;
    let killed = "`t` was ended by signal 9 (SIGKILL)";
    scene.check(sh("t", "kill -9 $$"), "outcome_unknown after 1", killed).await;
    scene.check(sh("t", "kill -9 $$").writes([]), "upstream after 4", killed).await;
    scene.check(sh("t", "printf 'caf\\351'"), "ok after 1", "not UTF-8").await;
    let data = scene.call(sh("t", "echo '{\"a\":1}'"), json!({})).await;
    assert_eq!(data.result.as_ref().unwrap().value(), json!({"a": 1}));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_did_nothing() {
    let scene = Scene::new();
    std::fs::write(scene.path("plain"), "x").unwrap();
    let plain = scene.path("plain").display().to_string();
    for (program, why) in [
        ("nothing-such", "there is no program `nothing-such` in PATH".to_owned()),
        ("/nothing/such", "there is no program /nothing/such".to_owned()),
        (plain.as_str(), format!("{plain} is not an executable file")),
        ("/", "/ is not an executable file".to_owned()),
    ] {
        scene.check(CommandTool::builder("t", program), "upstream after 4", &why).await;
        scene.check(CommandTool::builder("t", program), "upstream after 4", "Nothing was carried out").await;
    }
    let tool = sh("t", ":").folder(scene.path("gone")).build(&scene.programs).unwrap();
    let error = tool.call(Attempt::detached("t", json!({}))).await.unwrap_err();
    assert!(matches!(&error, ToolError::NotSent(why) if why.contains("is not there")), "{error:?}");
    let long = sh("t", ":").argument("{x}");
    let outcome = scene.call(long, json!({ "x": "x".repeat(1 << 20) })).await;
    assert_eq!(word(&outcome), "invalid_input after 1", "{}", shown(&outcome));
}

#[tokio::test]
async fn a_program_sees_its_folder_its_input_and_the_variables_that_are_let_through() {
    let scene = Scene::new();
    let tool = CommandTool::builder("t", "env").variable("A", "1");
    let text = shown(&scene.call(tool, json!({})).await);
    assert_eq!(text, "A=1\nFANOUT_IDEMPOTENCY_KEY=r/c\n");
    let folder = scene.folder.path().canonicalize().unwrap();
    scene.check(CommandTool::builder("t", "pwd"), "ok after 1", &format!("{}\n", folder.display())).await;
    let outcome = scene.call(CommandTool::builder("t", "cat").stdin("<{x}>"), json!({"x": "a\nb"})).await;
    assert_eq!(shown(&outcome), "<a\nb>");
    scene.check(CommandTool::builder("t", "cat").stdin("{x}"), "ok after 1", "no output").await;
    scene.check(CommandTool::builder("t", "cat"), "ok after 1", "no output").await;
}

#[tokio::test]
async fn a_secret_that_a_program_prints_is_shown_by_its_name() {
    let scene = Scene::new();
    let tool = |script| sh("t", script).argument("sh").argument("s3cret");
    scene.check(tool("echo bad $1 >&2; exit 1"), "upstream after 1", "bad [redacted TOKEN]").await;
    scene.check(tool("echo good $1"), "ok after 1", "good [redacted TOKEN]").await;
    let tool = tool(":").argument("{").build(&scene.programs).unwrap_err();
    assert!(!format!("{tool} {tool:?}").contains("s3cret"));
}

#[tokio::test]
async fn more_output_than_is_kept_is_cut_with_a_note_and_holds_nobody_up() {
    let scene = Scene::new();
    let flood = "head -c 3000000 /dev/zero | tr '\\0' x";
    let note = "(only the first 1,000 of 3,000,000 bytes of the output were kept (`max_output`))\nxxx";
    scene.check(sh("t", flood).output_max(1000), "ok after 1", note).await;
    let end = format!("({flood}; echo the end) >&2; exit 1");
    let outcome = scene.call(sh("t", &end).output_max(1000), json!({})).await;
    let text = shown(&outcome);
    assert!(text.contains("exit status 1:\\n…xxx") && text.contains("xthe end") && text.len() < 1_200, "{text}");
}

#[tokio::test]
async fn a_program_that_writes_without_end_has_its_time_and_no_more() {
    let scene = Scene::new();
    let yes = || CommandTool::builder("t", "yes").policy(within(Duration::from_millis(200)));
    scene.check(yes(), "outcome_unknown after 1", "check before trying again").await;
    scene.check(yes().writes([]), "timeout after 4", "does no harm").await;
    bounded(scene.programs.gone()).await;
}

#[tokio::test]
async fn standard_input_may_be_larger_than_a_pipe_whoever_reads_it() {
    let scene = Scene::new();
    let text = "0123456789abcdef".repeat(1 << 17);
    let whole = Policy { result_max: usize::MAX, ..Policy::default() };
    let cat = CommandTool::builder("t", "cat").stdin("{x}").output_max(usize::MAX).policy(whole);
    assert_eq!(shown(&scene.call(cat, json!({ "x": text })).await), text);
    let deaf = CommandTool::builder("t", "true").stdin("{x}");
    assert_eq!(word(&scene.call(deaf, json!({ "x": text })).await), "ok after 1");
    let stuck =
        CommandTool::builder("t", "sleep").argument("1000").stdin("{x}").policy(within(Duration::from_millis(100)));
    assert_eq!(word(&scene.call(stuck, json!({ "x": text })).await), "outcome_unknown after 1");
    bounded(scene.programs.gone()).await;
}

#[tokio::test]
async fn a_program_that_closes_its_output_is_not_over() {
    let scene = Scene::new();
    let (closed, end) = (scene.pipe("closed"), scene.pipe("end"));
    let mut run = scene.run([sh("t", "echo said; exec >&- 2>&-; echo closed > closed; read line < end; exit 7")]);
    let mut batch = run.batch();
    batch.call(Call::new(0, "c", "t", json!({}))).unwrap();
    batch.commit();
    let ending = async {
        assert_eq!(said(&closed).await, "closed");
        tokio::task::spawn_blocking(move || std::fs::write(end, "now\n")).await.unwrap().unwrap();
    };
    let (outcomes, ()) = bounded(async { tokio::join!(batch.finish(), ending) }).await;
    let text = shown(&outcomes[0]);
    assert!(text.contains("exit status 7:\\nstandard output: said"), "{text}");
}

#[tokio::test]
async fn what_a_program_leaves_running_is_ended_with_it() {
    let scene = Scene::new();
    for script in
        ["sleep 1000 & echo $!", "sleep 1000 > /dev/null 2>&1 & echo $!", "trap '' TERM; sleep 1000 & echo $!"]
    {
        let outcome = scene.call(sh("t", script), json!({})).await;
        assert_eq!(word(&outcome), "ok after 1");
        assert!(are_gone(shown(&outcome).trim()), "{script}");
        bounded(scene.programs.gone()).await;
    }
}

/// Ignores the signal that asks, in every generation, and says who it is.
const STUBBORN: &str = "trap '' TERM; sh -c 'sleep 1000 & echo $$ $! > ids; wait'";

#[tokio::test]
async fn a_stopped_call_keeps_its_locks_until_the_last_process_of_its_group_is_gone() {
    for stubborn in [false, true] {
        let scene = Scene::new();
        let ids = scene.pipe("ids");
        let script = if stubborn { STUBBORN.to_owned() } else { STUBBORN.replace("trap '' TERM; ", "") };
        let look = "for id in $1; do ps -o stat= -p $id | grep -v Z; done; echo looked";
        let mut run = scene.run([sh("t", &script), sh("look", look).argument("sh").argument("{ids}")]);
        let mut batch = run.batch();
        batch.call(Call::new(0, "a", "t", json!({}))).unwrap();
        batch.commit();
        let told = tokio::spawn(async move { said(&ids).await });
        let told = bounded(async {
            tokio::pin!(told);
            loop {
                tokio::select! {
                    told = &mut told => break told.unwrap(),
                    () = batch.progress() => {}
                }
            }
        })
        .await;
        batch.cancel("enough");
        let outcome = bounded(batch.finish()).await.remove(0);
        assert_eq!(word(&outcome), "outcome_unknown after 1");
        // Both write the source `command`: the second starts when nothing of the first is left.
        let mut next = run.batch();
        next.call(Call::new(0, "b", "look", json!({ "ids": told }))).unwrap();
        next.commit();
        let seen = bounded(next.finish()).await;
        assert_eq!(shown(&seen[0]), "looked\n", "stubborn: {stubborn}");
        assert!(are_gone(&told));
    }
}

#[tokio::test]
async fn a_time_out_ends_every_generation() {
    let scene = Scene::new();
    // It is told apart from a slow start by what it wrote: the time is over only once it has.
    let script = "trap '' TERM; sh -c 'sleep 1000 & echo $$ $! > ids; wait'";
    let mut ids = String::new();
    for attempt in 1.. {
        let policy = within(Duration::from_millis(100 * attempt));
        let outcome = scene.call(sh("t", script).policy(policy), json!({})).await;
        assert_eq!(word(&outcome), "outcome_unknown after 1");
        bounded(scene.programs.gone()).await;
        ids = std::fs::read_to_string(scene.path("ids")).unwrap_or_default();
        if !ids.is_empty() {
            break;
        }
    }
    assert!(are_gone(&ids));
}

#[test]
fn a_runtime_that_ends_leaves_no_process_behind() {
    let scene = Scene::new();
    let pipe = scene.pipe("ids");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tool = sh("t", STUBBORN).folder(scene.folder.path()).build(&scene.programs).unwrap();
    let ids = runtime.block_on(async {
        tokio::spawn(tool.call(Attempt::detached("t", json!({}))));
        said(&pipe).await
    });
    drop(runtime);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(bounded(async {
        while !are_gone(&ids) {
            tokio::task::yield_now().await;
        }
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_are_answered_each_with_its_own() {
    let scene = Scene::within(32);
    // A write of its own each, so that only the bound holds them back.
    let script = "mkdir running/$1; ls running | wc -l; rmdir running/$1; echo $1";
    std::fs::create_dir(scene.path("running")).unwrap();
    let mut run = scene.run([sh("t", script).argument("sh").argument("{n}").writes(["n/{n}"])]);
    let mut batch = run.batch();
    for n in 0..1_000 {
        batch.call(Call::new(n, format!("c{n}").as_str(), "t", json!({ "n": n }))).unwrap();
    }
    batch.commit();
    let outcomes = bounded(batch.finish()).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        let text = shown(outcome);
        let (running, name) = text.trim().split_once('\n').unwrap_or_else(|| panic!("{text}"));
        assert_eq!(name, n.to_string());
        assert!((1..=32).contains(&running.trim().parse().unwrap()), "{running}");
    }
    bounded(scene.programs.gone()).await;
}

#[tokio::test]
async fn a_tool_can_be_tried_without_a_scheduler() {
    let tool = CommandTool::builder("t", "echo").argument("{x}").build(&Programs::new()).unwrap();
    let output: Output = tool.call(Attempt::detached("t", json!({"x": "a  b"}))).await.unwrap();
    assert_eq!(output.value(), json!("a  b\n"));
    assert_eq!(tool.spec().source.as_str(), "command");
    assert!(!tool.spec().repeatable());
}
