//! Plans through the real driver: what they come to, when, and what the model reads of them.
//!
//! Time is paused. Tools sleep as long as their input says and answer with it, so that an answer shows what was filled in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::event::{Event, Recorder, What};
use fanout_core::outcome::{CallError, Content, ErrorCode, Outcome, Output};
use fanout_core::run::{AtMost, Batch, Bounds, RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};
use tokio::time::Instant;

/// A tool that answers its input after `ms` milliseconds; `read` and `write` touch `k/{key}`, `list` answers `count` items,
/// `fail` fails.
struct Fake(&'static str);

impl Tool for Fake {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.0, Source::function());
        spec.input_schema = json!({"type": "object", "properties": {"ms": {"type": "integer"}}, "required": ["ms"]});
        let template = |text| vec![Template::parse(text).unwrap()];
        spec.effects = match self.0 {
            "read" => EffectsSpec { reads: Some(template("k/{key}")), writes: Some(vec![]), ..spec.effects },
            "list" | "echo" | "text" | "picture" | "says_error" => {
                EffectsSpec { reads: Some(vec![]), writes: Some(vec![]), ..spec.effects }
            }
            _ => EffectsSpec { writes: Some(template("k/{key}")), ..spec.effects },
        };
        spec.policy.stop_on_failure = self.0 == "chain";
        spec.policy.result_max = RESULT_MAX;
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let name = self.0;
        Box::pin(async move {
            let input = (*attempt.input).clone();
            tokio::time::sleep(Duration::from_millis(input["ms"].as_u64().unwrap())).await;
            if name == "fail" || input["fail"] == json!(true) {
                return Err(ToolError::Failed("no such thing".into()));
            }
            Ok(match name {
                "text" => Output::text(input["text"].as_str().unwrap()),
                "picture" => {
                    let picture = Content::Image { media_type: "image/png".into(), data: "QQ==".into() };
                    Output { content: vec![Content::Text("a cat".into()), picture], ..Output::default() }
                }
                "says_error" => Output { is_error: true, ..Output::text("no such file") },
                "list" => {
                    let items: Vec<Value> =
                        (0..input["count"].as_u64().unwrap()).map(|id| json!({ "id": id })).collect();
                    Output::json(json!({ "items": items }))
                }
                _ => Output::json(input),
            })
        })
    }
}

/// What is shown at most of one call, and of a plan.
const RESULT_MAX: usize = 20_000;
const PLAN_MAX: usize = 50_000;

fn toolbox() -> Arc<Toolbox> {
    let mut toolbox = Toolbox::new();
    for name in ["read", "write", "list", "echo", "fail", "chain", "text", "picture", "says_error"] {
        toolbox.add(Fake(name)).unwrap();
    }
    toolbox.add_plan(PLAN_MAX).unwrap();
    Arc::new(toolbox)
}

/// The attempts of a run, in the order in which they started: `ID@MS`.
#[derive(Default)]
struct Starts(Mutex<Vec<String>>);

impl Recorder for Starts {
    fn record(&self, event: &Event) {
        if let What::AttemptStarted { call, .. } = &event.what {
            self.0.lock().unwrap().push(format!("{call}@{}", event.at.as_millis()));
        }
    }
}

struct Played {
    outcomes: Vec<Arc<Outcome>>,
    ms: u128,
    starts: String,
}

impl Played {
    /// The text of the first outcome.
    fn text(&self) -> &str {
        match &self.outcomes[0].shown[0] {
            Content::Text(text) => text,
            Content::Image { .. } => "image",
        }
    }

    /// The starts, those of one moment by name.
    fn sorted(&self) -> String {
        let mut starts: Vec<&str> = self.starts.split(' ').collect();
        starts.sort_by_key(|start| (start.split('@').nth(1).unwrap().parse::<u64>().unwrap(), *start));
        starts.join(" ")
    }

    fn answer(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }
}

