//! Every flag, and its help text.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Runs the tool calls of a Claude agent in parallel, with the answer of one by one.
#[derive(Debug, Parser)]
#[command(name = "fanout", version, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done (`call`: a reply was written, even with failed calls), 1 the run failed or was refused,
2 usage or configuration, 3 a budget or limit, 130 interrupted.

Environment: ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL; FANOUT_SECTION__KEY overrides a key of the configuration, as
FANOUT_RUN__MAX_TURNS=5; RUST_LOG and NO_COLOR are honoured.

Example, without a key and without a configuration:
  fanout demo")]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Common {
    /// The configuration. Without it: `fanout.toml` here or in a folder above, if it is yours.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// JSON on standard output, for programs: one object a line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it: a scripted Claude processes an order over slow APIs, all on this machine. No key, no configuration.
    #[command(after_help = "\
Examples:
  fanout demo
  fanout demo --plan
  fanout demo --json > events.jsonl")]
    Demo(Demo),
    /// Ask the model, run its calls, answer, until it is done. Progress on standard error, the answer on standard output.
    Run(Run),
    /// Run the calls of one response: an assistant message, its content or a whole API response on standard input; the user
    /// message with the results on standard output.
    #[command(after_help = "\
Examples:
  fanout call < assistant.json > user.json
  fanout --config fanout.toml call --json < assistant.json

Calls that fail, that name no tool or that find no budget are answered with an error, so that every call has a result. An
interruption (Ctrl-C, SIGTERM) ends the calls and still writes a result for each.")]
    Call,
    /// Show what would wait for what. Runs nothing, and needs no secrets. Takes what `call` takes.
    #[command(after_help = "\
Examples:
  fanout explain < assistant.json
  fanout explain --format mermaid < assistant.json > graph.mmd
  fanout --config fanout.toml explain --json < assistant.json")]
    Explain(Explain),
    /// List tools, what they read and write and who says so, time-outs, limit groups, and what one line more would let run in parallel.
    Check(Check),
    /// Begin: a commented configuration and a starter that works. No file that is there is touched.
    Init(Init),
    /// Print the JSON Schema of the configuration, for editors: descriptions, defaults, and what is spelled wrong as you type.
    #[command(after_help = "\
Example:
  fanout schema > fanout.schema.json

Editors with TOML support take it from the first line of the configuration: #:schema ./fanout.schema.json")]
    Schema,
    /// Run the gateway: the Messages API with your tools behind it, and `tool_calls` for loops of your own.
    Serve(Serve),
    /// Offer your tools to an MCP client, over standard input and output. The client starts it; several may run at once.
    Mcp(Mcp),
    /// Log in to an MCP server that demands OAuth: in a browser, once. Its tokens are kept and renewed from then on.
    Login(Login),
    /// The runs that the journal has: list them, look at one, stop, resume or forget them.
    #[command(subcommand)]
    #[command(after_help = "\
Example:
  fanout runs list")]
    Runs(Runs),
    /// Begin no more runs in the background, in any process that shares the journal. Those under way go on.
    #[command(after_help = "\
Example:
  fanout pause")]
    Pause(At),
    /// Begin them again.
    #[command(after_help = "\
Example:
  fanout unpause")]
    Unpause(At),
    /// Take a tool out of use, or put it back, in every process that shares the journal: its calls are `not_permitted`, and say why.
    #[command(subcommand)]
    #[command(after_help = "\
Examples:
  fanout tools disable refund --reason \"it pays twice\"
  fanout tools enable refund")]
    Tools(Tools),
    /// Set the limits of a group otherwise than the configuration says, at once and through restarts.
    #[command(subcommand)]
    #[command(after_help = "\
Examples:
  fanout limits set payments concurrency=2 rate=10/s --reason \"they asked for less\"
  fanout limits set http/api.example.com concurrency=none
  fanout limits reset payments")]
    Limits(Limits),
    /// Keep everything from an external API, or let it through again: its calls are `circuit_open` meanwhile.
    #[command(subcommand)]
    #[command(after_help = "\
Examples:
  fanout breaker open payments --for 30m --reason \"maintenance\"
  fanout breaker close payments")]
    Breaker(Breaker),
    /// Say who changed what: orders, decisions on approvals, stopped runs, keys, reloads. Newest first; nothing is ever taken out.
    Audit(Audit),
    /// Say how things stand: what runs, what waits, and for whom.
    #[command(after_help = "\
