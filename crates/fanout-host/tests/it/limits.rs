//! `[limits.NAME]`: what each key comes to, what is answered to mistakes, and which tools are in which group.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::limits::{BreakerOptions, LimitOptions, Rate};
use fanout_core::retry::Backoff;
use fanout_core::run::{RunOptions, Scheduler};
use fanout_host::build::{Purpose, build_toolbox};
use fanout_host::config::Config;
use fanout_host::databases::Databases;
use fanout_host::environment::Environment;
use fanout_host::groups::{groups, unused};
use fanout_tools::command::Programs;
use serde_json::json;

use crate::config::parse;

fn some(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or_else(|| panic!("{number}"))
}

/// What this section comes to.
fn options(section: &str) -> LimitOptions {
    let config = parse(&format!("[limits.x]\n{section}"), &[]);
    config.limits["x"].options.clone()
}

/// What one line of a section is answered; it stands at line 2.
#[track_caller]
fn check(line: &str, answer: &str) {
    let text = format!("[limits.x]\n{line}\n");
    check_text(&text, &format!("fanout.toml:2:{answer}"));
}

#[track_caller]
fn check_text(text: &str, answer: &str) {
    let parsed = Config::parse("fanout.toml", text, Path::new("."), &Environment::default());
    assert_eq!(parsed.map_or_else(|errors| errors.to_string(), |_| "none".to_owned()), answer, "{text}");
}

/// A tool of this host.
fn tool(name: &str, host: &str, more: &str) -> String {
    format!("[[tool]]\nname = \"{name}\"\nhttp = {{ method = \"GET\", url = \"https://{host}/\" }}\n{more}\n")
}

#[test]
fn every_key_changes_one_thing() {
    let default = LimitOptions::default;
    let rate = |calls, seconds| Some(Rate { calls: some(calls), per: Duration::from_secs(seconds) });
    let retry = |change: fn(&mut Backoff)| {
        let mut options = LimitOptions::default();
        change(&mut options.retry);
        options
    };
    let breaker = |change: fn(&mut BreakerOptions)| {
        let mut options = LimitOptions::default();
        change(&mut options.breaker);
        options
    };
    for (line, expected) in [
        ("", default()),
        ("rate = \"50/s\"", LimitOptions { rate: rate(50, 1), ..default() }),
        ("rate = \"600/m\"", LimitOptions { rate: rate(600, 60), ..default() }),
        ("rate = \"7/h\"", LimitOptions { rate: rate(7, 3_600), ..default() }),
        ("burst = 10", LimitOptions { burst: some(10), ..default() }),
        ("concurrency = 8", LimitOptions { concurrency: Some(some(8)), ..default() }),
        ("max_queue = 5", LimitOptions { queue_max: 5, ..default() }),
        ("max_queue = 0", LimitOptions { queue_max: 0, ..default() }),
        ("max_wait = \"5m\"", LimitOptions { wait_max: Duration::from_secs(300), ..default() }),
        ("retry = {}", default()),
        ("retry = { attempts = 1 }", retry(|retry| retry.attempts = 1)),
        ("retry = { base = \"1s\" }", retry(|retry| retry.base = Duration::from_secs(1))),
        ("retry = { max = \"1m\" }", retry(|retry| retry.max = Duration::from_secs(60))),
        ("breaker = { failure_ratio = 1 }", breaker(|breaker| breaker.failure_ratio = 1.0)),
        ("breaker = { failure_ratio = 0.25 }", breaker(|breaker| breaker.failure_ratio = 0.25)),
        ("breaker = { window = \"1m\" }", breaker(|breaker| breaker.window = Duration::from_secs(60))),
        ("breaker = { min_calls = 3 }", breaker(|breaker| breaker.calls_min = 3)),
        ("breaker = { cool_down = \"1s\" }", breaker(|breaker| breaker.cool_down = Duration::from_secs(1))),
    ] {
        assert_eq!(options(line), expected, "{line}");
    }
}

#[test]
fn the_scheduler_is_given_them_all() {
    let config = parse("[scheduler]\nmax_in_flight = 3\n[limits.a]\nconcurrency = 1\n[limits.\"b c\"]\n", &[]);
    let options = config.scheduler_options();
    assert_eq!((options.in_flight_max, options.limits.len()), (3, 2));
    assert_eq!(options.limits[&"a".into()].concurrency, Some(some(1)));
    assert_eq!(options.limits[&"b c".into()], LimitOptions::default());
}

