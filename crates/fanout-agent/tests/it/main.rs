//! The agent loop against the scripted server, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails best where it stands")]

mod batch;
mod budgets;
mod cancel;
mod chaos;
mod client;
mod conversation;
mod crowd;
mod daily;
mod early;
mod faults;
mod rates;
mod stage;
mod stops;
mod tools;
