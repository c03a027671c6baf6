//! What every store of questions does: each test runs over all of them. `other` is a store on the same database, of another process
//! if there can be one.

use std::sync::Arc;

use fanout_journal::approvals::{Approval, ApprovalStore, Filter, Parting, Ruling, Viewer};
use serde_json::json;

/// So many milliseconds after 1970 everything happens, and questions are good for as long.
const NOW: u64 = 1_000;

pub fn asked(run: &str, call: &str, caller: &str) -> Approval {
    Approval {
        id: format!("apr_{run}{call}").into(),
        run: run.into(),
        call: call.into(),
        caller: caller.into(),
        project: Some("shop".to_owned()),
        tool: "charge".into(),
        input: Arc::new(json!({"amount": 18_446_744_073_709_551_615_u64, "note": "a\u{0}b \u{1f980}"})),
        hash: "same".to_owned(),
        asked_ms: NOW,
        expires_ms: 2 * NOW,
        holder: Some((run.into(), call.into())),
        ruling: None,
        is_used: false,
        is_withdrawn: false,
    }
}

pub fn ruling(is_approved: bool, by: &str) -> Ruling {
    Ruling { is_approved, by: by.to_owned(), words: Some("with care".to_owned()), at_ms: NOW + 1 }
}

fn admin() -> Viewer {
    Viewer { caller: "root".into(), project: None, is_admin: true, may_approve: true }
}

async fn listed(
    store: &dyn ApprovalStore,
    viewer: Viewer,
    is_open: bool,
    after: Option<&str>,
    max: usize,
) -> Vec<String> {
    let filter = Filter { viewer, is_open, count_max: max, now_ms: NOW };
    let found = store.list(filter, after.map(Into::into)).await.unwrap();
    found.into_iter().map(|approval| approval.id.to_string()).collect()
}

/// A question comes back as it went in; the same call finds its own, and a free one is taken up once.
pub async fn a_call_finds_its_question(store: &dyn ApprovalStore, other: &dyn ApprovalStore) {
    let first = store.ask(asked("r", "a", "ann")).await.unwrap();
    assert_eq!(first, asked("r", "a", "ann"));
    assert_eq!(other.get(first.id.clone()).await.unwrap(), Some(first.clone()));
    assert_eq!(other.get("apr_none".into()).await.unwrap(), None);
    assert_eq!(other.ask(asked("r", "a", "ann")).await.unwrap(), first, "its own");
    let beside = store.ask(asked("r", "b", "ann")).await.unwrap();
    assert_ne!(beside.id, first.id, "somebody waits for it");
    let holder = ("r".into(), "a".into());
    store.part(first.id.clone(), ("r".into(), "b".into()), Parting::LetsGo).await.unwrap();
    assert_eq!(store.get(first.id.clone()).await.unwrap().unwrap().holder, first.holder, "it is not theirs to let go");
    store.part(first.id.clone(), holder, Parting::LetsGo).await.unwrap();
    assert_ne!(store.ask(asked("r", "c", "bob")).await.unwrap().id, first.id, "it is another caller's");
    let (one, two) = tokio::join!(store.ask(asked("r2", "a", "ann")), other.ask(asked("r3", "a", "ann")));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(u8::from(one.id == first.id) + u8::from(two.id == first.id), 1, "by one of two: {one:?} {two:?}");
    let taken = if one.id == first.id { one } else { two };
    store.part(taken.id.clone(), taken.holder.clone().unwrap(), Parting::Withdraws).await.unwrap();
    assert_eq!(store.get(first.id.clone()).await.unwrap().unwrap().state(NOW), "withdrawn");
    let again = asked(taken.holder.as_ref().unwrap().0.as_str(), "a", "ann");
    assert_eq!(other.ask(again).await.unwrap().state(NOW), "open", "its call asks again");
    // The run and call that asked first may ask again after all that: their old id is taken.
    let anew = store.ask(asked("r", "a", "ann")).await.unwrap();
    assert!(anew.id != first.id && anew.id.as_str().starts_with(first.id.as_str()), "{anew:?}");
}

