//! A table of mistakes and what each is answered.

use std::path::Path;

use fanout_host::config::Config;
use fanout_host::environment::Environment;

/// The mistakes of a text, one line each.
fn mistakes(text: &str, variables: &[(&str, &str)]) -> String {
    let environment: Environment = variables.iter().copied().collect();
    match Config::parse("fanout.toml", text, Path::new("/nowhere"), &environment) {
        Ok(_) => "none".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

#[track_caller]
fn check(text: &str, answer: &str) {
    assert_eq!(mistakes(text, &[]), answer, "{text}");
}

/// Checks what one key of a tool is answered; it stands at line 5.
#[track_caller]
fn check_tool(line: &str, answer: &str) {
    let text = format!(
        "[[tool]]\nname = \"get_user\"\nhttp = {{ method = \"GET\", url = \"http://a.example/{{user_id}}\" }}\ninput = {{ user_id = {{ type = \"string\" }} }}\n{line}\n"
    );
    check(&text, &format!("fanout.toml:5:{answer}"));
}

/// Checks what one line of `http` is answered; it stands at line 5.
#[track_caller]
fn check_http(method: &str, line: &str, answer: &str) {
    let text = format!(
        "tool = [{{ name = \"f\", input = {{ id = {{ type = \"string\" }}, text = {{ type = \"string\" }} }},\nhttp = {{\nmethod = \"{method}\",\n\n{line}\n}} }}]"
    );
    check(&text, &format!("fanout.toml:5:{answer}"));
}

#[test]
fn a_key_that_nobody_knows_names_the_nearest() {
    check_tool("tiemout = \"1s\"", "1: unknown key `tiemout` in [[tool]] `get_user`; did you mean `timeout`?");
    check("[run]\nmax_turn = 1", "fanout.toml:2:1: unknown key `max_turn` in [run]; did you mean `max_turns`?");
    check("[modle]\nname = \"x\"", "fanout.toml:1:2: unknown key `modle`; did you mean `model`?");
    check("[limit.x]", "fanout.toml:1:2: unknown key `limit`; did you mean `limits`?");
    check(
        "[scheduler]\nzzz = 1",
        "fanout.toml:2:1: unknown key `zzz` in [scheduler]; the keys are `max_in_flight`, `stray_hold`",
    );
    check(
        "[prices.m]\ninput = 1\noutput = 1\ncache_read = 1\ncache_write = 1\ncache_reed = 1",
        "fanout.toml:6:1: unknown key `cache_reed` in [prices.\"m\"]; did you mean `cache_read`?",
    );
}

#[test]
fn a_value_of_the_wrong_kind_names_the_right_one() {
    for (line, answer) in [
        ("deadline = \"soon\"", "12: `deadline` must be a duration such as \"30s\" or \"5m\", not \"soon\""),
        ("deadline = 30", "12: `deadline` must be a duration such as \"30s\" or \"5m\", not 30"),
        ("timeout = \"0s\"", "11: `timeout` must be a duration such as \"30s\" or \"5m\", not \"0s\""),
        ("max_result = \"64K\"", "14: `max_result` must be a size such as \"64KiB\" or \"1MB\", not \"64K\""),
        ("max_result = 0", "14: `max_result` must be a size such as \"64KiB\" or \"1MB\", not 0"),
        ("idempotent = \"yes\"", "14: `idempotent` must be true or false, not \"yes\""),
        ("description = 7", "15: `description` must be a text in quotes, not 7"),
        ("reads = \"user\"", "9: `reads` must be a list such as [\"a\", \"b\"], not \"user\""),
        ("reads = [\"a\", 7]", "15: `reads` must be a list of texts in quotes, not 7"),
    ] {
        check_tool(line, answer);
    }
    check("[run]\nmax_turns = -1", "fanout.toml:2:13: `max_turns` must be a whole number from 1 to 4294967295, not -1");
    check(
        "[run]\nmax_total_tokens = 0",
        "fanout.toml:2:20: `max_total_tokens` must be a whole number of at least 1, not 0",
    );
    check("[run]\nmax_cost_usd = nan", "fanout.toml:2:16: `max_cost_usd` must be a number of at least 0, not nan");
    check("[model]\nname = \"\"", "fanout.toml:2:8: `name` must be the name of a model, not \"\"");
    check("run = 7", "fanout.toml:1:7: `run` must be a table such as { key = \"value\" }, not 7");
    check("[tool]\nname = \"x\"", "fanout.toml:1:1: `tool` must be written as [[tool]], once for each");
    check("[prices]\nm = 3", "fanout.toml:2:5: `m` must be a table such as { key = \"value\" }, not 3");
    check(
        "[prices.m]\ninput = 1\noutput = \"x\"\ncache_read = 1",
        "fanout.toml:1:1: [prices.\"m\"] needs `cache_write`, in US dollars for a million tokens\n\
         fanout.toml:3:10: `output` must be a number of at least 0, not \"x\"",
    );
}

#[test]
fn a_secret_is_not_repeated() {
    check("[model]\napi_key = 12345", "fanout.toml:2:11: `api_key` must be a text in quotes");
    check("[model]\napi_key = \"s3cret${\"", "fanout.toml:2:11: in `api_key` a `${` has no `}`");
    check_http(
        "GET",
        "url = \"http://a.example\", headers = \"Bearer s3cret\"",
        "37: `headers` must be a table such as { key = \"value\" }, not a text",
    );
    check("model = \"s3cret\"", "fanout.toml:1:9: `model` must be a table such as { key = \"value\" }, not a text");
    check_http(
        "GET",
        "url = \"http://a.example\", query = { a = \"s3cret ${caller.token}\" }",
        "41: `${caller.token}` cannot stand in `a`: it differs from call to call, and only a header of an `http` tool or `auth` of [openapi.NAME] can hold it",
    );
}

#[test]
fn a_template_must_name_what_the_input_has() {
    for (line, answer) in [
        (
            "reads = [\"user/{userid}\"]",
            "10: `user/{userid}` names `userid`, which the input lacks; did you mean `user_id`?",
        ),
        ("writes = [\"a\", \"b/{x}\"]", "16: `b/{x}` names `x`, which the input lacks"),
        ("writes = [\"a/{\"]", "11: `a/{`: a `{` needs a field name and a `}`, as in `orders/{id}`"),
        ("writes = [\"*/a\"]", "11: `*/a`: `*` can only be the last segment, as in `orders/*`"),
        (
            "after = [\"get_usr\"]",
            "10: `after` names `get_usr`, which is no tool of this file; did you mean `get_user`?",
        ),
    ] {
        check_tool(line, answer);
    }
}

#[test]
fn an_endpoint_is_checked_before_any_secret_is_read() {
    let url = "url = \"http://a.example/{id}\"";
    let reserved = "is set by the connection itself";
    for (method, line, answer) in [
        ("GET", "url = \"a.example\"", "7: a url must start with `https://` or `http://`".to_owned()),
        ("GET", "url = \"http://{id}.example\"", "7: the scheme, host and port of a url must be fixed: fields such as `{id}` can only stand in its path and query".to_owned()),
        ("GET", "url = \"http://a.example/{ids}\"", "7: the url or the query names `ids`, which the input lacks; did you mean `id`?".to_owned()),
        ("GET", &format!("{url}, body = \"json\""), "39: GET sends no body: its inputs go into the path and the query".to_owned()),
        ("POST", &format!("{url}, body = \"xml\""), "39: `body` must be \"json\", \"form\" or \"raw\", not \"xml\"".to_owned()),
        ("GET", &format!("{url}, headers = {{ host = \"x\" }}"), format!("44: the header `host` {reserved}")),
        ("GET", &format!("{url}, headers = {{ x = \"a {{txt}}\" }}"), "44: the header `x` names `txt`, which the input lacks; did you mean `text`?".to_owned()),
        ("GET", &format!("{url}, headers = {{ host = \"{{text}}\" }}"), format!("44: the header `host` {reserved}")),
        ("POST", &format!("{url}, headers = {{ x = \"{{text}}\" }}, body = \"raw\""), "67: a raw body is the one input that neither the url, the query nor a header names, but 0 are left".to_owned()),
        ("GET", &format!("{url}, query = {{ q = \"{{txt}}\" }}"), "42: the url or the query names `txt`, which the input lacks; did you mean `text`?".to_owned()),
        ("GET", &format!("{url}, querry = {{}}"), "32: unknown key `querry` in `http` of [[tool]] `f`; did you mean `query`?".to_owned()),
    ] {
        check_http(method, line, &answer);
    }
}

/// Checks what one line of `command` is answered; it stands at line 5.
#[track_caller]
fn check_command(line: &str, answer: &str) {
    let text = format!(
        "tool = [{{ name = \"f\", input = {{ id = {{ type = \"string\" }}, text = {{ type = \"string\" }} }},\ncommand = {{\n\n\n{line}\n}} }}]"
    );
    check(&text, &format!("fanout.toml:5:{answer}"));
}

#[test]
fn a_program_is_checked_before_any_secret_is_read() {
    for (line, answer) in [
        ("program = \"\"", "11: the program must be a path or a name that stands in PATH, such as \"ruff\""),
        (
            "program = \"{id}\"",
            "11: the program must be fixed: fields such as `{path}` can only stand in its arguments and standard input",
        ),
        ("program = \"${X}\"", "11: `program` takes no `${…}`: what runs must be written out"),
        ("program = 7", "11: `program` must be a text in quotes, not 7"),
        (
            "program = \"a\", args = [\"x\", \"{idd}\"]",
            "29: argument 2 names `idd`, which the input lacks; did you mean `id`?",
        ),
        (
            "program = \"a\", args = [\"{id\"]",
            "24: in argument 1 a `{` needs a field name and a `}`, as in `{path}`; a plain brace is written twice",
        ),
        (
            "program = \"a\", args = [\"--{id}\"]",
            "24: in argument 1 an input would choose the option; write its name out, as in `--name={value}`",
        ),
        ("program = \"a\", args = \"s3cret\"", "23: `args` must be a list such as [\"a\", \"b\"]"),
        ("program = \"a\", args = [7]", "24: `args` must be a text in quotes"),
        ("program = \"a\", args = [\"s3cret ${\"]", "24: in `args` a `${` has no `}`"),
        ("program = \"a\", stdin = \"{txt}\"", "24: `stdin` names `txt`, which the input lacks; did you mean `text`?"),
        ("program = \"a\", env = [\"A B\"]", "23: `env` takes names such as \"PATH\", and \"NAME=value\""),
        ("program = \"a\", env = [\"=s3cret\"]", "23: `env` takes names such as \"PATH\", and \"NAME=value\""),
        ("program = \"a\", env = [\"${X}\"]", "23: `env` takes names such as \"PATH\", and \"NAME=value\""),
        (
            "program = \"a\", max_output = \"1M\"",
            "29: `max_output` must be a size such as \"64KiB\" or \"1MB\", not \"1M\"",
        ),
        ("program = \"a\", cwd = 1", "22: `cwd` must be a text in quotes, not 1"),
        ("program = \"a\", arg = []", "16: unknown key `arg` in `command` of [[tool]] `f`; did you mean `args`?"),
    ] {
        check_command(line, answer);
    }
    check("[[tool]]\nname = \"f\"\ncommand = {}", "fanout.toml:3:11: `command` of [[tool]] `f` needs `program`");
    check(
        "[[tool]]\nname = \"f\"\ncommand = \"s3cret\"",
        "fanout.toml:3:11: `command` must be a table such as { program = \"ruff\", args = [\"check\", \"--\", \"{user_id}\"] }, not a text",
    );
    check_tool("command = { program = \"a\" }", "11: [[tool]] `get_user` does one thing: `http`, `sql` or `command`");
    check_command(
        "program = \"a\", args = [\"{a\", \"{b}\"]",
        "24: in argument 1 a `{` needs a field name and a `}`, as in `{path}`; a plain brace is written twice\nfanout.toml:5:30: argument 2 names `b`, which the input lacks",
    );
}

#[test]
fn a_method_is_one_of_a_few() {
    check(
        "[[tool]]\nname = \"f\"\nhttp = { method = \"get\", url = \"http://a.example\" }",
        "fanout.toml:3:19: `method` must be one of \"GET\", \"HEAD\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\", \"OPTIONS\", not \"get\"",
    );
    check(
        "[[tool]]\nname = \"f\"\nhttp = {}",
        "fanout.toml:3:8: `http` of [[tool]] `f` needs `method`\nfanout.toml:3:8: `http` of [[tool]] `f` needs `url`",
    );
    check(
        "[[tool]]\nname = \"f\"",
        "fanout.toml:1:1: [[tool]] `f` needs `http = { method = …, url = … }`, `sql = { database = …, statement = … }` or `command = { program = …, args = […] }`",
    );
}

#[test]
fn a_tool_has_a_name_of_its_own() {
    let tool = |name: &str| format!("[[tool]]\n{name}\nhttp = {{ method = \"GET\", url = \"http://a.example\" }}\n");
    check(&tool(""), "fanout.toml:1:1: a [[tool]] needs a `name`");
    check(&tool("name = \"a b\""), "fanout.toml:2:8: `name` must be 1 to 128 letters, digits, `_` or `-`, not \"a b\"");
    check(&tool("name = \"plan\""), "fanout.toml:2:8: `plan` is a built-in tool; this one needs another name");
    let twice = tool("name = \"a\"") + &tool("name = \"a\"");
    check(&twice, "fanout.toml:5:8: two tools are called `a`; the first stands at fanout.toml:2:8");
}

#[test]
fn an_input_is_described_once_and_rightly() {
    let tool = |line: &str| {
        format!("[[tool]]\nname = \"f\"\nhttp = {{ method = \"GET\", url = \"http://a.example\" }}\n{line}")
    };
    check(
        &tool("input = {}\ninput_schema = { type = \"object\" }"),
        "fanout.toml:5:16: `input` and `input_schema` say the same thing; one of them is enough",
    );
    check(
        &tool("input_schema = { type = \"array\" }"),
        "fanout.toml:4:16: `input_schema` must say type = \"object\": the input of a tool is one",
    );
    check(
        &tool("input = { a = \"string\" }"),
        "fanout.toml:4:15: `a` must be a table such as { key = \"value\" }, not \"string\"",
    );
    check(
        &tool("input_schema_file = \"gone.json\""),
        "fanout.toml:4:21: gone.json cannot be read: No such file or directory (os error 2)",
    );
    let wrong = mistakes(&tool("input = { a = { type = \"strin\" } }"), &[]);
    assert!(
        wrong.starts_with("fanout.toml:4:9: `input` is not a valid JSON Schema at /properties/a/type: \"strin\""),
        "{wrong}"
    );
}

#[test]
fn every_mistake_is_reported() {
    check(
        "[run]\nmax_turns = \"x\"\ndeadline = 1\nfoo = 2\n[[tool]]\nname = \"f\"\ntimeout = 3\n[limits.x]\nrate = \"0/s\"\n",
        "fanout.toml:2:13: `max_turns` must be a whole number from 1 to 4294967295, not \"x\"\n\
         fanout.toml:3:12: `deadline` must be a duration such as \"30s\" or \"5m\", not 1\n\
         fanout.toml:4:1: unknown key `foo` in [run]; the keys are `approval_wait`, `deadline`, `early_start`, \
         `max_batch`, `max_calls`, `max_cost_usd`, `max_depth`, `max_total_tokens`, `max_turns`, `plan`\n\
         fanout.toml:5:1: [[tool]] `f` needs `http = { method = …, url = … }`, `sql = { database = …, statement = … }` or `command = { program = …, args = […] }`\n\
         fanout.toml:7:11: `timeout` must be a duration such as \"30s\" or \"5m\", not 3\n\
         fanout.toml:9:8: `rate` must be so many calls a second, minute or hour, such as \"50/s\", \"600/m\" or \"1000/h\", not \"0/s\"",
    );
}

#[test]
fn what_is_not_toml_is_reported_with_each_place_and_nothing_else() {
    check(
        "[run]\nmax_turn = 1\ndeadline = 5m\n[model]\nname = \"x\n[run]\n",
        "fanout.toml:3:12: a text must stand in quotes, as in key = \"value\"; so must durations, rates and sizes\n\
         fanout.toml:5:10: a text is not closed: `\"` is missing at the end of the line\n\
         fanout.toml:6:2: `run` is given twice; the first stands in line 1",
    );
}

#[test]
fn what_is_not_in_this_version_is_refused() {
    let later = |key: &str, lost: &str| format!("`{key}` is not in this version of fanout: {lost}");
    check("workspace = {}", &format!("fanout.toml:1:1: {}", later("workspace", "there are no file tools yet")));
    let lost = "the tools would use those of everybody";
    check("[project.a]\ncredentials = {}", &format!("fanout.toml:2:1: {}", later("credentials", lost)));
}

#[test]
fn the_journal_is_a_file_or_nothing() {
    for url in ["", "x", "sqlite://", "sqlite::memory:", "sqlite://x?mode=ro", "mysql://x"] {
        let message = "`url` of [store] must be \"sqlite://FILE\", \"postgres://…\" or \"memory:\"";
        check(&format!("[store]\nurl = \"{url}\""), &format!("fanout.toml:2:7: {message}"));
    }
}

#[test]
fn a_team_has_a_name_and_amounts() {
    check("[project.a]\nmax_cost_usd_per_day = 0", "none");
    check(
        "[project.a]\nmax_cost_usd_per_day = -1",
        "fanout.toml:2:24: `max_cost_usd_per_day` must be a number of at least 0, not -1",
    );
    check(
        "[project.a]\nmax_cost_usd = 1",
        "fanout.toml:2:1: unknown key `max_cost_usd` in [project.a]; did you mean `max_cost_usd_per_day`? `max_cost_usd` is a key of [run]",
    );
    check("[project.\"\"]", "fanout.toml:1:10: a project needs a name, as in [project.support]");
    check(
        "[project]\nmax_cost_usd_per_day = 1",
        "fanout.toml:2:24: `max_cost_usd_per_day` is a key of [project.NAME]: what it is about needs a name before it",
    );
}

#[test]
fn who_is_told_needs_an_address_a_secret_and_events_that_there_are() {
    let whole = "url = \"https://a.example\"\nsecret = \"${S}\"\n";
    check(&format!("[[notify]]\n{whole}"), "none");
    for (lines, answer) in [
        ("secret = \"${S}\"", "1:1: [[notify]] number 1 needs a `url`"),
        ("url = \"https://a.example\"", "1:1: [[notify]] number 1 needs a `secret`"),
        ("url = \"https://a.example\"\nsecret = \" \"", "3:10: `secret` is empty: anybody could sign with it"),
        (
            "secret = \"${S}\"\nurl = \"a.example\"",
            "3:7: `url` must be an address such as \"https://example.com/hook\"",
        ),
    ] {
        check(&format!("[[notify]]\n{lines}"), &format!("fanout.toml:{answer}"));
    }
    for (line, answer) in [
        ("events = []", "4:10: `events` is empty, so nobody would be told anything; take the [[notify]] away"),
        (
            "events = [\"budget\", \"run_end\"]",
            "4:21: `events` takes \"run_ended\", \"budget\", \"breaker_open\", \"approval\", not \"run_end\"",
        ),
        ("event = []", "4:1: unknown key `event` in [[notify]] number 1; did you mean `events`?"),
    ] {
        check(&format!("[[notify]]\n{whole}{line}"), &format!("fanout.toml:{answer}"));
    }
    check("[notify]\nurl = 1", "fanout.toml:1:1: `notify` must be written as [[notify]], once for each");
}

#[test]
fn a_variable_that_overrides_nothing_names_the_nearest() {
    let check = |variable: &str, value: &str, answer: &str| {
        assert_eq!(mistakes("", &[(variable, value)]), answer);
    };
    check(
        "FANOUT_RUN__MAX_TURN",
        "3",
        "FANOUT_RUN__MAX_TURN: unknown key `max_turn` in [run]; did you mean `max_turns`?",
    );
    check(
        "FANOUT_RUN__MAX_TURNS",
        "x",
        "FANOUT_RUN__MAX_TURNS: `max_turns` must be a whole number from 1 to 4294967295",
    );
    check(
        "FANOUT_TEAM__TOOLS",
        "4",
        "FANOUT_TEAM__TOOLS: there is no section `TEAM` to override; a variable can override keys of [model], [run], [scheduler], [server], [store] and [worker]",
    );
}

#[test]
fn a_gateway_is_told_what_its_keys_take() {
    for (line, answer) in [
        (
            "listen = \"8787\"",
            "10: `listen` must be an address and a port such as \"127.0.0.1:8787\" or \"0.0.0.0:8787\", not \"8787\"",
        ),
        (
            "listen = \"example.com:80\"",
            "10: `listen` must be an address and a port such as \"127.0.0.1:8787\" or \"0.0.0.0:8787\", not \"example.com:80\"",
        ),
        ("writes_after_client = \"maybe\"", "23: `writes_after_client` must be \"wait\" or \"run\", not \"maybe\""),
        ("disconnect_grace = 10", "20: `disconnect_grace` must be a duration such as \"30s\" or \"5m\", not 10"),
        ("plan = \"no\"", "8: `plan` must be true or false, not \"no\""),
        ("hosts = \"a\"", "9: `hosts` must be a list such as [\"a\", \"b\"], not \"a\""),
        (
            "hosts = [\"a.example\", \"b:80\"]",
            "23: `hosts` takes names such as \"fanout.example.com\", without a port, not \"b:80\"",
        ),
        (
            "jwt = \"s3cret\"",
            "7: `jwt` must be a table such as { jwks_url = \"https://x.supabase.co/auth/v1/.well-known/jwks.json\", audience = \"authenticated\" }, not a text",
        ),
        (
            "jwt = { audience = \"a\" }",
            "7: `jwt` needs a `jwks_url`, where the issuer publishes its keys, or the `secret` of HS256",
        ),
        (
            "jwt = { secret = \"s3cret\", jwks_url = \"https://a.example\" }",
            "7: `jwt` has a `jwks_url` and a `secret`; tokens are verified by the one or by the other",
        ),
        ("jwt = { secret = \"\" }", "18: `secret` of `jwt` is empty"),
        ("jwt = { secret = 7 }", "18: `secret` must be a text in quotes"),
        (
            "jwt = { secret = \"s\", aud = \"a\" }",
            "23: unknown key `aud` in `jwt` of [server]; did you mean `audience`?",
        ),
        ("key_file = \"k\"", "1: unknown key `key_file` in [server]; did you mean `keys_file`?"),
    ] {
        check(&format!("[server]\n{line}"), &format!("fanout.toml:2:{answer}"));
    }
}

#[test]
fn a_condition_of_approval_says_where_to_look_and_for_one_thing() {
    let or = "`approval` must be \"never\", \"always\" or conditions such as [{ if = \"/amount\", over = 100 }]";
    for (text, at, message) in [
        ("approval = true", 12, format!("{or}, not true")),
        (
            "approval = [{ over = 1 }]",
            13,
            "a condition of `approval` needs `if`, where to look: \"/amount\", say".into(),
        ),
        (
            "approval = [{ if = \"amount\", over = 1 }]",
            20,
            "`if` must be a JSON pointer such as \"/amount\", not \"amount\"".into(),
        ),
        (
            "approval = [{ if = \"/a\" }]",
            13,
            "a condition of `approval` needs one of `over`, `under`, `equals` and `absent`".into(),
        ),
        (
            "approval = [{ if = \"/a\", over = 1, absent = true }]",
            45,
            "a condition of `approval` looks for one thing: `over` or `absent`".into(),
        ),
        (
            "approval = [{ if = \"/a\", over = \"1\" }]",
            33,
            "`over` must be a number such as 100 or 0.5, not \"1\"".into(),
        ),
        (
            "approval = [{ if = \"/a\", ovre = 1 }]",
            13,
            "a condition of `approval` needs one of `over`, `under`, `equals` and `absent`\nfanout.toml:5:26: unknown key `ovre` \
             in a condition of `approval`; did you mean `over`?"
                .into(),
        ),
    ] {
        check_tool(text, &format!("{at}: {message}"));
    }
}
