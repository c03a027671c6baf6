//! Questions to people: exact, one decision each, whoever comes at once.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::approval::{Approver, Asked, Decision, Question};
use fanout_core::call::ApprovalId;
use fanout_host::approvals::{Approvals, DecideError, GOOD_FOR, WORDS_MAX, hash};
use fanout_journal::MemoryApprovals;
use fanout_journal::approvals::{Approval, Filter, Viewer, now_ms};
use serde_json::{Value, json};

fn question(run: &str, call: &str, input: Value) -> Question {
    Question { run: run.into(), caller: "ann".into(), call: call.into(), tool: "charge".into(), input: Arc::new(input) }
}

fn viewer(caller: &str, project: Option<&str>) -> Viewer {
    Viewer { caller: caller.into(), project: project.map(str::to_owned), is_admin: false, may_approve: true }
}

async fn asked(approver: &Arc<dyn Approver>, run: &str, call: &str, input: Value) -> Asked {
    approver.ask(question(run, call, input)).await.unwrap()
}

async fn list(approvals: &Approvals, viewer: Viewer, is_open: bool, after: Option<ApprovalId>) -> Vec<Approval> {
    approvals.list(Filter { viewer, is_open, count_max: 100, now_ms: now_ms() }, after).await.unwrap()
}

async fn state(approvals: &Approvals, id: &ApprovalId) -> &'static str {
    approvals.get(id, &viewer("kim", None)).await.unwrap().state(now_ms())
}