#[test]
fn mistakes_name_their_place_and_what_would_be_right() {
    let rate = "`rate` must be so many calls a second, minute or hour, such as \"50/s\", \"600/m\" or \"1000/h\"";
    let count = "must be a whole number from 1 to 4294967295";
    let share = "`failure_ratio` must be a share above 0 and up to 1, such as 0.5";
    for (line, answer) in [
        ("rate = \"0/s\"", format!("8: {rate}, not \"0/s\"")),
        ("rate = 50", format!("8: {rate}, not 50")),
        ("rate = \"50/d\"", format!("8: {rate}, not \"50/d\"")),
        ("burst = 0", format!("9: `burst` {count}, not 0")),
        ("concurrency = 0", format!("15: `concurrency` {count}, not 0")),
        ("max_queue = -1", "13: `max_queue` must be a whole number from 0 to 4294967295, not -1".to_owned()),
        ("max_wait = 60", "12: `max_wait` must be a duration such as \"30s\" or \"5m\", not 60".to_owned()),
        ("retry = { attempts = 0 }", format!("22: `attempts` {count}, not 0")),
        ("retry = 4", "9: `retry` must be a table such as { attempts = 2 }, not 4".to_owned()),
        (
            "retry = { attemps = 3 }",
            "11: unknown key `attemps` in `retry` of [limits.x]; did you mean `attempts`?".to_owned(),
        ),
        (
            "retry = { base = \"20s\" }",
            "9: `retry` of [limits.x] waits 20s at first (`base`) and never longer than 10s (`max`)".to_owned(),
        ),
        ("breaker = { failure_ratio = 1.5 }", format!("29: {share}, not 1.5")),
        ("breaker = { failure_ratio = 0 }", format!("29: {share}, not 0")),
        ("breaker = { failure_ratio = -0.1 }", format!("29: {share}, not -0.1")),
        ("breaker = { failure_ratio = nan }", format!("29: {share}, not nan")),
        ("breaker = { min_calls = 0 }", format!("25: `min_calls` {count}, not 0")),
        (
            "breaker = { cooldown = \"1s\" }",
            "13: unknown key `cooldown` in `breaker` of [limits.x]; did you mean `cool_down`?".to_owned(),
        ),
        ("concurency = 8", "1: unknown key `concurency` in [limits.x]; did you mean `concurrency`?".to_owned()),
    ] {
        check(line, &answer);
    }
    check_text("limits = 3", "fanout.toml:1:10: `limits` must be a table such as { key = \"value\" }, not 3");
    check_text("[limits]\nx = 3", "fanout.toml:2:5: `x` must be a table such as { key = \"value\" }, not 3");
    check_text("[limits.\"\"]", "fanout.toml:1:9: a limit group needs a name, as in [limits.payments]");
    check_text(
        "[limits.in_flight]",
        "fanout.toml:1:9: `in_flight` is what the bound on all attempts is called; a group needs another name",
    );
}

#[test]
fn a_tool_that_runs_calls_itself_names_no_group() {
    let with = |more: &str| format!("[limits.x]\n{}", tool("f", "a.example", more));
    let mistake = "fanout.toml:5:1: `limit` does nothing for [[tool]] `f`: with `nested = true` the calls that it runs wait for \
                   permits, it does not; leave one of the two out";
    check_text(&with("limit = \"x\"\nnested = true"), mistake);
    check_text(&with("limit = \"x\"\nnested = false"), "none");
    check_text(&with("nested = true"), "none");
}

#[test]
fn a_tool_names_a_group_that_there_is() {
    let sections = "[limits.payments]\n[limits.crm]\n";
    let with = |limit: &str| format!("{sections}{}", tool("f", "a.example", limit));
    check_text(&with("limit = \"crm\""), "none");
    check_text(
        &with("limit = \"payment\""),
        "fanout.toml:6:9: `limit` names `payment`, which is no limit group of this file; did you mean `payments`?",
    );
    check_text(
        &with("limit = \"zzz\""),
        "fanout.toml:6:9: `limit` names `zzz`, which is no limit group of this file; there must be a section [limits.zzz]",
    );
    check_text(&with("limit = 3"), "fanout.toml:6:9: `limit` must be a text in quotes, not 3");
    // A mistake in the section is told there, once.
    check_text(
        &format!("[limits.a]\nburst = 0\n{}", tool("f", "a.example", "limit = \"a\"")),
        "fanout.toml:2:9: `burst` must be a whole number from 1 to 4294967295, not 0",
    );
}

#[test]
fn a_budget_on_a_tool_is_shown_to_its_place() {
    for key in ["rate", "burst", "concurrency", "max_queue", "max_wait", "retry", "breaker"] {
        check_text(
            &tool("f", "a.example", &format!("{key} = 1")),
            &format!(
                "fanout.toml:4:1: unknown key `{key}` in [[tool]] `f`; it belongs into [limits.NAME], and the tool says `limit = \"NAME\"`"
            ),
        );
    }
}

#[test]
fn a_burst_without_a_rate_is_warned_of() {
    let warnings = parse("[limits.x]\nburst = 3", &[]).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].to_string(), "fanout.toml:2:1: `burst` of [limits.x] does nothing without a `rate`");
}

/// The groups of a configuration: name, whether unasked, tools.
fn grouped(text: &str) -> Vec<(String, bool, Vec<String>)> {
    let config = parse(text, &[]);
    let toolbox =
        build_toolbox(&config, &Environment::default(), Purpose::Run, &Programs::new(), &Databases::default())
            .unwrap_or_else(|error| panic!("{error}"));
    let group = |group: fanout_host::groups::Group| {
        (group.name.to_string(), group.unasked, group.tools.iter().map(ToString::to_string).collect())
    };
    groups(&config, &toolbox).into_iter().map(group).collect()
}

