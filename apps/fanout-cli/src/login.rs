//! `fanout login`: a person gets access to an MCP server, or gives it up.

use fanout_host::environment::Environment;
use fanout_host::login::access_to;
use fanout_tools::mcp::McpAccess;
use serde_json::json;

use crate::args::{Common, Login};
use crate::exit::Ended;
use crate::interrupt::Signals;
use crate::loaded::configuration;
use crate::show::{ERROR, QUIET, give, print_line, say, styled};

/// Prints the address of the login, waits until somebody has been there, and keeps the tokens.
pub fn login(common: &Common, login: &Login) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let config = configuration(common, &environment)?;
    let (access, port) = access_to(&config, &environment, &login.name)?;
    if login.forget {
        return forget(common, login, &access);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            done = log_in(common, login, &access, port) => done,
            _ = signals.next() => Ok(Ended::Interrupted),
        }
    })
}

async fn log_in(common: &Common, login: &Login, access: &McpAccess, port: Option<u16>) -> anyhow::Result<Ended> {
    let begun = access.login(port).await?;
    if common.json {
        print_line(&json!({ "server": login.name, "url": begun.address() }));
    } else {
        say("open this address in a browser on this machine, and log in there:");
        give(begun.address())?;
    }
    if let Err(error) = begun.finish().await {
        say(format!("{} {:#}", styled(ERROR, "error:"), anyhow::Error::from(error)));
        return Ok(Ended::Failed);
    }
    let file = access.file().map(|file| file.display().to_string());
    match common.json {
        true => print_line(&json!({ "server": login.name, "logged_in": true, "file": file })),
        false => {
            say(format!("logged in to {}", login.name));
            say(styled(QUIET, format!("the tokens are in {}", file.unwrap_or_default())));
        }
    }
    Ok(Ended::Done)
}

fn forget(common: &Common, login: &Login, access: &McpAccess) -> anyhow::Result<Ended> {
    let was_there = access.forget()?;
    match (common.json, was_there) {
        (true, _) => print_line(&json!({ "server": login.name, "logged_in": false, "forgotten": was_there })),
        (false, true) => say(format!("the tokens of {} are deleted", login.name)),
        (false, false) => say(format!("there are no tokens of {}", login.name)),
    }
    Ok(Ended::Done)
}