/// One decision counts, whoever comes at once; what was approved is one call's, what was denied nobody's.
pub async fn the_first_decision_counts(store: &dyn ApprovalStore, other: &dyn ApprovalStore) {
    let before = store.decisions().await.unwrap();
    let id = store.ask(asked("d", "a", "dan")).await.unwrap().id;
    let (one, two) =
        tokio::join!(store.decide(id.clone(), ruling(true, "kim")), other.decide(id.clone(), ruling(false, "lee")));
    let (one, two) = (one.unwrap().unwrap(), two.unwrap().unwrap());
    assert_eq!(one.ruling, two.ruling);
    let counts = one.ruling.unwrap();
    assert!(counts == ruling(true, "kim") || counts == ruling(false, "lee"));
    assert_eq!(
        store.decide(id.clone(), ruling(!counts.is_approved, "max")).await.unwrap().unwrap().ruling,
        Some(counts)
    );
    assert_eq!((store.decisions().await.unwrap(), other.decisions().await.unwrap()), (before + 1, before + 1));
    assert_eq!(store.decide("apr_none".into(), ruling(true, "kim")).await.unwrap(), None);

    let late = Ruling { at_ms: 2 * NOW, ..ruling(true, "kim") };
    let id = store.ask(asked("d", "late", "dan")).await.unwrap().id;
    assert_eq!(store.decide(id.clone(), late).await.unwrap().unwrap().ruling, None, "it has expired by then");
    store.part(id.clone(), ("d".into(), "late".into()), Parting::Withdraws).await.unwrap();
    assert_eq!(store.decide(id, ruling(true, "kim")).await.unwrap().unwrap().ruling, None, "it was taken back");

    for (is_approved, is_used, is_had) in [(true, false, true), (true, true, false), (false, false, false)] {
        let (call, next) = (format!("x{is_approved}{is_used}"), format!("y{is_approved}{is_used}"));
        let of = |call: &str| Approval { hash: format!("{is_approved}{is_used}"), ..asked("d", call, "dan") };
        let first = store.ask(of(&call)).await.unwrap();
        let holder = first.holder.clone().unwrap();
        if is_used {
            store.decide(first.id.clone(), ruling(is_approved, "kim")).await.unwrap();
            store.part(first.id.clone(), holder.clone(), Parting::Uses).await.unwrap();
            assert_eq!(other.ask(of(&call)).await.unwrap().id, first.id, "to the call that ran by it it is its own");
        }
        store.part(first.id.clone(), holder, Parting::LetsGo).await.unwrap();
        store.decide(first.id.clone(), ruling(is_approved, "kim")).await.unwrap();
        let second = other.ask(of(&next)).await.unwrap();
        assert_eq!(second.id == first.id, is_had, "{is_approved} {is_used}");
    }
    assert_eq!(store.decisions().await.unwrap(), before + 4);
}

/// Who sees what, newest first, page by page; a run that is over lets go of what it asked.
pub async fn questions_are_listed(store: &dyn ApprovalStore, other: &dyn ApprovalStore) {
    let of = |call: &str, project: Option<&str>| Approval {
        hash: call.to_owned(),
        project: project.map(str::to_owned),
        ..asked("l", call, "lou")
    };
    for (call, project) in [("a", Some("shop")), ("b", Some("bank")), ("c", None)] {
        store.ask(of(call, project)).await.unwrap();
    }
    store.decide("apr_lb".into(), ruling(false, "kim")).await.unwrap();
    let viewer = |caller: &str, project: Option<&str>, may_approve: bool| Viewer {
        caller: caller.into(),
        project: project.map(str::to_owned),
        is_admin: false,
        may_approve,
    };
    let all = ["apr_lc", "apr_lb", "apr_la"];
    assert_eq!(listed(other, admin(), false, None, 9).await, all);
    assert_eq!(listed(other, viewer("lou", None, false), false, None, 9).await, all);
    assert_eq!(listed(other, admin(), false, None, 2).await, all[..2]);
    assert_eq!(listed(other, admin(), false, Some("apr_lc"), 9).await, all[1..]);
    assert_eq!(listed(other, admin(), true, None, 9).await, ["apr_lc", "apr_la"]);
    assert_eq!(listed(other, viewer("kim", Some("shop"), true), false, None, 9).await, ["apr_la"]);
    assert_eq!(listed(other, viewer("kim", None, true), false, None, 9).await, ["apr_lc"], "no project is one too");
    assert!(listed(other, viewer("kim", Some("shop"), false), false, None, 9).await.is_empty());
    other.let_go("l".into()).await.unwrap();
    let holder = async |id: &str| store.get(id.into()).await.unwrap().unwrap().holder;
    assert_eq!((holder("apr_la").await, holder("apr_lc").await), (None, None));
    assert!(holder("apr_lb").await.is_some(), "it was decided");
}