/// Runs the plans and calls, named `a`, `b`, …, as one batch.
async fn play(calls: &[(&str, Value)], prepare: impl FnOnce(&mut Batch<'_>)) -> Played {
    let starts = Arc::new(Starts::default());
    let mut options = RunOptions::new("run");
    options.recorder = Some(Arc::clone(&starts) as Arc<dyn Recorder>);
    let mut run = Scheduler::new(SchedulerOptions::default()).run(toolbox(), options);
    let started = Instant::now();
    let mut batch = run.batch();
    prepare(&mut batch);
    for (index, (tool, input)) in calls.iter().enumerate() {
        let id = char::from(b'a' + index as u8).to_string();
        batch.call(Call::new(index as u32, id, *tool, input.clone())).unwrap();
    }
    let outcomes = tokio::time::timeout(Duration::from_secs(3600), batch.finish()).await.expect("it hangs");
    let starts = starts.0.lock().unwrap().join(" ");
    Played { outcomes, ms: started.elapsed().as_millis(), starts }
}

async fn plan(input: Value) -> Played {
    play(&[("plan", input)], |_| ()).await
}

#[tokio::test(start_paused = true)]
async fn a_reference_brings_an_output_into_a_later_input_and_nothing_else_waits() {
    let played = plan(json!({"calls": [
        {"label": "user", "tool": "echo", "input": {"ms": 200, "id": "u1"}},
        {"label": "orders", "tool": "echo", "input": {"ms": 200, "of": {"$ref": "user#/id"}}},
        {"label": "stock", "tool": "echo", "input": {"ms": 100}},
        {"label": "check", "tool": "echo", "input": {"ms": 50, "all": [{"$ref": "orders#"}, {"$ref": "stock#/ms"}]}},
    ]}))
    .await;
    let expected = concat!(
        r#"{"user":{"id":"u1","ms":200},"orders":{"ms":200,"of":"u1"},"stock":{"ms":100},"#,
        r#""check":{"all":[{"ms":200,"of":"u1"},100],"ms":50}}"#
    );
    assert_eq!(played.text(), expected);
    assert_eq!((played.ms, played.starts.as_str()), (450, "a/user@0 a/stock@0 a/orders@200 a/check@400"));
    assert!(!played.outcomes[0].is_error());
}

#[tokio::test(start_paused = true)]
async fn for_each_is_a_call_per_element_and_its_label_the_array_of_their_outputs() {
    let played = plan(json!({"calls": [
        {"label": "orders", "tool": "list", "input": {"ms": 100, "count": 3}},
        {"label": "detail", "tool": "echo", "for_each": {"$ref": "orders#/items"},
            "input": {"ms": 100, "id": {"$ref": "item#/id"}}},
        {"label": "next", "tool": "echo", "for_each": {"$ref": "detail#"},
            "input": {"ms": 50, "of": {"$ref": "item#/id"}}},
        {"label": "last", "tool": "echo", "input": {"ms": 10, "id": {"$ref": "detail#/2/id"}}},
        {"label": "all", "tool": "echo", "input": {"ms": 10, "ids": {"$ref": "next#/*/of"}}},
    ], "return": ["last", "all#/ids", "detail#/1"]}))
    .await;
    let expected = json!({
        "last": {"ms": 10, "id": 2}, "all#/ids": [0, 1, 2], "detail#/1": {"ms": 100, "id": 1},
        "$left_out_bytes": {"orders": 38, "next": 53},
    });
    assert_eq!((played.answer(), played.ms), (expected, 260), "{}", played.text());
    let starts = "a/orders@0 a/detail/0@100 a/detail/1@100 a/detail/2@100 a/last@200 a/next/0@200 a/next/1@200 a/next/2@200 a/all@250";
    assert_eq!(played.sorted(), starts);
}

#[tokio::test(start_paused = true)]
async fn elements_that_are_known_start_at_once_and_none_are_an_empty_array() {
    let played = plan(json!({"calls": [
        {"label": "each", "tool": "echo", "for_each": [1, {"x": 2}], "input": {"ms": 10, "of": {"$ref": "item#"}}},
        {"label": "none", "tool": "echo", "for_each": [], "input": {"ms": 10}},
        {"label": "after", "tool": "echo", "input": {"ms": 10, "none": {"$ref": "none#"}}},
    ]}))
    .await;
    let expected = json!({
        "each": [{"ms": 10, "of": 1}, {"ms": 10, "of": {"x": 2}}], "none": [], "after": {"ms": 10, "none": []},
    });
    assert_eq!((played.answer(), played.ms), (expected, 10));
}

#[tokio::test(start_paused = true)]
async fn a_failure_skips_those_that_use_it_by_name_and_no_others() {
    let played = plan(json!({"calls": [
        {"label": "bad", "tool": "fail", "input": {"ms": 10}},
        {"label": "uses", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "bad#"}}},
        {"label": "needs", "tool": "echo", "input": {"ms": 10}, "needs": ["bad"]},
        {"label": "over", "tool": "echo", "for_each": {"$ref": "bad#/items"}, "input": {"ms": 10}},
        {"label": "of_over", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "over#/0"}}},
        {"label": "fine", "tool": "echo", "input": {"ms": 30}},
        {"label": "nothing", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "fine#/nope"}}},
        {"label": "wrong", "tool": "echo", "input": {"ms": "abc"}},
        {"label": "of_wrong", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "wrong#"}}},
        {"label": "no_array", "tool": "echo", "for_each": {"$ref": "fine#/ms"}, "input": {"ms": 10}},
    ], "return": []}))
    .await;
    let error = |code: &str, message: &str| json!({"error": {"code": code, "message": message}});
    let expected = json!({
        "bad": error("upstream", "no such thing"),
        "uses": error("skipped", "not run: it uses the output of `bad` (`fail`), which failed"),
        "needs": error("skipped", "not run: it needs `bad` (`fail`), which failed"),
        "over": error("skipped", "not run: it uses the output of `bad` (`fail`), which failed"),
        "of_over": error("skipped", "not run: it uses the output of `over` (`echo`), which failed"),
        "nothing": error("unresolved_reference", "`fine#/nope` points at nothing: there is an object with `ms`"),
        "wrong": error("invalid_input", "the input does not fit the schema of `echo`: `/ms`: \"abc\" is not of type \"integer\""),
        "of_wrong": error("skipped", "not run: it uses the output of `wrong` (`echo`), which failed"),
        "no_array": error("unresolved_reference",
            "the `for_each` of `no_array` is {\"$ref\":\"fine#/ms\"}, which is not an array: there is `30`. None of its calls was carried out"),
        "$left_out_bytes": {"fine": 9},
    });
    assert_eq!((played.answer(), played.ms), (expected, 30), "{}", played.text());
}

