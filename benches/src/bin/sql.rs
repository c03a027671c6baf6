//! SQL tools on a real PostgreSQL: what running them together saves, and what the path to a tool costs.
//!
//! ```text
//! cargo run --release -p fanout-benches --bin sql
//! ```
//!
//! It starts a throw-away server, without fsync at first, so that nothing but processor time counts. First, a batch of 20 reads that take
//! 20 ms each in the server, on 20 connections and on 5, against the same calls one by one. Then transactions of one `select` and of one `update`
//! of a row of its own, by 16 workers on 16 connections: as calls through the scheduler, and as code written by hand on
//! `tokio-postgres` that sends the same transaction; the `update` with
//! PostgreSQL's own settings too, which make it durable. Both keep nothing but the row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::{machine, results};
use fanout_core::call::Call;
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::toolbox::Toolbox;
use fanout_testing::postgres::{Database as Place, Postgres};
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

/// Reads of one batch, and how long each takes in the server.
const READS: usize = 20;
const READ_MS: u64 = 20;
/// A pool that is smaller than the batch.
const SMALL_POOL: u32 = 5;
/// Pairs that count; one more comes first and opens the connections.
const PAIRS: usize = 10;
/// Who sends transactions at once, and how many each.
const WORKERS: u32 = 16;
const TRANSACTIONS: usize = 500;
/// The bounds that the project set itself.
const TOGETHER_LEAST: f64 = 15.0;
const RATE_LEAST: f64 = 0.8;

/// With mimalloc, as `fanout` has it; both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a transaction does, as our tool says it and as it is written by hand.
#[derive(Clone, Copy)]
enum Does {
    Read,
    Write,
}

impl Does {
    fn tool(self) -> &'static str {
        match self {
            Self::Read => "select balance from accounts where id = :id",
            Self::Write => "update accounts set balance = balance + :n where id = :id returning balance",
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Postgres::start()?;
    let place = server.database().await?;
    place
        .sql(
            "create table accounts (id int primary key, balance bigint not null);
              insert into accounts select n, 0 from generate_series(0, 63) n;",
        )
        .await?;
    let wide = reads(&place, u32::try_from(READS)?).await?;
    let narrow = reads(&place, SMALL_POOL).await?;
    let reading = transactions(&place, Does::Read).await?;
    let unsafely = transactions(&place, Does::Write).await?;
    // As PostgreSQL comes: what is committed outlives a power cut.
    place.sql("alter system set fsync = on; alter system set full_page_writes = on; select pg_reload_conf()").await?;
    let durably = transactions(&place, Does::Write).await?;
    report(&wide, &narrow, [&reading, &durably, &unsafely])
}

/// A scheduler and one tool, on so many connections.
struct Ours {
    scheduler: Scheduler,
    toolbox: Arc<Toolbox>,
}

impl Ours {
    async fn new(place: &Place, pool: u32, statement: &str) -> anyhow::Result<Self> {
        let url = format!("{}?sslmode=disable", place.user_url());
        let database = Database::new("bench", DatabaseOptions { pool, ..DatabaseOptions::new(url) })?;
        database.learn().await?;
        let mut toolbox = Toolbox::new();
        toolbox.add(SqlTool::builder("t", &database).statement(statement).build()?)?;
        Ok(Self { scheduler: Scheduler::default(), toolbox: Arc::new(toolbox) })
    }