fn words(decision: &Decision) -> String {
    let said = decision.said().map(|said| format!("{:?} {:?}", said.by.as_deref(), said.words.as_deref()));
    format!("{} {}", decision.as_str(), said.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn a_decision_reaches_the_call_with_who_and_what_they_said() {
    let approvals = Approvals::in_memory();
    let approver = approvals.approver(None, None);
    let kim = viewer("kim", None);
    for (call, agrees, said, came) in [
        ("a", true, Some("be quick"), r#"approved Some("kim") Some("be quick")"#),
        ("b", false, Some("too much"), r#"denied Some("kim") Some("too much")"#),
        ("c", true, Some("  "), r#"approved Some("kim") None"#),
    ] {
        let asked = asked(&approver, "r", call, json!({ "n": call })).await;
        assert_eq!(list(&approvals, kim.clone(), true, None).await[0].id, asked.approval);
        approvals.decide(&asked.approval, &kim, agrees, said.map(str::to_owned)).await.unwrap();
        assert_eq!(words(&asked.decision.await), came);
    }
    assert_eq!(list(&approvals, kim.clone(), true, None).await, []);
    assert_eq!(list(&approvals, kim, false, None).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn of_two_who_decide_at_once_one_wins_and_the_other_learns_who() {
    let approvals = Approvals::in_memory();
    let approver = approvals.approver(None, None);
    let asked = asked(&approver, "r", "a", json!({})).await;
    let decide = |who: usize| {
        let (approvals, id) = (approvals.clone(), asked.approval.clone());
        tokio::spawn(async move {
            approvals.decide(&id, &viewer(&format!("p{who}"), None), who.is_multiple_of(2), None).await
        })
    };
    let mut won = Vec::new();
    let mut lost = Vec::new();
    for task in (0..20).map(decide).collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(approval) => won.push(approval.ruling.unwrap()),
            Err(DecideError::Decided { ruling, .. }) => lost.push(ruling),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((won.len(), lost.len()), (1, 19));
    assert!(lost.iter().all(|ruling| *ruling == won[0]));
    // Who says the same again is answered the same; who changes their mind is not heard.
    let (winner, is_approved) = (viewer(&won[0].by, None), won[0].is_approved);
    let again = approvals.decide(&asked.approval, &winner, is_approved, Some("more words".into())).await.unwrap();
    assert_eq!(again.ruling.as_ref(), Some(&won[0]));
    let turned = approvals.decide(&asked.approval, &winner, !is_approved, None).await.unwrap_err().to_string();
    let was = if is_approved { "approved" } else { "denied" };
    assert_eq!(turned, format!("`{}` was {was} by {} already, and that stays", asked.approval, won[0].by));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_asked_about_again_finds_its_own_question() {
    let approvals = Approvals::in_memory();
    let approver = approvals.approver(None, None);
    let first = asked(&approver, "r", "a", json!({"n": 1, "m": 2})).await;
    // A restart: the same call asks again, its fields in another order. With another input it is another question.
    let again = asked(&approver, "r", "a", json!({"m": 2, "n": 1})).await;
    let other = asked(&approver, "r", "a", json!({"n": 2, "m": 2})).await;
    assert_eq!(first.approval, again.approval);
    assert_ne!(first.approval, other.approval);
    approvals.decide(&first.approval, &viewer("kim", None), true, None).await.unwrap();
    assert_eq!(again.decision.await.as_str(), "approved");
    // It was used, by this very call: after another restart it still is its own.
    assert_eq!(asked(&approver, "r", "a", json!({"n": 1, "m": 2})).await.decision.await.as_str(), "approved");
    assert_eq!(state(&approvals, &other.approval).await, "open");
}

#[tokio::test(start_paused = true)]
async fn who_waited_too_long_can_make_the_same_call_again_and_it_runs_once() {
    let approvals = Approvals::in_memory();
    let approver = approvals.approver(None, Some(Duration::from_secs(30)));
    let kim = viewer("kim", None);
    let first = asked(&approver, "r", "a", json!({"n": 1})).await;
    let id = first.approval.clone();
    assert_eq!(first.decision.await, Decision::Expired);
    assert_eq!(state(&approvals, &id).await, "open");
    // Still open, it is taken up by the same call made again, and by nobody else's.
    let second = asked(&approver, "r", "b", json!({"n": 1})).await;
    assert_eq!(second.approval, id);
    let besides = asked(&approver, "r", "c", json!({"n": 1})).await;
    assert_ne!(besides.approval, id, "one approval is one call");
    assert_eq!(second.decision.await, Decision::Expired);
    // Approved meanwhile, it lets the next one run, and no further one.
    approvals.decide(&id, &kim, true, None).await.unwrap();
    let stranger =
        approver.ask(Question { caller: "bob".into(), ..question("r2", "a", json!({"n": 1})) }).await.unwrap();
    assert_ne!(stranger.approval, id, "it belongs to its caller");
    let third = asked(&approver, "r2", "d", json!({"n": 1})).await;
    assert_eq!((&third.approval, third.decision.await.as_str()), (&id, "approved"));
    let fourth = asked(&approver, "r2", "e", json!({"n": 1})).await;
    assert_ne!(fourth.approval, id, "it was used");
}

#[tokio::test(start_paused = true)]
async fn what_was_denied_after_its_call_gave_up_is_asked_anew() {
    let approvals = Approvals::in_memory();
    let approver = approvals.approver(None, Some(Duration::from_secs(30)));
    let first = asked(&approver, "r", "a", json!({})).await;
    let id = first.approval.clone();
    assert_eq!(first.decision.await, Decision::Expired);
    approvals.decide(&id, &viewer("kim", None), false, None).await.unwrap();
    assert_ne!(asked(&approver, "r", "a", json!({})).await.approval, id);
}

#[tokio::test]
async fn a_question_that_is_too_old_or_taken_back_is_not_decided() {
    let short = Approvals::new(Arc::new(MemoryApprovals::default()), Duration::ZERO);
    let kim = viewer("kim", None);
    let old = asked(&short.approver(None, None), "r", "a", json!({})).await;
    let error = short.decide(&old.approval, &kim, true, None).await.unwrap_err();
    assert_eq!(error, DecideError::Expired(old.approval.clone()));
    assert_eq!(old.decision.await, Decision::Expired);

    let approvals = Approvals::new(Arc::new(MemoryApprovals::default()), GOOD_FOR);
    let approver = approvals.approver(None, None);
    let Asked { approval, decision } = asked(&approver, "r", "a", json!({})).await;
    drop(decision);
    tokio::task::yield_now().await;
    let error = approvals.decide(&approval, &kim, true, None).await.unwrap_err();
    assert_eq!(error, DecideError::Withdrawn(approval.clone()));
    // The run is resumed: its call asks again, and stands where it stood.
    let again = asked(&approver, "r", "a", json!({})).await;
    assert_eq!((again.approval.clone(), state(&approvals, &approval).await), (approval.clone(), "open"));
    let long = approvals.decide(&approval, &kim, true, Some("x".repeat(WORDS_MAX + 1))).await.unwrap_err();
    assert_eq!(long, DecideError::Words(WORDS_MAX + 1));
}

#[tokio::test(start_paused = true)]
async fn a_question_is_seen_by_its_caller_and_by_those_who_may_decide_it() {
    let approvals = Approvals::in_memory();
    let asked = asked(&approvals.approver(Some("shop".to_owned()), None), "r", "a", json!({})).await;
    let of = |caller: &str, project: &str, is_admin: bool, may_approve: bool| Viewer {
        is_admin,
        may_approve,
        ..viewer(caller, Some(project))
    };
    for (viewer, sees, decides) in [
        (of("ann", "shop", false, false), true, false),
        (of("kim", "shop", false, true), true, true),
        (of("kim", "shop", false, false), false, false),
        (of("lee", "bank", false, true), false, false),
        (of("root", "bank", true, false), true, true),
    ] {
        let seen = list(&approvals, viewer.clone(), false, None).await.len();
        assert_eq!(seen, usize::from(sees), "{viewer:?}");
        let refused = approvals.decide(&asked.approval, &viewer, true, None).await.err();
        let expected = match (sees, decides) {
            (_, true) => None,
            (true, false) => Some(DecideError::NotPermitted),
            (false, false) => Some(DecideError::Unknown(asked.approval.clone())),
        };
        // The first who may decide wins.
        let refused = refused.filter(|error| !matches!(error, DecideError::Decided { .. }));
        assert_eq!(refused, expected, "{viewer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_goes_on_behind_the_last_that_was_seen() {
    let approvals = Approvals::in_memory();
    let approver = approvals.approver(None, None);
    let mut all = Vec::new();
    for call in ["a", "b", "c"] {
        all.push(asked(&approver, "r", call, json!({ "n": call })).await);
    }
    let kim = viewer("kim", None);
    let ids = |list: Vec<Approval>| list.into_iter().map(|approval| approval.id).collect::<Vec<_>>();
    let newest: Vec<ApprovalId> = all.iter().rev().map(|asked| asked.approval.clone()).collect();
    assert_eq!(ids(list(&approvals, kim.clone(), true, None).await), newest);
    assert_eq!(ids(list(&approvals, kim, true, Some(newest[0].clone())).await), newest[1..]);
}

#[test]
fn the_hash_is_of_the_tool_and_what_the_input_says() {
    let of = |tool: &str, input: Value| hash(&tool.into(), &input);
    assert_eq!(of("t", json!({"a": 1, "b": [{"c": 2, "d": 3}]})), of("t", json!({"b": [{"d": 3, "c": 2}], "a": 1})));
    for (one, other) in [(json!({"a": 1}), json!({"a": "1"})), (json!([1, 2]), json!([2, 1])), (json!("a"), json!("b"))]
    {
        assert_ne!(of("t", one), of("t", other));
    }
    assert_ne!(of("t", json!(1)), of("u", json!(1)));
    assert_eq!(of("t", json!({})).len(), 64);
}
