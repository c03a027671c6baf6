//! The help texts: every command and flag is there with an example, and every example is true.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;

use fanout_script::{Script, Server, ServerOptions, Turn};
use rustix::process::{Pid, Signal, kill_process};

use crate::api::Api;
use crate::binary::{Desk, content, ended, feed};
use crate::process::Served;

async fn help(command: &[&str]) -> String {
    let arguments = [command, &["--help"]].concat();
    Desk::new().run(&arguments, "").await.code(0).out
}

/// The commands that `fanout --help` lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let named = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Every command, and every command of a command, as the words to write.
async fn all_commands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for command in commands(&help(&[]).await) {
        let text = help(&[&command]).await;
        let inner = if text.contains("\nCommands:\n") { commands(&text) } else { Vec::new() };
        all.push(vec![command.clone()]);
        all.extend(inner.into_iter().map(|inner| vec![command.clone(), inner]));
    }
    all
}

/// The lines below "Example".
fn examples(help: &str) -> Vec<String> {
    let after = help.lines().skip_while(|line| !line.starts_with("Example"));
    let lines = after.skip(1).take_while(|line| line.starts_with("  "));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The flags in a help text, but for those that every program has.
fn flags(help: &str) -> Vec<String> {
    let words = help.lines().filter(|line| line.trim_start().starts_with('-'));
    let flags = words.flat_map(str::split_whitespace).filter(|word| word.starts_with("--"));
    let flags = flags.map(|flag| flag.trim_end_matches(',').to_owned());
    flags.filter(|flag| flag != "--help" && flag != "--version").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_listed_and_every_flag_has_an_example() {
    let top = help(&[]).await;
    assert_eq!(
        commands(&top),
        [
            "demo",
            "run",
            "call",
            "explain",
            "check",
            "init",
            "schema",
            "serve",
            "mcp",
            "login",
            "runs",
            "pause",
            "unpause",
            "tools",
            "limits",
            "breaker",
            "audit",
            "status",
            "reload",
            "approvals",
            "keys"
        ]
    );
    assert!(top.contains("Exit codes: 0 done") && top.contains("130 interrupted"), "{top}");
    let mut all = examples(&top).join("\n");
    let mut known = Vec::new();
    for words in all_commands().await {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (text, command) = (help(&words).await, words.join(" "));
        let examples = examples(&text);
        assert!(!examples.is_empty(), "`{command}` has no example");
        assert!(examples.iter().all(|line| line.contains("fanout ") && line.contains(&command)), "{examples:?}");
        all.push_str(&examples.join("\n"));
        known.extend(flags(&text));
    }
    assert!(known.len() >= 12, "{known:?}");
    for flag in known {
        assert!(all.contains(&flag), "`{flag}` has no example");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_true() {
    let api = Api::open().await;
    let server = Server::start(ServerOptions::script(Script::new([Turn::text("All are on time.")]))).unwrap();
    let folder = Path::new(env!("CARGO_BIN_EXE_fanout")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let refund = api.tool("refund", "POST", "ok/{id}", "limit = \"payments\"\n");
    let tools = api.tool("get_order", "GET", "ok/{id}", "") + &refund + "[limits.payments]\nconcurrency = 4\n";
    let desk = Desk::with(&tools)
        .set("PATH", path)
        .set("FANOUT_SERVER__LISTEN", "127.0.0.1:0")
        .set("ANTHROPIC_BASE_URL", server.base_url());
    desk.write("assistant.json", &content(&[("a", "get_order", r#"{"id":"7"}"#)]));
    for words in all_commands().await {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for mut example in examples(&help(&words).await) {
            if words == ["login"] {
                continue; // It needs a server and a browser; see `login`.
            }
            if words.first() == Some(&"approvals") && !example.contains("approvals list") {
                continue; // There must be a call that waits; see `approvals`.
            }
            if words == ["serve"] {
                // The process that is started is the one to stop.
                example.insert_str(0, "exec ");
            }
            if words == ["keys", "revoke"] {
                example = example.replace("KEY_ID", &key_id(&desk).await);
            }
            if words.first() == Some(&"runs") {
                example = example.replace("run_0123", &run_id(&desk).await);
            }
            // Somebody must be there to be reloaded, or to be asked what waits.
            let served = (words == ["reload"] || example.contains("--url"))
                .then(|| Served::start(desk.folder(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &[]));
            if let Some(served) = &served {
                example = example.replace("127.0.0.1:8787", served.address());
                example.insert_str(0, &format!("FANOUT_SERVER__LISTEN={} ", served.address()));
            }
            let child = desk.command("sh").args(["-c", &example]).spawn().unwrap();
            if words == ["serve"] {
                assert!(stopped_once_it_listens(child).await.starts_with("fanout listens on http://127.0.0.1:"));
                continue;
            }
            let came = ended(feed(child, "")).await.code(0);
            if example.starts_with("FANOUT_KEY=") {
                continue; // What it prints is caught.
            }
            let file = example.split("> ").nth(1).map(|name| desk.folder().join(name));
            let out = file.map_or(came.out + &came.err, |file| std::fs::read_to_string(file).unwrap());
            assert!(!out.is_empty(), "{example}");
        }
    }
    assert_eq!(server.violations(), []);
}

/// A run that the journal has.
#[cfg(unix)]
async fn run_id(desk: &Desk) -> String {
    let came = desk.run(&["runs", "list", "--json"], "").await.code(0);
    came.lines()[0]["id"].as_str().unwrap().to_owned()
}

/// Lets a gateway say where it listens, and stops it; gives the first line that it said.
#[cfg(unix)]
async fn stopped_once_it_listens(mut child: Child) -> String {
    let served = tokio::task::spawn_blocking(move || {
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        std::io::copy(&mut out, &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
        first
    });
    served.await.unwrap()
}

/// The id of some key.
async fn key_id(desk: &Desk) -> String {
    let keys = desk.run(&["keys", "list", "--json"], "").await.code(0);
    keys.lines()[0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_lists_every_command_and_none_that_is_not_there() {
    let readme = include_str!("../../../../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `fanout "));
    let mut listed: Vec<&str> = rows.filter_map(|row| row.split([' ', '`']).next()).collect();
    // The picture above the table shows it.
    listed.push("demo");
    listed.sort_unstable();
    let mut known = commands(&help(&[]).await);
    known.sort_unstable();
    assert_eq!(listed, known);
}
