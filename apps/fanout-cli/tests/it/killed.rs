//! A process that is killed in the middle of an atomic plan: the database has all of it, or none.
#![cfg(unix)]

use std::process::Child;
use std::time::{Duration, Instant};

use fanout_testing::postgres::{Database, Postgres};
use serde_json::json;

use crate::binary::{Desk, content, ended};

/// So many rows a plan writes, each in a call of its own, and as often it counts.
const ROWS: i64 = 100;

/// So often it is killed, from the beginning of its transaction to its end.
const KILLS: u32 = 30;

const SCHEMA: &str = "create table written (round integer not null, n integer not null, primary key (round, n));
    create table counted (id integer primary key, total integer not null);
    insert into counted values (1, 0);";

fn desk(url: &str) -> Desk {
    Desk::with(&format!(
        r#"[database.shop]
url = "{url}"

[[tool]]
name = "write"
input = {{ round = {{ type = "integer" }}, n = {{ type = "integer" }} }}
sql = {{ database = "shop", statement = "insert into written values (:round, :n) returning n", expect_rows = 1 }}

[[tool]]
name = "count"
input = {{ id = {{ type = "integer" }} }}
sql = {{ database = "shop", statement = "update counted set total = total + 1 where id = :id returning total", expect_rows = 1 }}
"#
    ))
}

fn plan(round: u32) -> String {
    let all: Vec<i64> = (0..ROWS).collect();
    let plan = json!({"calls": [
        {"label": "written", "tool": "write", "for_each": all, "input": {"round": round, "n": {"$ref": "item#"}}},
        {"label": "counted", "tool": "count", "for_each": all, "input": {"id": 1}},
    ], "return": ["counted#/0"], "atomic": true});
    content(&[("p", "plan", &plan.to_string())])
}

/// What a round left behind: its rows, and what was counted of all rounds.
type Left = (i64, i64);

/// How often a plan that was killed had been kept, and how often not.
#[derive(Debug, Default)]
struct Ends {
    kept: u32,
    undone: u32,
    counted: i64,
}

impl Ends {
    fn see(&mut self, round: u32, (rows, counted): Left) {
        assert!(rows == 0 || rows == ROWS, "round {round} left {rows} rows of {ROWS}");
        self.counted += rows;
        assert_eq!(counted, self.counted, "round {round} wrote {rows} rows");
        *(if rows == 0 { &mut self.undone } else { &mut self.kept }) += 1;
    }
}

/// Kills it at one of [`KILLS`] moments of about so long.
fn kill(mut child: Child, round: u32, of: Duration) {
    let moment = of * (round - 1) / KILLS;
    let begun = Instant::now();
    while begun.elapsed() < moment {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_process_that_is_killed_in_an_atomic_plan_leaves_all_of_it_or_nothing_in_a_file() {
    let desk = desk("sqlite://shop.db");
    let file = rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap();
    file.execute_batch(SCHEMA).unwrap();
    let others = rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap();
    others.busy_timeout(Duration::ZERO).unwrap();
    let begin = |round: u32| {
        let mut child = desk.start(&["call"], &plan(round));
        // It is at it as soon as nobody else may write.
        while others.execute_batch("begin immediate; rollback").is_ok() && child.try_wait().unwrap().is_none() {}
        child
    };
    let left = |round: u32| -> Left {
        let rows = file.query_row("select count(*) from written where round = ?", [round], |row| row.get(0)).unwrap();
        (rows, file.query_row("select total from counted", [], |row| row.get(0)).unwrap())
    };
    let mut ends = Ends::default();
    let child = begin(0);
    let begun = Instant::now();
    ended(child).await.code(0);
    let whole = begun.elapsed();
    ends.see(0, left(0));
    for round in 1..=KILLS {
        kill(begin(round), round, whole);
        ends.see(round, left(round));
    }
    assert!(ends.undone > 0 && ends.kept > 0, "{ends:?}");
    ended(begin(KILLS + 1)).await.code(0);
    ends.see(KILLS + 1, left(KILLS + 1));
}

/// How many of the plan's connections are in a transaction.
const BUSY: &str = "select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle'
                    and backend_xid is not null and pid <> pg_backend_pid()";

async fn is_busy(place: &Database) -> bool {
    place.sql(BUSY).await.unwrap().trim() != "0"
}

#[tokio::test]
async fn a_process_that_is_killed_in_an_atomic_plan_leaves_all_of_it_or_nothing_in_a_server() {
    let place = Postgres::shared().unwrap().database().await.unwrap();
    place.sql(SCHEMA).await.unwrap();
    let desk = desk("${DATABASE_URL}").set("DATABASE_URL", place.user_url());
    let begin = async |round: u32| {
        let mut child = desk.start(&["call"], &plan(round));
        while !is_busy(&place).await && child.try_wait().unwrap().is_none() {}
        child
    };
    let left = async |round: u32| -> Left {
        // The server learns of it at its next word to a client that is not there.
        while is_busy(&place).await {}
        let number = async |text: String| place.sql(&text).await.unwrap().trim().parse().unwrap();
        let rows = number(format!("select count(*) from written where round = {round}")).await;
        (rows, number("select total from counted".to_owned()).await)
    };
    let mut ends = Ends::default();
    let child = begin(0).await;
    let begun = Instant::now();
    ended(child).await.code(0);
    let whole = begun.elapsed();
    ends.see(0, left(0).await);
    for round in 1..=KILLS {
        kill(begin(round).await, round, whole);
        ends.see(round, left(round).await);
    }
    assert!(ends.undone > 0 && ends.kept > 0, "{ends:?}");
    ended(begin(KILLS + 1).await).await.code(0);
    ends.see(KILLS + 1, left(KILLS + 1).await);
}