#[tokio::test(start_paused = true)]
async fn of_a_for_each_a_failed_element_fails_who_needs_all_or_just_it() {
    let played = plan(json!({"calls": [
        {"label": "each", "tool": "echo", "for_each": [false, true, false], "input": {"ms": 10, "fail": {"$ref": "item#"}}},
        {"label": "first", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "each#/0/ms"}}},
        {"label": "second", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "each#/1/ms"}}},
        {"label": "fourth", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "each#/3"}}},
        {"label": "whole", "tool": "echo", "input": {"ms": 10, "x": {"$ref": "each#"}}},
        {"label": "needs", "tool": "echo", "input": {"ms": 10}, "needs": ["each"]},
        {"label": "paired", "tool": "echo", "for_each": {"$ref": "each#"}, "input": {"ms": 10, "x": {"$ref": "item#/ms"}}},
    ]}))
    .await;
    let answer = played.answer();
    let code = |value: &Value| value["error"]["code"].as_str().unwrap_or("ok").to_owned();
    let codes = |label: &str| match &answer[label] {
        Value::Array(all) => all.iter().map(code).collect::<Vec<_>>().join(" "),
        one => code(one),
    };
    let got: Vec<String> =
        ["each", "first", "second", "fourth", "whole", "needs", "paired"].iter().map(|label| codes(label)).collect();
    let expected = ["ok upstream ok", "ok", "skipped", "unresolved_reference", "skipped", "skipped", "ok skipped ok"];
    assert_eq!(got, expected, "{}", played.text());
    assert_eq!(answer["second"]["error"]["message"], "not run: it uses the output of `each/1` (`echo`), which failed");
}