    /// One run with one batch of these inputs.
    async fn batch(&self, run: &str, inputs: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        let mut run = self.scheduler.run(Arc::clone(&self.toolbox), RunOptions::new(run));
        let mut batch = run.batch();
        for (at, input) in inputs.into_iter().enumerate() {
            batch.call(Call::new(u32::try_from(at)?, format!("c{at}").as_str(), "t", input))?;
        }
        batch.commit();
        for outcome in batch.finish().await {
            ensure!(!outcome.is_error(), "{:?}", outcome.result);
        }
        Ok(())
    }
}

/// Seconds together and one by one, per pair.
async fn reads(place: &Place, pool: u32) -> anyhow::Result<Vec<(f64, f64)>> {
    let statement = format!("select pg_sleep({}), :n::int", Duration::from_millis(READ_MS).as_secs_f64());
    let ours = Ours::new(place, pool, &statement).await?;
    let mut samples = Vec::new();
    for pair in 0..=PAIRS {
        let started = Instant::now();
        ours.batch("together", (0..READS).map(|n| json!({ "n": n }))).await?;
        let together = started.elapsed();
        let started = Instant::now();
        for n in 0..READS {
            ours.batch("single", [json!({ "n": n })]).await?;
        }
        if pair > 0 {
            samples.push((together.as_secs_f64(), started.elapsed().as_secs_f64()));
        }
    }
    let open = "select count(*) from pg_stat_activity where application_name = 'fanout'";
    let open: u32 = place.sql(open).await?.trim().parse()?;
    ensure!(open <= pool, "{open} connections were open, and {pool} are the most");
    Ok(samples)
}

/// Transactions a second, ours and by hand, per pair.
async fn transactions(place: &Place, does: Does) -> anyhow::Result<Vec<(f64, f64)>> {
    let ours = Arc::new(Ours::new(place, WORKERS, does.tool()).await?);
    let mut clients = Vec::new();
    for _ in 0..WORKERS {
        let url = format!("{}?sslmode=disable", place.user_url());
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        clients.push(Arc::new(client));
    }
    let mut samples = Vec::new();
    for pair in 0..=PAIRS {
        // They take turns at being first.
        let (by_us, by_hand) = if pair % 2 == 0 {
            let by_us = rate(|worker| through_us(Arc::clone(&ours), worker)).await?;
            (by_us, rate(|worker| by_hand_on(Arc::clone(&clients[worker as usize]), worker, does)).await?)
        } else {
            let by_hand = rate(|worker| by_hand_on(Arc::clone(&clients[worker as usize]), worker, does)).await?;
            (rate(|worker| through_us(Arc::clone(&ours), worker)).await?, by_hand)
        };
        if pair > 0 {
            samples.push((by_us, by_hand));
        }
    }
    Ok(samples)
}

/// How many transactions a second all workers together get through.
#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
async fn rate<F>(worker: impl Fn(u32) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        workers.spawn(worker(number));
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(WORKERS as f64 * TRANSACTIONS as f64 / started.elapsed().as_secs_f64())
}

async fn through_us(ours: Arc<Ours>, worker: u32) -> anyhow::Result<()> {
    for _ in 0..TRANSACTIONS {
        ours.batch("worker", [json!({ "id": worker, "n": 1 })]).await?;
    }
    Ok(())
}

/// What a careful person writes: the same words to the server, one after another, and the row as JSON.
async fn by_hand_on(client: Arc<Client>, worker: u32, does: Does) -> anyhow::Result<()> {
    let id = i32::try_from(worker)?;
    for _ in 0..TRANSACTIONS {
        let rows = match does {
            Does::Read => {
                let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = 10000";
                client.batch_execute(begin).await?;
                client.query_typed("select balance from accounts where id = $1", &[(&id, Type::INT4)]).await?
            }
            Does::Write => {
                let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = 10000; select txid_current()";
                ensure!(!client.simple_query(begin).await?.is_empty());
                let update = "update accounts set balance = balance + $1 where id = $2 returning balance";
                client.query_typed(update, &[(&1_i64, Type::INT8), (&id, Type::INT4)]).await?
            }
        };
        let balance: i64 = rows.first().context("a row")?.try_get(0)?;
        let answer = json!({ "rows": [{ "balance": balance }], "count": rows.len() }).to_string();
        ensure!(!answer.is_empty());
        client.batch_execute("COMMIT").await?;
    }
    Ok(())
}

fn report(wide: &[(f64, f64)], narrow: &[(f64, f64)], rates: [&[(f64, f64)]; 3]) -> anyhow::Result<()> {
    let gains = |samples: &[(f64, f64)]| samples.iter().map(|(together, single)| single / together).collect::<Vec<_>>();
    let (wide_gain, narrow_gain) = (gains(wide), gains(narrow));
    let [reading, durably, unsafely] =
        rates.map(|rates| rates.iter().map(|(ours, by_hand)| ours / by_hand).collect::<Vec<f64>>());
    let told = |what: &str, samples: &[f64], least: Option<f64>| {
        let (low, high) = range(samples);
        let middle = median(samples);
        let verdict = least.map(|least| match middle >= least {
            true => format!(", within the bound of {least}"),
            false => format!(", BELOW the bound of {least}"),
        });
        println!("{what}: {middle:.2} ({low:.2} to {high:.2}){}", verdict.unwrap_or_default());
    };
    told(
        &format!("{READS} reads of {READ_MS} ms on {READS} connections, times as fast as one by one"),
        &wide_gain,
        Some(TOGETHER_LEAST),
    );
    told(&format!("the same on {SMALL_POOL} connections"), &narrow_gain, None);
    told("reading transactions a second, of those by hand", &reading, Some(RATE_LEAST));
    told("writing transactions a second, of those by hand", &durably, Some(RATE_LEAST));
    told("the same without fsync", &unsafely, None);
    let pairs = |samples: &[(f64, f64)], names: [&str; 2]| {
        samples
            .iter()
            .map(|(one, other)| json!({ names[0]: rounded(*one), names[1]: rounded(*other) }))
            .collect::<Vec<Value>>()
    };
    let seconds = ["together_s", "one_by_one_s"];
    results::write(
        "sql",
        &json!({
            "machine": machine::describe(), "load": machine::load(),
            "settings": {
                "reads": READS, "read_ms": READ_MS, "pools": [READS, SMALL_POOL], "pairs": PAIRS, "workers": WORKERS,
                "transactions": TRANSACTIONS, "fsync": "off, but for writing_per_s", "sslmode": "disable", "allocator": "mimalloc, both",
            },
            "gain": rounded(median(&wide_gain)), "gain_small_pool": rounded(median(&narrow_gain)),
            "reading_rate": rounded(median(&reading)), "writing_rate": rounded(median(&durably)),
            "writing_rate_without_fsync": rounded(median(&unsafely)),
            "samples": {
                "wide": pairs(wide, seconds), "narrow": pairs(narrow, seconds),
                "reading_per_s": pairs(rates[0], ["ours", "by_hand"]),
                "writing_per_s": pairs(rates[1], ["ours", "by_hand"]),
                "writing_per_s_without_fsync": pairs(rates[2], ["ours", "by_hand"]),
            },
        }),
    )
}
