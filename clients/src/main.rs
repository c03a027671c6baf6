//! Real clients against `fanout serve` and `fanout mcp`: the official SDKs, Next.js apps (one over row-level security), and the MCP conformance suite; real
//! MCP servers as its sources; large public OpenAPI documents; and what `fanout init` makes.
//!
//! From the `fanout` binary whose path is given. To whoever runs the tests: one line per conversation, and an error that
//! names each one that went otherwise than it should: through the gateway otherwise than straight with the model, or over
//! one of MCP's transports otherwise than over the other. Nothing is skipped: a part that is absent is installed from its
//! lock file, or the run ends saying what to install.

mod client;
mod conformance;
mod conversation;
mod documents;
mod install;
mod mcp;
mod nextjs;
mod remote;
mod servers;
mod stage;
mod starters;
mod supabase;
mod system;
mod together;
mod tools;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;

use client::Client;

const CLIENTS: [&str; 10] = [
    "python",
    "typescript",
    "mcp",
    "conformance",
    "nextjs",
    "supabase",
    "documents",
    "servers",
    "starters",
    "together",
];

const USAGE: &str = "\
usage: fanout-clients FANOUT [NAME...]
       fanout-clients system
       FANOUT is the binary to test; NAMEs choose among the clients (python, typescript, mcp, conformance, nextjs, supabase,
       documents, servers, starters, together) and the
       conversations. `system` installs the servers that the workspace's tests start, where they are absent";

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(fanout) = arguments.next() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if fanout == "system" {
        return match system::SERVERS.iter().try_for_each(system::Need::meet) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("clients: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let chosen: Vec<String> = arguments.collect();
    let names = [
        conversation::names(),
        mcp::CONVERSATIONS.to_vec(),
        conformance::SIDES.to_vec(),
        servers::TRIED.to_vec(),
        remote::TRIED.to_vec(),
        starters::TRIED.to_vec(),
        together::TRIED.to_vec(),
    ]
    .concat();
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
    let mut failed = 0;
    for (name, install) in [("python", install::python as fn() -> _), ("typescript", install::typescript)] {
        let wanted = wanted(name, &conversation::names(), chosen);
        if wanted.is_empty() {
            continue;
        }
        let mut client = Client::start(install()?)?;
        for conversation in conversation::ALL.iter().filter(|conversation| wanted.contains(&conversation.name)) {
            failed += usize::from(!tell(name, conversation.name, conversation.hold(&mut client, &fanout).await));
        }
    }
    let conversations = wanted("mcp", &mcp::CONVERSATIONS, chosen);
    if !conversations.is_empty() {
        let mut client = Client::start(install::mcp()?)?;
        for conversation in conversations {
            failed += usize::from(!tell("mcp", conversation, mcp::hold(conversation, &mut client, &fanout).await));
        }
    }
    for side in wanted("conformance", &conformance::SIDES, chosen) {
        let result = match side {
            "as_server" => conformance::servers(&fanout).await,
            _ => conformance::sources(&fanout).await,
        };
        failed += usize::from(!tell("conformance", side, result));
    }
    if !wanted("nextjs", &["both routes"], chosen).is_empty() {
        failed += usize::from(!tell("nextjs", "both routes", nextjs::test(&fanout).await));
    }
    if !wanted("supabase", &["own rows"], chosen).is_empty() {
        failed += usize::from(!tell("supabase", "own rows", supabase::test(&fanout).await));
    }
    if !wanted("documents", &["every operation"], chosen).is_empty() {
        failed += usize::from(!tell("documents", "every operation", documents::test(&fanout).await));
    }
    let tried = wanted("servers", &[servers::TRIED.as_slice(), &remote::TRIED].concat(), chosen);
    if !tried.is_empty() {
        let installed = install::servers()?;
        for name in tried {
            failed += usize::from(!tell("servers", name, servers::hold(name, &installed, &fanout).await));
        }
    }
    let tried = wanted("together", &together::TRIED, chosen);
    if !tried.is_empty() {
        let installed = install::servers()?;
        for name in tried {
            failed += usize::from(!tell("together", name, together::hold(name, &installed, &fanout).await));
        }
    }
    for name in wanted("starters", &starters::TRIED, chosen) {
        failed += usize::from(!tell("starters", name, starters::hold(name, &fanout).await));
    }
    Ok(failed)
}

/// Which of a client's conversations to hold: all of them, unless some client or some conversation was chosen.
fn wanted<'a>(client: &str, conversations: &[&'a str], chosen: &[String]) -> Vec<&'a str> {
    let is_client = |name: &String| CLIENTS.contains(&name.as_str());
    if chosen.iter().any(is_client) && !chosen.iter().any(|name| name == client) {
        return Vec::new();
    }
    let narrowed = !chosen.iter().all(is_client);
    let is_chosen = |conversation: &&str| chosen.iter().any(|name| name == conversation);
    conversations.iter().copied().filter(|conversation| !narrowed || is_chosen(conversation)).collect()
}

/// One line, or what went wrong. One failure does not hide the next.
fn tell(client: &str, what: &str, result: anyhow::Result<String>) -> bool {
    match &result {
        Ok(said) => println!("{client} {what}: {said}"),
        Err(error) => println!("{client} {what} FAILED: {error:#}"),
    }
    result.is_ok()
}