#[tokio::test(start_paused = true)]
async fn a_plan_stands_in_its_own_place_among_the_calls_beside_it() {
    // Before the elements are known, the later write of key 9 waits for all of them; then only for the one that it meets.
    let inner = json!({"calls": [
        {"label": "list", "tool": "list", "input": {"ms": 100, "count": 3}},
        {"label": "each", "tool": "write", "for_each": {"$ref": "list#/items"},
            "input": {"ms": 50, "key": {"$ref": "item#/id"}}},
    ]});
    let calls = [
        ("write", json!({"ms": 300, "key": 1})),
        ("plan", inner),
        ("write", json!({"ms": 10, "key": 9})),
        ("read", json!({"ms": 10, "key": 2})),
        ("read", json!({"ms": 10, "key": 1})),
    ];
    let played = play(&calls, |_| ()).await;
    let expected = "a@0 b/list@0 b/each/0@100 b/each/2@100 c@100 d@150 b/each/1@300 e@350";
    assert_eq!((played.sorted().as_str(), played.ms), (expected, 360));
}

#[tokio::test(start_paused = true)]
async fn elements_that_conflict_keep_their_order() {
    let played = plan(json!({"calls": [
        {"label": "list", "tool": "list", "input": {"ms": 0, "count": 2}},
        {"label": "each", "tool": "write", "for_each": {"$ref": "list#/items"}, "input": {"ms": 10, "key": "same", "x": {"$ref": "item#"}}},
        {"label": "chain", "tool": "chain", "for_each": [false, true, false], "input": {"ms": 5, "key": {"$ref": "item#"}, "fail": {"$ref": "item#"}}},
    ]}))
    .await;
    // What stops on a failure follows every earlier call of its source.
    assert_eq!(played.sorted(), "a/each/0@0 a/list@0 a/each/1@10 a/chain/0@20 a/chain/1@25");
    assert_eq!(played.answer()["chain"][2]["error"]["code"], "skipped");
}

#[tokio::test(start_paused = true)]
async fn a_budget_counts_the_calls_of_plans_and_not_the_plan() {
    let calls = [
        (
            "plan",
            json!({"calls": [
                {"label": "a", "tool": "echo", "input": {"ms": 10}},
                {"label": "each", "tool": "echo", "for_each": [1, 2, 3], "input": {"ms": 10}},
            ]}),
        ),
        ("echo", json!({"ms": 10})),
    ];
    let most = |count, what: &str| Some(AtMost { count, error: CallError::new(ErrorCode::Budget, what) });
    let bounds = |blocks, calls| Bounds { blocks: most(blocks, "blocks"), calls: most(calls, "calls") };
    let said =
        |played: &Played, at: usize| played.outcomes[at].result.as_ref().err().map(|error| error.message.clone());
    let played = play(&calls, |batch| batch.set_bounds(bounds(2, 4))).await;
    assert_eq!(played.answer()["each"][2], json!({"ms": 10}));
    assert_eq!(said(&played, 1).as_deref(), Some("calls"));
    let played = play(&calls, |batch| batch.set_bounds(bounds(1, 9))).await;
    assert_eq!((said(&played, 0), said(&played, 1).as_deref()), (None, Some("blocks")), "a plan is one block");
    let played = play(&calls, |batch| batch.set_bounds(bounds(0, 9))).await;
    assert_eq!((said(&played, 0).as_deref(), played.starts.as_str()), (Some("blocks"), ""));
    let played = play(&calls[..1], |batch| batch.set_bounds(bounds(1, 3))).await;
    assert_eq!(played.answer()["each"][2]["error"]["code"], "budget");
    let started = played.starts.split(' ').count();
    assert_eq!(started, 3);
}

