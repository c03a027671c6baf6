//! The `fanout` binary: runs the tool calls of a Claude agent in parallel, with the answer of one by one.
//!
//! One file per command, in the order of `fanout help`. [`args`] holds every flag and its words.

mod args;

mod approvals;
mod call;
mod check;
mod controls;
mod demo;
mod explain;
mod init;
mod keys;
mod login;
mod mcp;
mod reload;
mod replay;
mod run;
mod runs;
mod schema;
mod serve;

mod content;
mod exit;
mod gateway;
mod interrupt;
mod loaded;
mod log;
mod person;
mod show;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// A gateway allocates much and small on every thread, and keeps some of it for long; see `docs/decisions/0010-allocator.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    // A server has a log of its own.
    if !matches!(args.command, Command::Serve(_)) {
        show::log();
    }
    let done = match &args.command {
        Command::Demo(demo) => demo::demo(&args.common, demo),
        Command::Run(run) => run::run(&args.common, run),
        Command::Call => call::call(&args.common),
        Command::Explain(explain) => explain::explain(&args.common, explain),
        Command::Check(check) => check::check(&args.common, check),
        Command::Init(init) => init::init(&args.common, init),
        Command::Schema => schema::schema(&args.common),
        Command::Serve(serve) => serve::serve(&args.common, serve),
        Command::Mcp(mcp) => mcp::mcp(&args.common, mcp),
        Command::Login(login) => login::login(&args.common, login),
        Command::Runs(runs) => runs::runs(&args.common, runs),
        Command::Pause(at) => controls::pause(&args.common, at.url.as_deref(), true),
        Command::Unpause(at) => controls::pause(&args.common, at.url.as_deref(), false),
        Command::Tools(tools) => controls::tools(&args.common, tools),
        Command::Limits(limits) => controls::limits(&args.common, limits),
        Command::Breaker(breaker) => controls::breaker(&args.common, breaker),
        Command::Audit(audit) => controls::audit(&args.common, audit),
        Command::Status => runs::status(&args.common),
        Command::Reload => reload::reload(&args.common),
        Command::Approvals(all) => approvals::approvals(&args.common, all),
        Command::Keys(keys) => keys::keys(&args.common, keys),
    };
    exit::code(done)
}
