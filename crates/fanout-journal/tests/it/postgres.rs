//! The suite over PostgreSQL, directly and behind a pooler, and what only a server can suffer.

use std::sync::Arc;
use std::time::Duration;

use fanout_journal::approvals::ApprovalStore;
use fanout_journal::store::{Entry, RunState, Store, StoreError};
use fanout_journal::{Connect, PostgresStore};
use fanout_testing::postgres::{Database, Pgbouncer, Postgres};

use crate::{asked, remembered, spent, suite};

/// Longer than any test.
const LEASE: Duration = Duration::from_secs(600);

/// A database whose user may make a schema, and a way to it.
struct Place {
    database: Database,
    url: String,
    _pooler: Option<Pgbouncer>,
}

impl Place {
    async fn both() -> [Self; 2] {
        let server = Postgres::shared().unwrap();
        let pooler = Pgbouncer::start(&server).unwrap();
        let (direct, pooled) = (server.database().await.unwrap(), server.database().await.unwrap());
        let (here, there) = (direct.superuser_url(), pooler.url(&pooled.superuser_url()));
        [
            Self { database: direct, url: here, _pooler: None },
            Self { database: pooled, url: there, _pooler: Some(pooler) },
        ]
    }

    fn connect(&self) -> Connect {
        let url = format!("{}?sslmode=disable", self.url);
        Arc::new(move || {
            let url = url.clone();
            Box::pin(async move {
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            })
        })
    }

    async fn open(&self) -> PostgresStore {
        self.open_for(LEASE).await
    }

    async fn open_for(&self, lease: Duration) -> PostgresStore {
        PostgresStore::open(self.connect(), "postgres://here/db", lease).await.unwrap()
    }
}

#[tokio::test]
async fn an_id_is_one_runs() {
    for place in Place::both().await {
        suite::an_id_is_one_runs(&place.open().await).await;
    }
}

#[tokio::test]
async fn a_question_is_one_calls_and_the_first_decision_counts() {
    for place in Place::both().await {
        let (store, other) = (place.open().await, place.open().await);
        asked::questions_are_listed(&store, &other).await;
        asked::a_call_finds_its_question(&store, &other).await;
        asked::the_first_decision_counts(&store, &other).await;
        store.prune(2_001).await.unwrap();
        assert!(store.get("apr_la".into()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_a_day_may_cost_is_shared_by_processes() {
    for place in Place::both().await {
        let (store, other) = (place.open().await, place.open().await);
        spent::a_day_has_its_room_and_no_more(&store, &other).await;
        spent::many_at_once_do_not_overshoot(&store, &other).await;
        store.prune(10 * 24 * 60 * 60 * 1000).await.unwrap();
        spent::many_at_once_do_not_overshoot(&store, &other).await;
    }
}

#[tokio::test]
async fn what_is_remembered_outlives_the_process() {
    for place in Place::both().await {
        let (store, other) = (place.open().await, place.open().await);
        remembered::the_newest_of_a_key_counts(&store, &other).await;
        remembered::a_run_that_ended_goes_on(&store, &other).await;
    }
}

#[tokio::test]
async fn what_is_appended_is_there_in_order() {
    for place in Place::both().await {
        suite::appends_and_lists(&place.open().await).await;
    }
}

#[tokio::test]
async fn nobody_writes_to_a_run_of_another_who_lives() {
    for place in Place::both().await {
        suite::only_the_owner_writes(&place.open().await, &place.open().await).await;
    }
}

#[tokio::test]
async fn the_runs_of_who_is_gone_are_taken_over_once() {
    for place in Place::both().await {
        let gone = Box::new(place.open_for(Duration::ZERO).await);
        suite::a_run_is_taken_over_once(gone, &place.open().await, &place.open().await).await;
    }
}

#[tokio::test]
async fn queued_runs_are_taken_once() {
    for place in Place::both().await {
        suite::queued_runs_are_taken_once(&place.open().await, &place.open().await).await;
    }
}

#[tokio::test]
async fn runs_are_decided_stopped_and_forgotten() {
    for place in Place::both().await {
        suite::runs_are_changed(&place.open().await).await;
    }
}

#[tokio::test]
async fn deeds_are_kept() {
    for place in Place::both().await {
        suite::deeds_are_kept(&place.open().await, &place.open().await).await;
    }
}

#[tokio::test]
async fn a_journal_keeps_what_is_recorded() {
    for place in Place::both().await {
        suite::a_journal_keeps_what_is_recorded(Arc::new(place.open().await)).await;
    }
}

#[tokio::test]
async fn many_that_open_an_empty_database_at_once_make_one_journal() {
    for place in Place::both().await {
        let place = Arc::new(place);
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let place = Arc::clone(&place);
            opening.spawn(async move { drop(place.open().await) });
        }
        while let Some(opened) = opening.join_next().await {
            opened.unwrap();
        }
        assert_eq!(place.database.sql("select count(*) from fanout.layout").await.unwrap().trim(), "5");
    }
}

#[tokio::test]
async fn a_lost_connection_is_replaced_and_nothing_is_added_twice() {
    let [place, _] = Place::both().await;
    let store = place.open().await;
    store.append(vec![Entry::Begin(suite::new("a", RunState::Running))]).await.unwrap();
    place.database.kill_backends().await.unwrap();
    let more = vec![suite::event("a", 0, "x")];
    // The first may meet the connection that is gone.
    while store.append(more.clone()).await.is_err() {}
    assert_eq!(store.events("a".into(), 0, 9).await.unwrap().len(), 1);
    // As if the answer to COMMIT had not come: the same group once more.
    place.database.sql("update fanout.owner set appended = appended + 1").await.unwrap();
    assert!(store.append(vec![suite::event("a", 0, "x")]).await.unwrap().is_empty(), "it is there");
    assert_eq!(store.events("a".into(), 0, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_journal_of_a_newer_version_is_refused() {
    let [place, _] = Place::both().await;
    drop(place.open().await);
    place.database.sql("insert into fanout.layout values (99)").await.unwrap();
    let error = PostgresStore::open(place.connect(), "postgres://here/db", LEASE).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_a_password() {
    let connect: Connect = Arc::new(|| {
        Box::pin(async {
            let url = "postgres://me:s3cret@127.0.0.1:1/x?sslmode=disable";
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.map(|(client, _)| client)
        })
    });
    let error = PostgresStore::open(connect, "postgres://127.0.0.1:1/x", LEASE).await.map(drop).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("127.0.0.1:1/x") && told.contains("refused") && !told.contains("s3cret"), "{told}");
}