#[test]
fn tools_are_in_the_group_that_they_name_else_in_that_of_their_host() {
    let text = "[limits.payments]\n[limits.\"http/b.example:8443\"]\n".to_owned()
        + &tool("pay", "a.example", "limit = \"payments\"")
        + &tool("get", "A.example", "")
        + &tool("list", "a.example", "")
        + &tool("b", "b.example:8443", "")
        + &tool("agent", "a.example", "nested = true");
    let expected = [
        ("http/a.example", true, vec!["get", "list"]),
        ("http/b.example:8443", false, vec!["b"]),
        ("payments", false, vec!["pay"]),
    ];
    let expected = expected.map(|(name, unasked, tools)| {
        (name.to_owned(), unasked, tools.into_iter().map(str::to_owned).collect::<Vec<_>>())
    });
    assert_eq!(grouped(&text), expected);
}

/// What is shown must be what holds.
#[tokio::test]
async fn the_scheduler_sees_the_same_groups() {
    let text = "[limits.payments]\nconcurrency = 3\n[limits.\"http/127.0.0.1:1\"]\nrate = \"9/s\"\n".to_owned()
        + &tool("pay", "127.0.0.1:1", "limit = \"payments\"")
        + &tool("get", "127.0.0.1:1", "")
        + &tool("other", "127.0.0.1:2", "")
        + &tool("agent", "127.0.0.1:3", "nested = true");
    let config = parse(&text.replace("https://", "http://"), &[]);
    let toolbox = std::sync::Arc::new(
        build_toolbox(&config, &Environment::default(), Purpose::Run, &Programs::new(), &Databases::default()).unwrap(),
    );
    let scheduler = Scheduler::new(config.scheduler_options());
    let mut run = scheduler.run(std::sync::Arc::clone(&toolbox), RunOptions::new("r"));
    let mut batch = run.batch();
    for (at, name) in (0..).zip(["pay", "get", "other", "agent"]) {
        batch.call(Call::new(at, name, name, json!({}))).unwrap();
    }
    drop(batch);
    let mut seen: Vec<_> = scheduler.limits().into_iter().map(|group| (group.name, group.concurrency)).collect();
    seen.sort();
    let at_once = |options: &LimitOptions| options.concurrency.map(|most| most.get() as usize);
    let shown: Vec<_> =
        groups(&config, &toolbox).into_iter().map(|group| (group.name, at_once(&group.options))).collect();
    assert_eq!(seen, shown);
    assert_eq!(shown[0], ("http/127.0.0.1:1".into(), Some(32)), "a section changes what it names and leaves the rest");
}

#[test]
fn a_section_that_no_tool_uses_is_warned_of() {
    let warnings = |text: &str| {
        let config = parse(text, &[]);
        let toolbox =
            build_toolbox(&config, &Environment::default(), Purpose::Look, &Programs::new(), &Databases::default())
                .unwrap();
        unused(&config, &toolbox).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let tools = tool("get", "api.example.com", "") + &tool("pay", "b.example", "limit = \"p\"");
    let text = format!(
        "[limits.p]\n[limits.q]\n[limits.\"http/API.example.com\"]\n[limits.\"http/api.example.com\"]\n{tools}"
    );
    assert_eq!(
        warnings(&text),
        [
            "fanout.toml:3:9: no tool uses [limits.\"http/API.example.com\"]; a tool takes it with `limit = \"http/API.example.com\"`",
            "fanout.toml:2:9: no tool uses [limits.q]; a tool takes it with `limit = \"q\"`",
        ]
    );
    let text = format!("[limits.p]\n[limits.\"http/api.example.co\"]\n{tools}");
    assert_eq!(
        warnings(&text),
        [
            "fanout.toml:2:9: no tool uses [limits.\"http/api.example.co\"]; did you mean [limits.\"http/api.example.com\"]?"
        ]
    );
    let example = include_str!("../../../../fanout.example.toml").replace("${SHOP_TOKEN}", "x");
    assert_eq!(warnings(&example), [""; 0]);
}

/// The page for users shows every key, and every piece of configuration on it can be read.
#[test]
fn the_page_about_limits_is_true() {
    let page = include_str!("../../../../docs/limits.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    assert_eq!(blocks.len(), 2);
    assert_eq!(parse(&blocks.concat(), &[]).warnings, [], "together they are one file");
    let shown = parse(blocks[0], &[]);
    let payments = &shown.limits["payments"].options;
    let defaults = LimitOptions {
        rate: payments.rate,
        burst: payments.burst,
        concurrency: payments.concurrency,
        ..LimitOptions::default()
    };
    assert_eq!(*payments, defaults, "what has a default is shown with it");
    for key in ["rate", "burst", "concurrency", "max_queue", "max_wait"] {
        assert!(blocks[0].contains(key) && page.contains(&format!("| `{key}` |")), "{key}");
    }
    for key in ["attempts", "base", "max"] {
        assert!(page.contains(&format!("`retry.{key}`")), "{key}");
    }
    for key in ["failure_ratio", "window", "min_calls", "cool_down"] {
        assert!(page.contains(&format!("`breaker.{key}`")), "{key}");
    }
}
