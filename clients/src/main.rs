//! Real clients against `fanout serve`: the official SDKs and a Next.js app, as people use them.
//!
//! From the `fanout` binary whose path is given. To whoever runs the tests: one line per conversation, and an error that
//! names each one that went otherwise through the gateway than straight with the model. Nothing is skipped: a part
//! that is absent is installed from its lock file, or the run ends saying what to install.

mod client;
mod conversation;
mod install;
mod nextjs;
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;

use client::Client;

const CLIENTS: [&str; 3] = ["python", "typescript", "nextjs"];

const USAGE: &str = "\
usage: fanout-clients FANOUT [NAME...]
       FANOUT is the binary to test; NAMEs choose among the clients (python, typescript, nextjs) and the conversations";

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(fanout) = arguments.next() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let chosen: Vec<String> = arguments.collect();
    let names = conversation::names();
    if let Some(name) = chosen.iter().map(String::as_str).find(|name| !CLIENTS.contains(name) && !names.contains(name))
    {
        eprintln!("there is no `{name}`; the conversations are {}\n{USAGE}", names.join(", "));
        return ExitCode::from(2);
    }
    let started = Instant::now();
    match run(Path::new(&fanout), &chosen).await {
        Ok(0) => {
            println!("clients: all went well, {:.1} s", started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            eprintln!("clients: {failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("clients: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was chosen, everything if nothing was, and returns how many failed.
async fn run(fanout: &Path, chosen: &[String]) -> anyhow::Result<usize> {
    let fanout = fanout.canonicalize().with_context(|| format!("there is no `{}`", fanout.display()))?;
    let among = |name: &str, all: &[&str]| {
        let narrowed = chosen.iter().any(|chosen| all.contains(&chosen.as_str()));
        !narrowed || chosen.iter().any(|chosen| chosen == name)
    };
    let mut failed = 0;
    let names = conversation::names();
    for (name, install) in [("python", install::python as fn() -> _), ("typescript", install::typescript)] {
        if !among(name, &CLIENTS) {
            continue;
        }
        let mut client = Client::start(install()?)?;
        for conversation in conversation::ALL.iter().filter(|conversation| among(conversation.name, &names)) {
            failed += usize::from(!tell(name, conversation.name, conversation.hold(&mut client, &fanout).await));
        }
    }
    if among("nextjs", &CLIENTS) {
        failed += usize::from(!tell("nextjs", "both routes", nextjs::test(&fanout).await));
    }
    Ok(failed)
}

/// One line, or what went wrong. One failure does not hide the next.
fn tell(client: &str, what: &str, result: anyhow::Result<String>) -> bool {
    match &result {
        Ok(said) => println!("{client} {what}: {said}"),
        Err(error) => println!("{client} {what} FAILED: {error:#}"),
    }
    result.is_ok()
}
