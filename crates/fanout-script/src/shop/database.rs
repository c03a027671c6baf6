//! The shop's books: SQLite in memory, one connection, one request at a time.
//!
//! From [`api`](super::api): what is asked. To it: a status and a JSON body; to tests: the ledger and the state.
//! Everything here blocks, and is called where blocking is allowed. It knows neither HTTP nor latency.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::{Value, json};

/// One thing asked of the shop.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Order { id: String },
    Customer { id: String },
    Stock { sku: String },
    Quote { order_id: String, carrier: String },
    Reserve { sku: String, n: u32 },
    Cheapest { order_id: String },
    Pay { order_id: String, amount_cents: u32 },
    Charge { order_id: String, shipping_cents: u32 },
    Note { order_id: String, text: String },
    Email { to: String, subject: String, body: String },
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    /// It was asked before under the same idempotency key, and this is what was answered then.
    pub(super) replayed: bool,
}

/// One request in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its number, from 1, in order of arrival.
    pub id: i64,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Idempotency-Key` that it carried.
    pub idempotency_key: Option<String>,
    /// The status of the answer; `None` while it is under way, and for good if the client went away.
    pub status: Option<u16>,
    /// When it arrived, since the shop opened, in whole microseconds.
    pub started: Duration,
    /// When it was answered.
    pub ended: Option<Duration>,
}

/// All tables of the shop, row by row, for comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopState {
    /// Table name to rows, in primary key order; each row is its columns as text.
    pub tables: BTreeMap<String, Vec<Vec<String>>>,
}

const STATE_TABLES: [&str; 8] =
    ["carriers", "customers", "emails", "inventory", "notes", "order_lines", "orders", "payments"];

/// The books, and the moment at which they were opened.
#[derive(Debug)]
pub(super) struct Database {
    connection: Mutex<Connection>,
    opened: Instant,
}

impl Database {
    pub(super) fn open() -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(include_str!("schema.sql"))?;
        Ok(Self { connection: Mutex::new(connection), opened: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> i64 {
        i64::try_from(self.opened.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Writes down that a request has arrived, and returns its number.
    pub(super) fn arrived(&self, method: &str, path: &str, key: Option<&str>) -> rusqlite::Result<i64> {
        let started = self.now_us();
        let connection = self.lock();
        let sql = "insert into ledger (method, path, idempotency_key, started_us) values (?1, ?2, ?3, ?4)";
        connection.execute(sql, params![method, path, key, started])?;
        Ok(connection.last_insert_rowid())
    }

    /// Does what is asked, once per idempotency key, and writes down that the request has ended.
    pub(super) fn serve(&self, entry: i64, ask: &Ask, key: Option<&str>) -> rusqlite::Result<Answer> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let answer = match key {
            Some(key) => once(&transaction, ask, key)?,
            None => carry_out(&transaction, ask)?,
        };
        self.ended(&transaction, entry, answer.status)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Refuses what could not be understood, and writes down that the request has ended.
    pub(super) fn reject(&self, entry: i64, message: &str) -> rusqlite::Result<Answer> {
        let answer = refuse(400, "invalid_request", message);
        self.ended(&self.lock(), entry, answer.status)?;
        Ok(answer)
    }

    fn ended(&self, books: &Connection, entry: i64, status: u16) -> rusqlite::Result<()> {
        let sql = "update ledger set status = ?1, ended_us = ?2 where id = ?3";
        books.execute(sql, params![status, self.now_us(), entry]).map(|_| ())
    }

    pub(super) fn ledger(&self) -> rusqlite::Result<Vec<LedgerEntry>> {
        let connection = self.lock();
        let sql = "select id, method, path, idempotency_key, status, started_us, ended_us from ledger order by id";
        let mut statement = connection.prepare(sql)?;
        let time = |us: i64| Duration::from_micros(us.unsigned_abs());
        let rows = statement.query_map([], |row| {
            Ok(LedgerEntry {
                id: row.get(0)?,
                method: row.get(1)?,
                path: row.get(2)?,
                idempotency_key: row.get(3)?,
                status: row.get(4)?,
                started: time(row.get(5)?),
                ended: row.get::<_, Option<i64>>(6)?.map(time),
            })
        })?;
        rows.collect()
    }

    pub(super) fn state(&self) -> rusqlite::Result<ShopState> {
        let connection = self.lock();
        let mut tables = BTreeMap::new();
        for table in STATE_TABLES {
            let mut statement = connection.prepare(&format!("select * from {table} order by 1, 2"))?;
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| (0..columns).map(|i| row.get(i).map(cell_text)).collect())?;
            tables.insert(table.to_owned(), rows.collect::<rusqlite::Result<_>>()?);
        }
        Ok(ShopState { tables })
    }
}

fn cell_text(cell: Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(text) => text,
        Cell::Blob(bytes) => format!("{bytes:?}"),
    }
}

/// The first answer under this key, whenever it was given.
fn once(books: &Transaction<'_>, ask: &Ask, key: &str) -> rusqlite::Result<Answer> {
    let request = format!("{ask:?}");
    let sql = "select request, status, body from idempotency where key = ?1";
    let known: Option<(String, u16, String)> =
        books.query_row(sql, [key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    match known {
        Some((known, status, body)) if known == request => Ok(Answer { status, body, replayed: true }),
        Some(_) => Ok(refuse(422, "idempotency_key_reused", "this Idempotency-Key belongs to another request")),
        None => {
            let answer = carry_out(books, ask)?;
            let sql = "insert into idempotency values (?1, ?2, ?3, ?4)";
            books.execute(sql, params![key, request, answer.status, answer.body])?;
            Ok(answer)
        }
    }
}

fn carry_out(books: &Transaction<'_>, ask: &Ask) -> rusqlite::Result<Answer> {
    match ask {
        Ask::Order { id } => order(books, id),
        Ask::Customer { id } => found(
            "customer",
            id,
            books
                .query_row("select name, email, tier from customers where id = ?1", [id], |row| {
                    let (name, email, tier): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok(json!({"id": id, "name": name, "email": email, "tier": tier}))
                })
                .optional()?,
        ),
        Ask::Stock { sku } => found(
            "product",
            sku,
            books
                .query_row("select name, stock from inventory where sku = ?1", [sku], |row| {
                    let (name, stock): (String, i64) = (row.get(0)?, row.get(1)?);
                    Ok(json!({"sku": sku, "name": name, "stock": stock}))
                })
                .optional()?,
        ),
        Ask::Quote { order_id, carrier } => quote(books, order_id, carrier),
        Ask::Reserve { sku, n } => reserve(books, sku, *n),
        Ask::Cheapest { order_id } => cheapest(books, order_id),
        Ask::Pay { order_id, amount_cents } => pay(books, order_id, *amount_cents),
        Ask::Charge { order_id, shipping_cents } => charge(books, order_id, *shipping_cents),
        Ask::Note { order_id, text } => {
            let number = next_number(books, "notes", "order_id", order_id)?;
            books.execute("insert into notes values (?1, ?2, ?3)", params![order_id, number, text])?;
            Ok(created(&json!({"note": number, "order_id": order_id})))
        }
        Ask::Email { to, subject, body } => {
            let number = next_number(books, "emails", "recipient", to)?;
            books.execute("insert into emails values (?1, ?2, ?3, ?4)", params![to, number, subject, body])?;
            Ok(created(&json!({"email": number, "to": to})))
        }
    }
}

fn order(books: &Transaction<'_>, id: &str) -> rusqlite::Result<Answer> {
    let mut lines = books.prepare("select sku, quantity from order_lines where order_id = ?1 order by sku")?;
    let lines =
        lines.query_map([id], |row| Ok(json!({"sku": row.get::<_, String>(0)?, "quantity": row.get::<_, i64>(1)?})))?;
    let lines: Vec<Value> = lines.collect::<rusqlite::Result<_>>()?;
    let sql = "select customer_id, status, total_cents, weight_g from orders where id = ?1";
    let order = books.query_row(sql, [id], |row| {
        let (customer, status): (String, String) = (row.get(0)?, row.get(1)?);
        let (total, weight): (i64, i64) = (row.get(2)?, row.get(3)?);
        Ok(json!({"id": id, "customer_id": customer, "status": status, "lines": lines, "total_cents": total,
            "weight_g": weight}))
    });
    found("order", id, order.optional()?)
}

fn quote(books: &Transaction<'_>, order_id: &str, carrier: &str) -> rusqlite::Result<Answer> {
    let sql = "select weight_g from orders where id = ?1";
    let Some(weight) = books.query_row(sql, [order_id], |row| row.get::<_, i64>(0)).optional()? else {
        return found("order", order_id, None);
    };
    let sql = "select base_cents, cents_per_kg, days, weight_max_g from carriers where name = ?1";
    let terms: Option<(i64, i64, i64, i64)> =
        books.query_row(sql, [carrier], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()?;
    let Some((base, per_kg, days, weight_max)) = terms else { return found("carrier", carrier, None) };
    if weight > weight_max {
        let text = format!(
            "{carrier} carries at most {weight_max} g and order {order_id} weighs {weight} g; ask courier or rail"
        );
        return Ok(refuse(422, "too_heavy", &text));
    }
    let cents = base + per_kg * weight / 1000;
    Ok(done(&json!({"order_id": order_id, "carrier": carrier, "price_cents": cents, "days": days})))
}

/// The quote of the carrier that asks least, of those that can carry the order.
fn cheapest(books: &Transaction<'_>, order_id: &str) -> rusqlite::Result<Answer> {
    let sql = "select carriers.name from carriers, orders where orders.id = ?1 and weight_g <= weight_max_g \
               order by base_cents + cents_per_kg * weight_g / 1000, carriers.name limit 1";
    match books.query_row(sql, [order_id], |row| row.get::<_, String>(0)).optional()? {
        Some(carrier) => quote(books, order_id, &carrier),
        None => found("carrier for order", order_id, None),
    }
}

fn reserve(books: &Transaction<'_>, sku: &str, n: u32) -> rusqlite::Result<Answer> {
    let sql = "select stock from inventory where sku = ?1";
    let Some(stock) = books.query_row(sql, [sku], |row| row.get::<_, i64>(0)).optional()? else {
        return found("product", sku, None);
    };
    if stock < i64::from(n) {
        return Ok(refuse(409, "out_of_stock", &format!("only {stock} of {sku} left, {n} asked for")));
    }
    books.execute("update inventory set stock = stock - ?1 where sku = ?2", params![n, sku])?;
    Ok(done(&json!({"sku": sku, "reserved": n, "remaining": stock - i64::from(n)})))
}

fn pay(books: &Transaction<'_>, order_id: &str, amount_cents: u32) -> rusqlite::Result<Answer> {
    let payment = next_number(books, "payments", "order_id", order_id)?;
    books.execute("insert into payments values (?1, ?2, ?3)", params![order_id, payment, amount_cents])?;
    books.execute("update orders set status = 'paid' where id = ?1", [order_id])?;
    Ok(created(&json!({"payment": payment, "order_id": order_id, "amount_cents": amount_cents})))
}

/// The order's own total, and what shipping costs.
fn charge(books: &Transaction<'_>, order_id: &str, shipping_cents: u32) -> rusqlite::Result<Answer> {
    let sql = "select total_cents from orders where id = ?1";
    match books.query_row(sql, [order_id], |row| row.get::<_, u32>(0)).optional()? {
        Some(total) => pay(books, order_id, total.saturating_add(shipping_cents)),
        None => found("order", order_id, None),
    }
}

fn next_number(books: &Transaction<'_>, table: &str, column: &str, value: &str) -> rusqlite::Result<i64> {
    let sql = format!("select coalesce(max(number), 0) + 1 from {table} where {column} = ?1");
    books.query_row(&sql, [value], |row| row.get(0))
}

fn found(what: &str, id: &str, body: Option<Value>) -> rusqlite::Result<Answer> {
    Ok(match body {
        Some(body) => done(&body),
        None => refuse(404, "not_found", &format!("there is no {what} `{id}`")),
    })
}

fn done(body: &Value) -> Answer {
    Answer { status: 200, body: body.to_string(), replayed: false }
}

fn created(body: &Value) -> Answer {
    Answer { status: 201, body: body.to_string(), replayed: false }
}

fn refuse(status: u16, code: &str, message: &str) -> Answer {
    Answer { status, body: json!({"error": {"code": code, "message": message}}).to_string(), replayed: false }
}
