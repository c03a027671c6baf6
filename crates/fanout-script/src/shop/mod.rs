//! The demo shop: a database, slow HTTP APIs in front of it, and a conversation that processes an order with them.
//!
//! From [`ShopOptions`]: how slow each API is. To any HTTP client; to tests: the [ledger](Shop::ledger) of what was asked
//! and when, and the [state](Shop::state) that it came to. The shop knows nothing of tools or models; only
//! [`story`] and [`planned`] do, and they share no code with the rest.

mod api;
mod database;
pub mod planned;
pub mod story;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use database::{LedgerEntry, ShopState};

use crate::listen;
use database::Database;

/// The `[[tool]]` entries for the shop's APIs, with `${SHOP_URL}` for its base URL.
///
/// Every tool declares its effects but one: `add_note`, so that a run has something to say about what a missing
/// declaration costs.
pub const TOOLS_TOML: &str = include_str!("tools.toml");

/// [`TOOLS_TOML`] with the base URL filled in.
pub fn tools_toml(base_url: &str) -> String {
    TOOLS_TOML.replace("${SHOP_URL}", base_url)
}

/// How long each API takes to answer. The work is done at the end of that time, as if the request had queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latencies {
    /// `GET /orders/{id}`
    pub orders: Duration,
    /// `GET /customers/{id}`
    pub customers: Duration,
    /// `GET /inventory/{sku}`
    pub inventory: Duration,
    /// `POST /inventory/{sku}/reserve`, for each unit: a larger reservation takes longer, so that two sent at once
    /// overtake each other.
    pub reserve_per_unit: Duration,
    /// `GET /shipping/quote` and `GET /shipping/cheapest`
    pub shipping: Duration,
    /// `POST /payments` and `POST /orders/{id}/charge`
    pub payments: Duration,
    /// `POST /orders/{id}/notes`
    pub notes: Duration,
    /// `POST /emails`
    pub emails: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            orders: Duration::from_millis(250),
            customers: Duration::from_millis(200),
            inventory: Duration::from_millis(150),
            reserve_per_unit: Duration::from_millis(100),
            shipping: Duration::from_millis(300),
            payments: Duration::from_millis(350),
            notes: Duration::from_millis(120),
            emails: Duration::from_millis(200),
        }
    }
}

impl Latencies {
    /// No latency at all, for tests that compare states.
    pub fn none() -> Self {
        let none = Duration::ZERO;
        Self {
            orders: none,
            customers: none,
            inventory: none,
            reserve_per_unit: none,
            shipping: none,
            payments: none,
            notes: none,
            emails: none,
        }
    }
}

/// How a shop behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShopOptions {
    /// How slow its APIs are.
    pub latencies: Latencies,
}

/// A running shop with its own database in memory. Dropping it closes the port; requests under way are finished.
#[derive(Debug)]
pub struct Shop {
    address: SocketAddr,
    database: Arc<Database>,
    stop: watch::Sender<bool>,
}

impl Shop {
    /// Opens a shop with the usual latencies on a free port of 127.0.0.1, on the runtime of the caller.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with).
    pub fn start() -> io::Result<Self> {
        Self::start_with(ShopOptions::default())
    }

    /// Opens a shop; returns when its port is open and its shelves are filled.
    ///
    /// # Errors
    /// When there is no runtime here, no port, or no database.
    pub fn start_with(options: ShopOptions) -> io::Result<Self> {
        let (runtime, listener) = listen::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let database = Arc::new(Database::open().map_err(io::Error::other)?);
        let (stop, mut stopped) = watch::channel(false);
        let app = api::router(Arc::clone(&database), options.latencies);
        let serve = axum::serve(listener, app).with_graceful_shutdown(async move {
            // A dropped sender is a stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        runtime.spawn(async move {
            // Serving ends with the stop alone; errors of single connections are theirs.
            let _ = serve.await;
        });
        Ok(Self { address, database, stop })
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in order of arrival.
    ///
    /// # Errors
    /// When the database fails.
    pub fn ledger(&self) -> io::Result<Vec<LedgerEntry>> {
        self.database.ledger().map_err(io::Error::other)
    }

    /// What the shop has come to: all tables but the ledger and the idempotency keys.
    ///
    /// # Errors
    /// When the database fails.
    pub fn state(&self) -> io::Result<ShopState> {
        self.database.state().map_err(io::Error::other)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
