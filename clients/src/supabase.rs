//! The app of `examples/supabase`, as it stands: two users with tokens of their own, from the route to the rows.
//!
//! From the `fanout` binary, a PostgreSQL of its own with Supabase's roles and a pooler before it, and a Claude that looks an order up by calls of one
//! turn. To the app's own test, which asks its route in the name of both.

use std::path::Path;

use anyhow::{Context, ensure};
use fanout_script::{Conversation, Server, ServerOptions, Turn};
use fanout_testing::postgres::{Pgbouncer, Postgres};
use serde_json::json;

use crate::install::{node_package, root};
use crate::nextjs::npm;
use crate::stage::Gateway;
use crate::system::{Need, SERVERS};

/// What the tokens of its users are signed with.
const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";

/// What is looked up of an order, in one turn.
const LOOKED_UP: [&str; 4] = ["get_order", "list_order_lines", "get_customer", "get_shipment"];

/// Installs the app, builds it, and runs its test against a gateway with its configuration.
///
/// # Errors
/// When a step fails; the error holds what it said.
pub async fn test(fanout: &Path) -> anyhow::Result<String> {
    SERVERS.iter().try_for_each(Need::meet)?;
    let example = root().join("examples/supabase");
    let place = node_package("supabase", &example)?;
    npm(&place, &["run", "build"], &[]).await?;
    let read = |name: &str| std::fs::read_to_string(example.join(name)).with_context(|| format!("reading {name}"));
    let postgres = Postgres::start()?;
    let database = postgres.database().await?;
    // As Supabase has it: through a pooler in transaction mode, which gives a connection to one user after another.
    let pooler = Pgbouncer::start(&postgres)?;
    let url = pooler.url(&database.supabase().await?);
    database.sql(&read("schema.sql")?).await.context("schema.sql")?;
    database.sql(&read("seed.sql")?).await.context("seed.sql")?;
    let claude = Server::start(ServerOptions::responder(says))?;
    let base_url = claude.base_url();
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("SUPABASE_JWT_SECRET", SECRET),
        ("FANOUT_UPSTREAM_URL", &base_url),
        ("ANTHROPIC_API_KEY", "scripted"),
    ];
    let gateway = Gateway::of_database(&read("fanout.toml")?, &variables, fanout).await?;
    let variables = [("FANOUT_URL", gateway.url()), ("SUPABASE_JWT_SECRET", SECRET)];
    let asked = npm(&place, &["test"], &variables).await;
    asked.with_context(|| format!("the gateway logged:\n{}", gateway.log()))?;
    // How every token of HS256 begins.
    ensure!(!gateway.log().contains("eyJ"), "a user's token is in the gateway's log:\n{}", gateway.log());
    gateway.end().await?;
    ensure!(claude.violations().is_empty(), "the model refused requests: {:?}", claude.violations());
    let requests = claude.requests();
    ensure!(!requests.is_empty(), "nobody asked the model");
    let told = requests.iter().find(|request| request.header("fanout-user-token").is_some());
    ensure!(told.is_none(), "a user's token was sent to the model: {told:?}");
    claude.stop().await;
    Ok(format!("answered in {} requests", requests.len()))
}

/// Asks for all of an order at once, or for the note; then repeats what it was told.
fn says(conversation: &Conversation) -> Turn {
    let results = conversation.tool_results();
    if !results.is_empty() {
        let told: Vec<String> = results.into_iter().map(|result| result.text).collect();
        return Turn::text(told.join(" and "));
    }
    let prompt: String = conversation.first_user_texts().collect();
    let number: String = prompt.chars().filter(char::is_ascii_digit).collect();
    let order: u64 = number.parse().unwrap_or_default();
    match prompt.split_once(": ") {
        Some((_, note)) => Turn::calls([("set_note", json!({ "order_id": order, "version": 1, "note": note }))]),
        None => Turn::calls(LOOKED_UP.map(|tool| (tool, json!({ "order_id": order })))),
    }
}
