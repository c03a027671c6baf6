//! The keys themselves: table by table, each with what it takes, an example and what it means.
//!
//! From the readers beside this folder, whose every key stands here. To [`all`](super::all).

use super::{Key, Kind, Rule, Table, Takes};
use Takes::{
    Amount, Anything, CredentialsByName, Duration, Flag, FlagOr, Inputs, Like, ListLike, Number, OneOf, OneOfOr, Rate,
    Schema, Setting, Settings, SettingsByName, Share, Size, TablesByName, Text, Texts, Whole,
};

const COUNT: Takes = Whole(1, u32::MAX as u64);

const fn key(name: &'static str, takes: Takes, example: &'static str, about: &'static str) -> Key {
    Key { name, takes, example, about, default: None, needed: false }
}

const fn table(kind: Kind, header: &'static str, about: &'static str, keys: &'static [Key]) -> Table {
    Table { kind, header, about, overridden: false, keys, rules: &[] }
}

impl Table {
    const fn overridden(mut self) -> Self {
        self.overridden = true;
        self
    }

    const fn rules(mut self, rules: &'static [Rule]) -> Self {
        self.rules = rules;
        self
    }
}

const READS: Key = key(
    "reads",
    Texts,
    r#"["user/{user_id}"]"#,
    "resource keys that a call reads, as templates over its input; `[]`: none",
);
const WRITES: Key = key("writes", Texts, r#"["user/{user_id}"]"#, "resource keys that a call writes; `[]`: none");
const AFTER: Key = key("after", Texts, r#"["get_user"]"#, "in a batch a call follows the earlier calls of these tools");
const IDEMPOTENT: Key = key("idempotent", Flag, "true", "running it again does no harm").or("false");
const TIMEOUT: Key = key("timeout", Duration, r#""5s""#, "the longest that one attempt may take").or(r#""30s""#);
const DEADLINE: Key =
    key("deadline", Duration, r#""1m""#, "the longest that a call may take, from the end of its waits on other calls")
        .or(r#""2m""#);
const LIMIT: Key =
    key("limit", Text, r#""payments""#, "the limit group whose budget its calls draw on: a section `[limits.NAME]`");
const MAX_RESULT: Key =
    key("max_result", Size, r#""16KiB""#, "what the model is shown of a result at most").or(r#""64KiB""#);
const NESTED: Key =
    key("nested", Flag, "true", "the tool runs calls itself: it takes no locks and no permits").or("false");
const APPROVAL: Key = key(
    "approval",
    OneOfOr(&["never", "always"], Kind::Condition),
    r#"[{ if = "/user_id", equals = "u1" }]"#,
    "whether a person has to agree before a call runs; with conditions on its input, if one of them is met or cannot be judged",
)
.or(r#""never""#);
const UNDECLARED: Key = key(
    "undeclared",
    OneOf(&["serial", "parallel"]),
    r#""parallel""#,
    "calls without declared effects keep their order, or wait for no other call (`Promise.all` by choice)",
)
.or(r#""serial""#);
const STOP_ON_FAILURE: Key = key(
    "stop_on_failure",
    Flag,
    "true",
    "in a batch a call follows the one before it of the same source, and is skipped if that failed",
)
.or("false");

pub(super) static TABLES: [Table; 24] = [
    table(
        Kind::Top,
        "the top of the file",
        "Stands before the first section.",
        &[
            key("mcp_config", Text, r#"".mcp.json""#, "a file of MCP servers as other programs write it; read only when named"),
            key("model", Takes::Table(Kind::Model), "{}", "whom to ask"),
            key("run", Takes::Table(Kind::Run), "{}", "budgets and habits of one run"),
            key("scheduler", Takes::Table(Kind::Scheduler), "{}", "bounds of this process"),
            key("limits", TablesByName(Kind::Limit), r#"{ payments = { rate = "50/s" } }"#, "budgets of external APIs, by name"),
            key(
                "tool",
                Takes::Tables(Kind::Tool),
                r#"[{ name = "f", http = { method = "GET", url = "https://api.example.com" } }]"#,
                "endpoints, statements and programs as tools",
            ),
            key("database", TablesByName(Kind::Database), r#"{ shop = { url = "sqlite://shop.db" } }"#, "databases, by name"),
            key("openapi", TablesByName(Kind::Openapi), r#"{ shop = { spec = "shop.yaml" } }"#, "OpenAPI documents, by name"),
            key("mcp_servers", TablesByName(Kind::McpServer), r#"{ files = { command = "npx" } }"#, "MCP servers, by name"),
            key("server", Takes::Table(Kind::Server), "{}", "the gateway"),
            key("project", TablesByName(Kind::Project), "{ support = { max_cost_usd_per_day = 50.0 } }", "what teams may spend, by name"),
            key(
                "notify",
                Takes::Tables(Kind::Notify),
                r#"[{ url = "https://example.com/hook", secret = "${HOOK_SECRET}" }]"#,
                "who is told what happened",
            ),
            key("store", Takes::Table(Kind::Store), "{}", "where runs are kept"),
            key("worker", Takes::Table(Kind::Worker), "{}", "background runs"),
            key(
                "prices",
                TablesByName(Kind::Price),
                "{ m = { input = 3, output = 15, cache_read = 0.3, cache_write = 3.75 } }",
                "what models cost, by name",
            ),
        ],
    ),
    table(
        Kind::Model,
        "[model]",
        "Whom to ask.",
        &[
            key(
                "base_url",
                Setting,
                r#""http://127.0.0.1:8080""#,
                "where the Messages API is; in `fanout run` the variable `ANTHROPIC_BASE_URL` wins, in `fanout serve` `FANOUT_UPSTREAM_URL`",
            )
            .or(r#""https://api.anthropic.com""#),
            key("api_key", Setting, r#""${file:/run/secrets/key}""#, "its key; not needed for a server on this machine")
                .or(r#""${ANTHROPIC_API_KEY}""#),
            key("name", Like(r"\S", "the name of a model"), r#""claude-sonnet-5-5""#, "the model").or(r#""claude-sonnet-5-5""#),
            key("max_tokens", COUNT, "4096", "the most tokens of one response").or("8192"),
            key("stream", Flag, "false", "whether responses stream").or("true"),
        ],
    )
    .overridden(),
    table(
        Kind::Run,
        "[run]",
        "Budgets and habits of one run. Reaching a budget ends the run as `budget`.",
        &[
            key("max_turns", COUNT, "20", "the most model responses").or("50"),
            key("max_calls", COUNT, "100", "the most calls").or("500"),
            key("max_batch", COUNT, "64", "the most calls of one response, a plan being one; the first ones run, the rest are answered `budget`").or("256"),
            key("max_depth", COUNT, "2", "how deep calls may run calls").or("4"),
            key("max_total_tokens", Whole(1, u64::MAX), "500_000", "the most tokens, both ways").or("2_000_000"),
            key("max_cost_usd", Amount, "0.5", "the most US dollars, by `[prices]`").or("5.0"),
            key("deadline", Duration, r#""5m""#, "the longest that a run may take").or(r#""15m""#),
            key("plan", Flag, "false", "offer the model the tool `plan`: a whole graph of calls in one turn").or("true"),
            key("early_start", Flag, "false", "calls that only read and are repeatable start while the response streams").or("true"),
            key("approval_wait", Duration, r#""1m""#, "how long a call waits for a person; then it ends as `denied`").or(r#""30s""#),
        ],
    )
    .overridden(),
    table(
        Kind::Scheduler,
        "[scheduler]",
        "Bounds of this process.",
        &[
            key("max_in_flight", COUNT, "64", "the most attempts that run at once").or("1024"),
            key("stray_hold", Duration, r#""1s""#, "the longest that work which outlives its call keeps its locks").or(r#""5s""#),
        ],
    )
    .overridden(),
    table(
        Kind::Limit,
        "[limits.NAME]",
        "The budget of one external API. A host without a section has one unasked; `[limits.\"http/api.example.com\"]` changes it.",
        &[
            key("rate", Rate, r#""50/s""#, "attempts that may start in a second, minute or hour"),
            key("burst", COUNT, "10", "how many of them may start at one moment").or("1"),
            key("concurrency", COUNT, "8", "attempts that run at once"),
            key("max_queue", Whole(0, u32::MAX as u64), "100", "calls that wait for their turn; 0: none waits").or("1000"),
            key("max_wait", Duration, r#""10s""#, "the longest that a call waits for its turn").or(r#""60s""#),
            key("retry", Takes::Table(Kind::Retry), "{ attempts = 2 }", "how failed attempts go again"),
            key("breaker", Takes::Table(Kind::Breaker), "{ min_calls = 20 }", "when the API counts as failing"),
        ],
    ),
    table(
        Kind::Retry,
        "retry = { … }",
        "In `[limits.NAME]`: how failed attempts go again.",
        &[
            key("attempts", COUNT, "2", "how often a call is tried, the first time included").or("4"),
            key("base", Duration, r#""100ms""#, "the longest wait before the second attempt; it doubles each time").or(r#""200ms""#),
            key("max", Duration, r#""1m""#, "the longest wait").or(r#""10s""#),
        ],
    ),
    table(
        Kind::Breaker,
        "breaker = { … }",
        "In `[limits.NAME]`: when the API counts as failing and is left alone.",
        &[
            key("failure_ratio", Share, "0.25", "this share of the attempts failed").or("0.5"),
            key("window", Duration, r#""1m""#, "within this time").or(r#""30s""#),
            key("min_calls", COUNT, "20", "of at least so many").or("10"),
            key("cool_down", Duration, r#""1m""#, "then nothing is sent for so long").or(r#""15s""#),
        ],
    ),
    table(
        Kind::Tool,
        "[[tool]]",
        "An endpoint or a program as a tool.",
        &[
            key(
                "name",
                Like(r"^(?!plan$)[A-Za-z0-9_-]{1,128}$", "1 to 128 letters, digits, `_` or `-`, and not `plan`"),
                r#""get_user""#,
                "what the model calls it",
            )
            .needed(),
            key("description", Text, r#""Look up a customer by id.""#, "what the model reads of it").or(r#""""#),
            key(
                "input",
                Inputs,
                r#"{ user_id = { type = "string" }, verbose = { type = "boolean", required = false } }"#,
                "the inputs by name, each a JSON Schema; all are required that do not say `required = false`",
            ),
            key(
                "input_schema",
                Schema,
                r#"{ type = "object", properties = { user_id = { type = "string" } } }"#,
                "the same as a whole JSON Schema",
            ),
            key("input_schema_file", Text, r#""schema.json""#, "the same in a file beside this one"),
            key(
                "http",
                Takes::Table(Kind::Http),
                r#"{ method = "GET", url = "https://api.example.com/users/{user_id}" }"#,
                "a call asks an endpoint",
            ),
            key(
                "command",
                Takes::Table(Kind::Command),
                r#"{ program = "ruff", args = ["check", "--", "{user_id}"] }"#,
                "a call runs a program, without a shell",
            ),
            key(
                "sql",
                Takes::Table(Kind::Sql),
                r#"{ database = "shop", statement = "select name from users where id = :user_id" }"#,
                "a call runs statements, in a transaction of its own",
            ),
            READS,
            WRITES,
            AFTER,
            APPROVAL,
            IDEMPOTENT,
            TIMEOUT,
            DEADLINE,
            LIMIT,
            MAX_RESULT,
            NESTED,
            UNDECLARED,
            STOP_ON_FAILURE,
        ],
    )
    .rules(&[
        Rule::ExactlyOneOf(&["http", "command", "sql"]),
        Rule::AtMostOneOf(&["input", "input_schema", "input_schema_file"]),
    ]),
    table(
        Kind::Condition,
        "approval = [{ … }]",
        "In a `[[tool]]` and `tools.NAME`: one condition on the final input of a call.",
        &[
            key("if", Like("^(/.*)?$", "a JSON pointer such as \"/amount\""), r#""/amount""#, "where to look: a JSON pointer into the input").needed(),
            key("over", Number, "100", "a number above this"),
            key("under", Number, "0", "a number below this"),
            key("equals", Anything, r#""prod""#, "this value"),
            key("absent", Flag, "true", "nothing there, if `true`; anything there, if `false`"),
        ],
    )
    .rules(&[Rule::ExactlyOneOf(&["over", "under", "equals", "absent"])]),
    table(
        Kind::Http,
        "http = { … }",
        "In a `[[tool]]`: the endpoint. Inputs that the URL does not name go into the query (GET, HEAD, DELETE) or a JSON body.",
        &[
            key(
                "method",
                OneOf(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
                r#""POST""#,
                "the method",
            )
            .needed(),
            key("url", Setting, r#""https://api.example.com/users/{user_id}""#, "the address; inputs may stand in its path and query").needed(),
            key("headers", CredentialsByName, r#"{ authorization = "Bearer ${SHOP_TOKEN}" }"#, "headers; inputs and the end user's `${caller.token}` may stand in their values"),
            key("query", SettingsByName, r#"{ dry_run = "false" }"#, "query parameters; inputs may stand in them"),
            key("body", OneOf(&["json", "form", "raw"]), r#""form""#, "how the other inputs are sent"),
        ],
    ),
    table(
        Kind::Command,
        "command = { … }",
        "In a `[[tool]]`: the program. One value is one argument, and never an option.",
        &[
            key("program", Text, r#""ruff""#, "a name that is looked up in `PATH`, or a path").needed(),
            key("args", Settings, r#"["check", "--", "{user_id}"]"#, "its arguments"),
            key("stdin", Setting, r#""{user_id}""#, "what it reads"),
            key("cwd", Text, r#""src""#, "the folder that it is started in: that of this file unless said"),
            key("env", ListLike(ENV, "names such as \"PATH\", and \"NAME=value\""), r#"["PATH", "TOKEN=${TOKEN}"]"#, "the variables that it sees; no others"),
            key("max_output", Size, r#""64KiB""#, "what is kept of each stream").or(r#""1MiB""#),
        ],
    ),
    table(
        Kind::Sql,
        "sql = { … }",
        "In a `[[tool]]`: the statements. `:name` is an input, whose type the database knows from the statement; nothing else of an input gets into it.",
        &[
            key("database", Text, r#""shop""#, "a section `[database.NAME]`").needed(),
            key("statement", Text, r#""update inventory set qty = qty - 1 where sku = :user_id and version = 7""#, "one statement"),
            key("statements", Texts, r#"["insert into log (who) values (:user_id)", "select count(*) from log"]"#, "several, in one transaction"),
            key(
                "expect_rows",
                Whole(0, u32::MAX as u64),
                "1",
                "how many rows each statement that writes must meet (each statement, if none writes); else nothing is kept, and the call is a `conflict`",
            ),
            key("max_rows", COUNT, "100", "how many rows of each statement are handed on").or("1000"),
        ],
    )
    .rules(&[Rule::ExactlyOneOf(&["statement", "statements"])]),
    table(
        Kind::Database,
        "[database.NAME]",
        "A database whose statements are tools.",
        &[
            key("url", Setting, r#""${DATABASE_URL}""#, "`sqlite://FILE`, or `postgres://USER:PASSWORD@HOST/DATABASE` with libpq's `sslmode` and `sslrootcert`").needed(),
            key("pool", COUNT, "5", "the most connections at once").or("20"),
            key(
                "role_from_claims",
                Flag,
                "true",
                "PostgreSQL: each transaction runs as the role, and with the claims, of the end user's verified token (`[server]` `jwt`); without one a call is `not_permitted`",
            )
            .or("false"),
            key("statement_timeout", Duration, r#""2s""#, "the longest that one statement may take").or(r#""10s""#),
        ],
    ),
    table(
        Kind::Openapi,
        "[openapi.NAME]",
        "The operations of an OpenAPI document (3.0, 3.1) as tools `NAME__OPERATION`.",
        &[
            key("spec", Text, r#""shop.yaml""#, "the document, JSON or YAML: a file, or an https address, from which it is downloaded once").needed(),
            key("base_url", Setting, r#""https://api.example.com""#, "where calls go, before the document's own servers"),
            key("include", Texts, r#"["orders/*", "GET /orders"]"#, "the operations that are taken, by id or by method and path; all unless said"),
            key("exclude", Texts, r#"["orders/delete"]"#, "the operations that are not taken"),
            key("auth", CredentialsByName, r#"{ key = "${SHOP_TOKEN}" }"#, "secrets by security scheme, also the end user's `${caller.token}`"),
            LIMIT,
            UNDECLARED,
            STOP_ON_FAILURE,
            key("tools", TablesByName(Kind::SourceTool), r#"{ "orders/create" = { writes = ["orders/*"] } }"#, "what is said of single tools, by operation"),
        ],
    ),
    table(
        Kind::McpServer,
        "[mcp_servers.NAME]",
        "The tools of an MCP server as `NAME__TOOL`. It has a `command` or a `url`, unless `mcp_config` names a server of that name.",
        &[
            key("command", Setting, r#""npx""#, "the program to start"),
            key("args", Settings, r#"["-y", "@modelcontextprotocol/server-filesystem", "."]"#, "its arguments"),
            key("env", SettingsByName, r#"{ LOG = "warn" }"#, "its variables, beside `PATH`, `HOME` and a few more"),
            key("cwd", Text, r#""src""#, "the folder that it is started in: that of this file unless said"),
            key("url", Setting, r#""https://example.com/mcp""#, "the address of a server over streamable HTTP"),
            key("http_headers", SettingsByName, r#"{ authorization = "Bearer ${TOKEN}" }"#, "headers sent to it"),
            key(
                "oauth",
                FlagOr(Kind::Oauth),
                r#"{ scopes = ["issues:read"] }"#,
                "it demands OAuth: `fanout login NAME` once, or `client_credentials`; tokens are kept and renewed",
            )
            .or("false"),
            key("enabled_tools", Texts, r#"["read_text_file"]"#, "the tools that are taken; all unless said"),
            key("disabled_tools", Texts, r#"["move_file"]"#, "the tools that are not taken"),
            LIMIT,
            UNDECLARED,
            STOP_ON_FAILURE,
            key("tools", TablesByName(Kind::SourceTool), r#"{ read_text_file = { reads = ["file/{path...}"], writes = [] } }"#, "what is said of single tools, by the server's name for them"),
        ],
    )
    .rules(&[Rule::AtMostOneOf(&["command", "url"])]),
    table(
        Kind::Oauth,
        "oauth = { … }",
        "In `[mcp_servers.NAME]`: how one becomes entitled to use a server over HTTP. `true` is a login without any of this.",
        &[
            key("client_id", Setting, r#""${TRACKER_ID}""#, "how its authorization server knows fanout; unless said, fanout registers there itself"),
            key("client_secret", Setting, r#""${TRACKER_SECRET}""#, "the secret that goes with `client_id`"),
            key("scopes", Texts, r#"["issues:read"]"#, "what is asked for; what the server names unless said"),
            key("client_credentials", Flag, "true", "id and secret are enough, and nobody logs in").or("false"),
            key("redirect_port", Whole(1, u16::MAX as u64), "8765", "the port of 127.0.0.1 that a browser comes back to after a login, where the authorization server insists on one; any that is free unless said"),
        ],
    ),
    table(
        Kind::SourceTool,
        "tools.NAME = { … }",
        "In `[openapi.NAME]` and `[mcp_servers.NAME]`: what is said of one tool.",
        &[READS, WRITES, AFTER, APPROVAL, IDEMPOTENT, TIMEOUT, DEADLINE, LIMIT, MAX_RESULT, NESTED],
    ),
    table(
        Kind::Server,
        "[server]",
        "The gateway, `fanout serve`.",
        &[
            key(
                "listen",
                Like(r":[0-9]{1,5}\s*$", "an address and a port"),
                r#""0.0.0.0:8787""#,
                "where it listens; the variable `PORT` wins. Anything but loopback demands keys",
            )
            .or(r#""127.0.0.1:8787""#),
            key("keys_file", Text, r#""keys.toml""#, "written by `fanout keys`; hashed").or(r#""keys.toml""#),
            key(
                "hosts",
                ListLike("^[A-Za-z0-9._-]+$", "names without a port"),
                r#"["fanout.example.com"]"#,
                "further names that clients may call it by; any demands keys",
            )
            .or("[]"),
            key("plan", Flag, "false", "offer clients and their models the tool `plan`").or("false"),
            key(
                "writes_after_client",
                OneOf(&["wait", "run"]),
                r#""run""#,
                "our writes that come after a client's own call wait for its results, or run",
            )
            .or(r#""wait""#),
            key("disconnect_grace", Duration, r#""1m""#, "how long a run goes on after its client is gone").or(r#""10s""#),
            key("jwt", Takes::Table(Kind::Jwt), r#"{ jwks_url = "https://x.supabase.co/auth/v1/.well-known/jwks.json", audience = "authenticated" }"#, "how end users' tokens (`fanout-user-token`) are verified; unless said they are not, and what receives one must"),
        ],
    )
    .overridden(),
    table(
        Kind::Jwt,
        "jwt = { … }",
        "In `[server]`: by whose keys end users' tokens are verified. It has a `jwks_url` or a `secret`.",
        &[
            key("jwks_url", Setting, r#""https://x.supabase.co/auth/v1/.well-known/jwks.json""#, "where the issuer publishes its keys, for RS256, ES256, EdDSA and their kin"),
            key("secret", Setting, r#""${JWT_SECRET}""#, "the secret of HS256, at least 32 bytes"),
            key("issuer", Setting, r#""https://x.supabase.co/auth/v1""#, "who must have issued a token (`iss`)"),
            key("audience", Setting, r#""authenticated""#, "for whom it must be meant (`aud`)"),
        ],
    )
    .rules(&[Rule::ExactlyOneOf(&["jwks_url", "secret"])]),
    table(
        Kind::Project,
        "[project.NAME]",
        "What a team may use and spend through a gateway. A key belongs to a team by `fanout keys add --project NAME`. A day is one of UTC. A request of which nobody knows what it took, since its answer broke off, counts as the most that it could have cost. What was spent is kept in the journal, for all processes on one `[store]`.",
        &[
            key(
                "tools",
                Texts,
                r#"["get_*", "list_orders"]"#,
                "the tools that its keys may use, `*` for any characters; others are not there for them. All unless said",
            ),
            key("max_cost_usd_per_day", Amount, "50.0", "the most US dollars a day, by `[prices]`, for all its keys together"),
            key("max_cost_usd_per_key_per_day", Amount, "10.0", "the most US dollars a day for each of its keys"),
        ],
    ),
    table(
        Kind::Notify,
        "[[notify]]",
        "Who is told what happened, by a signed webhook: see [notify.md](notify.md).",
        &[
            key("url", Setting, r#""https://example.com/hook""#, "where notices are sent").needed(),
            key("secret", Setting, r#""${HOOK_SECRET}""#, "what they are signed with").needed(),
            key(
                "events",
                ListLike("^(run_ended|budget|breaker_open|approval)$", "events"),
                r#"["run_ended", "budget"]"#,
                "what is told",
            )
            .or(r#"["run_ended", "budget", "breaker_open", "approval"]"#),
        ],
    ),
    table(
        Kind::Store,
        "[store]",
        "Where runs are kept.",
        &[
            key(
                "url",
                Text,
                r#""memory:""#,
                "the journal: a SQLite file, relative to the configuration; a PostgreSQL (`postgres://…`, or `${DATABASE_URL}`); or `memory:`, which keeps nothing beyond the process",
            )
            .or(r#""sqlite://.fanout/fanout.db""#),
            key("retention", Duration, r#""7d""#, "for how long a run is kept after its end").or(r#""30d""#),
        ],
    )
    .overridden(),
    table(
        Kind::Worker,
        "[worker]",
        "Background runs.",
        &[
            key("concurrency", COUNT, "16", "how many of them go on at once in this process").or("4"),
            key("lease", Duration, r#""10s""#, "the runs of a process that is gone are looked for three times in so long")
                .or(r#""30s""#),
            key("watchdog", Duration, r#""10m""#, "a run in which nothing happens for so long is stopped").or(r#""5m""#),
        ],
    )
    .overridden(),
    table(
        Kind::Price,
        "[prices.\"MODEL\"]",
        "What a model costs, in US dollars per million tokens.",
        &[
            key("input", Amount, "3.00", "tokens sent").needed(),
            key("output", Amount, "15.00", "tokens received").needed(),
            key("cache_read", Amount, "0.30", "tokens read from the cache").needed(),
            key("cache_write", Amount, "3.75", "tokens written to the cache").needed(),
        ],
    ),
];

/// `PATH`, or a name with a [`Setting`](super::super::Setting).
const ENV: &str = r"^[A-Za-z_][A-Za-z0-9_]*(=(\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*(:-([^$}]|\$(?!\{))*)?|file:[^}]+)\}|\$(?!\{)|[^$])*)?$";