Examples:
  fanout status
  fanout status --json")]
    Status,
    /// Have the running gateway read its configuration again. It takes all of it or nothing, and what changed is printed.
    #[command(after_help = "\
Examples:
  fanout reload
  fanout --config fanout.toml reload --json

The gateway is found where the configuration says that it listens. Where it demands keys, FANOUT_KEY must hold one made with
`fanout keys add --admin`. Calls and runs that have begun end as they began; limits hold from now on for all. The same is
done by the signal SIGHUP, and `POST /fanout/v1/reload`.")]
    Reload,
    /// The calls that wait for a person's approval at the running gateway, and deciding them.
    Approvals(Approvals),
    /// Who may use the gateway. On this machine's loopback nobody needs a key; anywhere else everybody does.
    Keys(Keys),
}

/// Where an order is given.
#[derive(Debug, ClapArgs)]
pub struct At {
    /// The gateway to ask; without it the order goes to the journal of the configuration. FANOUT_URL does the same.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// What an order is about, and where it is given.
#[derive(Debug, ClapArgs)]
pub struct On {
    /// Its name, as `fanout check` prints it.
    pub name: String,
    /// The gateway to ask; without it the order goes to the journal of the configuration. FANOUT_URL does the same.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// `fanout tools`
#[derive(Debug, Subcommand)]
pub enum Tools {
    /// Take it out of use. Attempts under way go on; calls that come or wait are told why they are not run.
    #[command(after_help = "Example:\n  fanout tools disable refund --reason \"it pays twice\"")]
    Disable(Disable),
    /// Put it back.
    #[command(after_help = "Example:\n  fanout tools enable refund")]
    Enable(On),
}

/// `fanout tools disable`
#[derive(Debug, ClapArgs)]
pub struct Disable {
    #[command(flatten)]
    pub on: On,
    /// Why: the model and the audit trail are told.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `fanout limits`
#[derive(Debug, Subcommand)]
pub enum Limits {
    /// Set some of its limits; the others are the configuration's. Each `set` takes the place of the one before.
    #[command(after_help = "Example:\n  fanout limits set payments concurrency=2 rate=10/s")]
    Set(SetLimits),
    /// Have it as the configuration says.
    #[command(after_help = "Example:\n  fanout limits reset payments")]
    Reset(On),
}

/// `fanout limits set`
#[derive(Debug, ClapArgs)]
pub struct SetLimits {
    #[command(flatten)]
    pub on: On,
    /// rate, burst, concurrency, max_queue or max_wait, as in [limits.NAME]; `none` for no rate or no bound.
    #[arg(required = true, value_name = "KEY=VALUE")]
    pub limits: Vec<String>,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `fanout breaker`
#[derive(Debug, Subcommand)]
pub enum Breaker {
    /// Send nothing. Attempts under way go on.
    #[command(after_help = "Example:\n  fanout breaker open payments --for 30m")]
    Open(OpenBreaker),
    /// Send again, and count failures from nothing.
    #[command(after_help = "Example:\n  fanout breaker close payments")]
    Close(On),
}

/// `fanout breaker open`
#[derive(Debug, ClapArgs)]
pub struct OpenBreaker {
    #[command(flatten)]
    pub on: On,
    /// For how long, such as 30m; until it is closed, if absent.
    #[arg(long = "for", value_name = "TIME")]
    pub lasts: Option<String>,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `fanout audit`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  fanout audit
  fanout audit --limit 1000 --json")]
pub struct Audit {
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// The gateway to ask; without it the journal of the configuration is read. FANOUT_URL does the same.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// `fanout runs`
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// The runs, newest first.
    #[command(after_help = "\
Examples:
  fanout runs list
  fanout runs list --state running --limit 5
  fanout runs list --json")]
    List(RunsList),
    /// One run: its picture, its figures, what it cost. With --json all its events, one a line.
    #[command(after_help = "\
Examples:
  fanout runs show run_0123
  fanout runs show run_0123 --json")]
    Show(RunId),
    /// Run a run again under a new id, and say what came out otherwise: with the answers that were recorded, so that no tool is
    /// called and no model asked, or with --live.
    #[command(after_help = "\
Examples:
  fanout runs replay run_0123
  fanout runs replay run_0123 --json
  fanout runs replay --live run_0123

With recorded answers the engine runs again, by today's declarations and limits: each answer comes after the time that it took,
so picture and figures say what a changed declaration brings. It ends with 0 if there is no difference, with 1 if there is one.")]
    Replay(RunsReplay),
    /// Print a run as a trace in the Chrome trace event format, which Perfetto opens (ui.perfetto.dev).
    #[command(after_help = "\
Example:
  fanout runs export run_0123 > trace.json")]
    Export(RunId),
    /// Stop a run, or all: what waits ends at once, what is under way within about a second, its calls answered.
    #[command(after_help = "\
Examples:
  fanout runs cancel run_0123
  fanout runs cancel --all")]
    Cancel(RunsCancel),
    /// Go on with the runs whose process is gone, and wait until they have ended. `fanout serve` does so when it starts.
    #[command(after_help = "\
Example:
  fanout runs resume")]
    Resume,
    /// Forget the runs that ended before `retention` in the configuration, or longer ago than said here.
    #[command(after_help = "\
Examples:
  fanout runs prune
  fanout runs prune --older-than 7d")]
    Prune(RunsPrune),
}

/// Which run.
#[derive(Debug, ClapArgs)]
pub struct RunId {
    /// Its id, as `fanout runs list` prints it; the beginning is enough where no other has it.
    pub run: String,
}

/// `fanout runs replay`
#[derive(Debug, ClapArgs)]
pub struct RunsReplay {
    /// Its id; the beginning is enough where no other has it.
    pub run: String,
    /// Ask the model and call the tools, with all that they do. A batch calls its tools.
    #[arg(long)]
    pub live: bool,
}

/// `fanout runs list`
#[derive(Debug, ClapArgs)]
pub struct RunsList {
    /// Only those in this state: proposed, queued, running, done, failed, budget, refused, cancelled.
    #[arg(long)]
    pub state: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
}

/// `fanout runs cancel`
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct RunsCancel {
    /// Its id; the beginning is enough where no other has it.
    pub run: Option<String>,
    /// Every run that has not ended.
    #[arg(long)]
    pub all: bool,
}

/// `fanout runs prune`
#[derive(Debug, ClapArgs)]
pub struct RunsPrune {
    /// Such as 7d, 12h or 30m; that of the configuration if absent.
    #[arg(long, value_name = "TIME")]
    pub older_than: Option<String>,
}

/// `fanout demo`
#[derive(Debug, ClapArgs)]
pub struct Demo {
    /// The order twice: turn after turn, then in one turn that plans all of it; both pictures, and what the plan saved.
    #[arg(long)]
    pub plan: bool,
}

/// `fanout run`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  fanout run \"Which of our orders are late?\"
  fanout run --system \"Answer in one word.\" \"Is order 7 paid?\"
  fanout --config fanout.toml run --json \"Which of our orders are late?\" > events.jsonl

The key is ANTHROPIC_API_KEY, or `api_key` in [model]; a server on this machine, as ANTHROPIC_BASE_URL=http://127.0.0.1:8080,
needs none. ANTHROPIC_BASE_URL wins over `base_url` in [model].")]
pub struct Run {
    /// What to ask.
    pub prompt: String,
    /// What the model is told before anything else.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
}

/// `fanout check`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  fanout check
  fanout --config fanout.toml check --json
  fanout check --write

What --write adds is a proposal, and marked as one: only you know what a tool really touches.")]
pub struct Check {
    /// Add the declarations that are proposed to the configuration, keep all else of it as it is, and show the difference.
    #[arg(long)]
    pub write: bool,
}

/// `fanout init`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  fanout init notes
  fanout init --template nextjs-supabase app
  fanout init --template python shop
  fanout init --template mcp servers")]
pub struct Init {
    /// Where to; it is made if there is none.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// What to begin with; without it, two tools that read and write notes.
    #[arg(long, value_enum, value_name = "NAME")]
    pub template: Option<Template>,
}

/// A starter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A Next.js app whose tools are the REST API of a Supabase project.
    NextjsSupabase,
    /// A Python script with the official SDK, and tools in Python.
    Python,
    /// An MCP server behind Fanout, for an MCP client.
    Mcp,
}

/// `fanout explain`
#[derive(Debug, ClapArgs)]
pub struct Explain {
    /// How to print the graph; --json is the same as `json`.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How a graph is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading.
    Text,
    /// For programs.
    Json,
    /// For a picture.
    Mermaid,
}

/// `fanout serve`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  fanout serve --demo
  fanout serve --config fanout.toml

It listens on `listen` of [server], 127.0.0.1:8787 unless told otherwise; PORT wins over its port. Requests go on to
`base_url` of [model]; FANOUT_UPSTREAM_URL wins. Ctrl-C or SIGTERM stops it: what runs is given time, a second signal
gives it none.")]
pub struct Serve {
    /// For trying any client without a key: a scripted Claude as the upstream, and the tools of a shop on this machine.
    #[arg(long)]
    pub demo: bool,
}

/// `fanout mcp`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  fanout mcp --print-config claude-code > .mcp.json

Calls that touch different things run at once; those that touch the same things keep their order.")]
pub struct Mcp {
    /// Print the entry to paste into a client's settings, and serve nothing.
    #[arg(long, value_enum, value_name = "CLIENT")]
    pub print_config: Option<Client>,
}

/// A client of MCP servers, by how it wants to be told of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// Claude Code.
    ClaudeCode,
    /// Claude Desktop.
    ClaudeDesktop,
    /// Cursor.
    Cursor,
    /// Codex.
    Codex,
}

/// `fanout login`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  fanout login tracker
  fanout login --forget tracker

Its address is printed, to be opened in a browser on this machine. The server is [mcp_servers.NAME] with `oauth = true`; the
tokens stand in .fanout/mcp beside the configuration, in a file that only you can read.")]
pub struct Login {
    /// The server, as the configuration calls it.
    pub name: String,
    /// Delete its tokens. What runs goes on with its own until that expires.
    #[arg(long)]
    pub forget: bool,
}

/// `fanout keys`
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  fanout keys add --project support\n  fanout keys list")]
pub struct Keys {
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys. They stand in the `keys_file` of the configuration, hashed; a running gateway notices at once.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it on standard output, this once.
    Add(AddKey),
    /// List the keys by their ids.
    #[command(after_help = "Example:\n  fanout keys list --json")]
    List,
    /// Take a key away.
    #[command(after_help = "Example:\n  fanout keys revoke KEY_ID")]
    Revoke {
        /// The id of the key, as `list` shows it.
        id: String,
    },
}

/// `fanout approvals`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  fanout approvals list
  fanout approvals list --url http://127.0.0.1:8787
  fanout approvals approve APPROVAL_ID --words \"fine, but tell the customer\"
  fanout approvals deny APPROVAL_ID --words \"too much\"

The questions are those of the journal that the configuration names. With --url or FANOUT_URL, or with a key in FANOUT_KEY, a
gateway is asked instead: the key must be one made with `fanout keys add --approve` for the same project, or with --admin.")]
pub struct Approvals {
    /// The gateway to ask.
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    #[command(subcommand)]
    pub command: ApprovalsCommand,
}

/// What to do with approvals.
#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// List those that can be decided, newest first.
    #[command(after_help = "Example:\n  fanout approvals list --all")]
    List {
        /// Those that are decided or over, too.
        #[arg(long)]
        all: bool,
    },
    /// Let the call run, exactly as it is listed.
    #[command(after_help = "Example:\n  fanout approvals approve APPROVAL_ID")]
    Approve(Decide),
    /// Do not let it run.
    #[command(after_help = "Example:\n  fanout approvals deny APPROVAL_ID --words \"too much\"")]
    Deny(Decide),
}

/// A decision.
#[derive(Debug, ClapArgs)]
pub struct Decide {
    /// The id of the approval, as `list` shows it.
    pub id: String,
    /// What the model is told.
    #[arg(long, value_name = "TEXT")]
    pub words: Option<String>,
}

/// `fanout keys add`
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  FANOUT_KEY=$(fanout keys add --project support)
  fanout keys add --admin
  fanout keys add --project support --approve")]
pub struct AddKey {
    /// The team that will use it.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// It sees what others began, and may change the gateway.
    #[arg(long)]
    pub admin: bool,
    /// It may decide on approvals.
    #[arg(long)]
    pub approve: bool,
}