#[tokio::test(start_paused = true)]
async fn a_plan_of_more_calls_than_may_be_runs_none_of_them() {
    let many = |count: usize| {
        json!({"calls": [
        {"label": "list", "tool": "list", "input": {"ms": 10, "count": count}},
        {"label": "each", "tool": "echo", "for_each": {"$ref": "list#/items"}, "input": {"ms": 10}},
    ], "return": ["each#/0/ms"]})
    };
    let played = plan(many(999)).await;
    assert_eq!((played.answer()["each#/0/ms"].clone(), played.ms), (json!(10), 20));
    let played = plan(many(1_000)).await;
    assert_eq!((played.answer()["each#/0/ms"]["error"]["code"].clone(), played.ms), (json!("too_large"), 10));
    let literal = vec![json!(1); 1_001];
    let played =
        plan(json!({"calls": [{"label": "each", "tool": "echo", "for_each": literal, "input": {"ms": 10}}]})).await;
    assert_eq!((played.outcomes[0].error_code(), played.ms), (Some(ErrorCode::TooLarge), 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_plan_answers_with_what_had_ended() {
    let input = json!({"calls": [
        {"label": "quick", "tool": "echo", "input": {"ms": 10}},
        {"label": "slow", "tool": "write", "input": {"ms": 900, "key": 1}},
        {"label": "each", "tool": "echo", "for_each": {"$ref": "slow#/items"}, "input": {"ms": 10}},
    ]});
    let mut run = Scheduler::new(SchedulerOptions::default()).run(toolbox(), RunOptions::new("run"));
    let mut batch = run.batch();
    batch.call(Call::new(0, "a", "plan", input)).unwrap();
    batch.call(Call::new(1, "b", "echo", json!({"ms": 20}))).unwrap();
    batch.commit();
    batch.progress().await;
    batch.cancel_call(&"a".into(), "nobody wants it");
    let outcomes = batch.finish().await;
    let Content::Text(text) = &outcomes[0].shown[0] else { panic!() };
    let answer: Value = serde_json::from_str(text).unwrap();
    assert_eq!(answer["quick"], json!({"ms": 10}));
    assert_eq!(answer["slow"]["error"]["code"], "outcome_unknown");
    assert_eq!(answer["each"]["error"]["code"], "cancelled");
    assert_eq!(outcomes[1].error_code(), None, "the call beside it goes on");
}

/// What is wrong with a plan, line by line.
async fn mistakes(input: Value) -> String {
    let played = plan(input).await;
    assert_eq!((played.starts.as_str(), played.outcomes[0].error_code()), ("", Some(ErrorCode::InvalidInput)));
    let error = played.outcomes[0].result.as_ref().unwrap_err();
    error.message.split("\n- ").skip(1).collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn a_malformed_plan_runs_nothing_and_says_all_that_is_wrong_at_once() {
    let told = mistakes(json!({
        "calls": [
            {"label": "user", "tool": "ech", "input": {"x": {"$ref": "later#"}}},
            {"label": "user", "tool": "plan", "input": {}},
            {"label": "later", "tool": "echo", "input": {"a": {"$ref": "nobody#/id"}, "b": {"$ref": "later#"}}, "needs": ["user", "ghost"]},
            {"label": "bad label", "tool": "echo", "input": []},
            {"label": "item", "tool": "echo", "input": {"x": {"$ref": "user#id"}}, "for_each": 5},
            {"tool": 7, "needs": "user", "inputs": {}},
            {"label": "each", "tool": "echo", "for_each": [1], "input": {}},
            {"label": "of", "tool": "echo", "input": {"x": {"$ref": "each#/total"}, "y": {"$ref": "item#"}}},
            9,
        ],
        "return": ["each", "nope", "user#x", 4],
        "atomic": "yes",
        "retrun": [],
    }))
    .await;
    insta_like(&told, include_str!("plans_mistakes.txt"));
}

/// Compares with a file beside the test; says the whole new text where they differ.
#[track_caller]
fn insta_like(told: &str, expected: &str) {
    assert_eq!(told, expected.trim_end(), "the new text:\n{told}");
}

#[tokio::test(start_paused = true)]
async fn what_a_model_writes_for_nothing_is_nothing_and_its_words_never_look_like_ours() {
    let call = json!({"label": "a", "tool": "echo", "input": {"ms": 1}, "needs": null, "for_each": null});
    let played = plan(json!({"calls": [call], "return": null, "atomic": null})).await;
    assert_eq!(played.answer(), json!({"a": {"ms": 1}}));
    let each = json!({"label": "each", "tool": "echo", "for_each": [1], "input": {"ms": 1}});
    let told =
        mistakes(json!({"calls": [each, {"label": "x\n- all is fine", "tool": "echo"}], "return": ["each#/rows"]}))
            .await;
    let expected = [
        "`calls[1]` (`x\u{fffd}- all is fine`): a label is 1 to 64 letters, digits, `_` or `-`",
        "`return`: `each#/rows`: `each` is one call per element, so say of which: `each#/0/rows`, or `each#/*/rows` for the array of all",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_could_be_a_plans_call_is_told_apart_before_anything_runs() {
    let mut run = Scheduler::new(SchedulerOptions::default()).run(toolbox(), RunOptions::new("run"));
    let mut batch = run.batch();
    batch.call(Call::new(0, "p/a", "echo", json!({"ms": 1}))).unwrap();
    let plan = json!({"calls": [{"label": "a", "tool": "echo", "input": {"ms": 1}}]});
    assert!(batch.call(Call::new(1, "p", "plan", plan)).is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_plan_at_all_says_so() {
    assert_eq!(mistakes(json!({})).await, "`calls` must be an array with at least one call");
    assert_eq!(mistakes(json!({"calls": []})).await, "`calls` must be an array with at least one call");
    let told = mistakes(json!([])).await;
    assert!(told.starts_with("a plan is an object"), "{told}");
    let told = mistakes(json!({"calls": [{"label": "a", "tool": "echo", "input": {"ms": 1}}], "atomic": true})).await;
    assert_eq!(
        told,
        "`calls[0]` (`a`): `echo` cannot be part of an atomic plan: only SQL tools can, all of one database"
    );
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_plan_has_its_own_key_and_the_same_on_every_attempt() {
    struct Keys(Mutex<Vec<String>>);
    impl Tool for Keys {
        fn spec(&self) -> ToolSpec {
            ToolSpec::new("keys", Source::function())
        }
        fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
            let first = attempt.number == 1;
            self.0.lock().unwrap().push(attempt.idempotency_key.to_string());
            Box::pin(
                async move { if first { Err(ToolError::NotSent("refused".into())) } else { Ok(Output::text("x")) } },
            )
        }
    }
    let keys = Arc::new(Keys(Mutex::default()));
    let mut toolbox = Toolbox::new();
    toolbox.add_shared(Arc::clone(&keys) as Arc<dyn Tool>).unwrap();
    toolbox.add_plan(1024).unwrap();
    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), RunOptions::new("run"));
    let mut batch = run.batch();
    let input = json!({"calls": [
        {"label": "one", "tool": "keys", "input": {}},
        {"label": "each", "tool": "keys", "for_each": [1, 2], "input": {}},
    ]});
    batch.call(Call::new(0, "toolu_1", "plan", input)).unwrap();
    batch.finish().await;
    let mut keys = keys.0.lock().unwrap().clone();
    keys.sort();
    let expected = ["run/toolu_1/each/0", "run/toolu_1/each/1", "run/toolu_1/one"];
    assert_eq!(keys, expected.iter().flat_map(|key| [*key, *key]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_was_skipped_behind_a_for_each_stands_in_nobodys_way_once_its_elements_are_known() {
    let calls = [
        (
            "plan",
            json!({"calls": [
                {"label": "list", "tool": "list", "input": {"ms": 50, "count": 1}},
                {"label": "each", "tool": "write", "for_each": {"$ref": "list#/items"},
                    "input": {"ms": 100, "key": {"$ref": "item#/id"}}},
            ]}),
        ),
        (
            "plan",
            json!({"calls": [
                {"label": "bad", "tool": "echo", "input": {"ms": 10, "fail": true}},
                {"label": "skipped", "tool": "write", "input": {"ms": 10, "key": 9, "x": {"$ref": "bad#"}}},
            ]}),
        ),
        ("write", json!({"ms": 10, "key": 9})),
    ];
    let played = play(&calls, |_| ()).await;
    assert_eq!((played.sorted().as_str(), played.ms), ("a/list@0 b/bad@0 a/each/0@50 c@50", 150));
}

#[tokio::test(start_paused = true)]
async fn what_a_plan_only_reads_starts_while_the_response_streams_and_is_thrown_away_with_it() {
    let input = json!({"calls": [
        {"label": "user", "tool": "read", "input": {"ms": 100, "key": 1}},
        {"label": "each", "tool": "read", "for_each": [1, 2], "input": {"ms": 50, "key": {"$ref": "item#"}, "x": {"$ref": "user#"}}},
        {"label": "write", "tool": "write", "input": {"ms": 10, "key": 1}},
    ]});
    let mut run = Scheduler::new(SchedulerOptions::default()).run(toolbox(), RunOptions::new("run"));
    let mut batch = run.batch();
    let started = Instant::now();
    batch.call(Call::new(0, "a", "plan", input.clone())).unwrap();
    let until = started + Duration::from_millis(400);
    while tokio::time::timeout_at(until, batch.progress()).await.is_ok() {}
    let open: Vec<String> =
        batch.arrived().filter(|one| one.outcome.is_none()).map(|one| one.call.to_string()).collect();
    assert_eq!(open, ["a", "a/write"], "reads have ended, the write waits for the response");
    batch.restart("the stream broke off");
    assert_eq!((batch.unanswered(), batch.asked()), (0, 0));
    batch.call(Call::new(0, "a", "plan", input)).unwrap();
    let outcomes = batch.finish().await;
    assert_eq!(outcomes.len(), 1);
    assert!(!outcomes[0].is_error());
}

fn text_of(label: &str, text: &str) -> Value {
    json!({"label": label, "tool": "text", "input": {"ms": 1, "text": text}})
}

#[tokio::test(start_paused = true)]
async fn a_value_stands_in_the_answer_as_its_tool_wrote_it() {
    let played = plan(json!({"calls": [
        text_of("json", "{\"z\": 1.0, \"a\": 12345678901234567890123}"),
        text_of("words", "it said \"yes\""),
        {"label": "cat", "tool": "picture", "input": {"ms": 1}},
        {"label": "bad", "tool": "says_error", "input": {"ms": 1}},
        {"label": "worse", "tool": "says_error", "input": {"ms": 1}},
        text_of("part", "{\"b\": [{\"x\": 1}, {\"x\": 2}]}"),
    ], "return": ["words", "json", "cat", "part#/b/*/x", "part#/c", "worse#/x"]}))
    .await;
    let expected = concat!(
        r#"{"words":"it said \"yes\"","json":{"z": 1.0, "a": 12345678901234567890123},"cat":{"value":"a cat","$images":[1]},"#,
        r#""part#/b/*/x":[1,2],"part#/c":{"error":{"code":"unresolved_reference","message":"`part#/c` points at nothing: there is an object with `b`"}},"#,
        r#""worse#/x":{"error":{"code":"upstream","output":"no such file"}},"bad":{"error":{"code":"upstream","output":"no such file"}}}"#,
    );
    assert_eq!(played.text(), expected);
    assert!(matches!(&played.outcomes[0].shown[1], Content::Image { .. }));
}

#[tokio::test(start_paused = true)]
async fn of_what_is_too_large_the_beginning_is_shown_and_the_size_told() {
    let long = "x".repeat(30_000);
    let played = plan(json!({"calls": [
        text_of("a", &long), text_of("b", &long), text_of("c", &long), text_of("d", &long), text_of("e", "short"),
        {"label": "uses", "tool": "echo", "input": {"ms": 1, "whole": {"$ref": "a#"}}},
    ]}))
    .await;
    let answer = played.answer();
    // What is small is there whole, and the rest shares what is left.
    assert_eq!(answer["e"], "short");
    for (label, shown) in [("a", 9_000..10_001), ("b", 9_000..10_001), ("c", 9_000..10_001), ("d", 9_000..10_001)] {
        assert_eq!(answer[label]["$bytes"], 30_002, "{label}");
        let cut = answer[label]["$cut"].as_str().unwrap();
        assert!(shown.contains(&cut.len()) && format!("\"{long}").starts_with(cut), "{label}: {}", cut.len());
    }
    assert_eq!((&answer["uses"]["$bytes"], &answer["$left_out_bytes"]), (&json!(30_019), &Value::Null));
    assert!(played.text().len() <= PLAN_MAX + 200, "{}", played.text().len());
    let quotes = "\"".repeat(30_000);
    let played = plan(json!({"calls": [text_of("a", &quotes)]})).await;
    assert!(played.text().len() <= RESULT_MAX + 200, "{}", played.text().len());
    let each = json!({"label": "each", "tool": "text", "for_each": vec![json!(long); 900], "input": {"ms": 1, "text": {"$ref": "item#"}}});
    let small =
        json!({"label": "small", "tool": "echo", "for_each": [5, 6], "input": {"ms": 1, "id": {"$ref": "item#"}}});
    let played = plan(json!({"calls": [each, small], "return": ["each", "small#/*/id", "small#/0/id"]})).await;
    let answer = played.answer();
    assert_eq!((&answer["small#/*/id"], &answer["small#/0/id"]), (&json!([5, 6]), &json!(5)), "whatever came before");
    assert_eq!(
        answer["each"]["$bytes"].as_u64().map(|bytes| bytes > 50_000),
        Some(true),
        "an array of beginnings and sizes"
    );
    assert!(played.text().len() <= PLAN_MAX + 300, "{}", played.text().len());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_failures_is_told_once_and_then_by_its_code() {
    let items = vec![json!(1); 900];
    let each = json!({"label": "each", "tool": "fail", "for_each": items, "input": {"ms": 1, "key": "one"}});
    let played =
        plan(json!({"calls": [each, {"label": "fine", "tool": "echo", "input": {"ms": 1}}], "return": ["fine"]})).await;
    let answer = played.answer();
    assert_eq!(answer["each#/0"]["error"]["message"], "no such thing");
    assert_eq!(answer["each#/899"], json!({"error": {"code": "upstream"}}));
    assert!(!played.outcomes[0].is_error());
    let only = json!({"label": "only", "tool": "fail", "input": {"ms": 1}});
    assert!(plan(json!({"calls": [only], "return": []})).await.outcomes[0].is_error(), "nothing of it went well");
}
