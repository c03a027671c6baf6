//! The loop: ask the model, run its calls, answer, until it stops.
//!
//! The one place where the wire ([`fanout_anthropic`]) and the scheduler ([`fanout_core`]) meet; neither knows the other.
//! An [`Agent`] takes a model, a toolbox and a recorder; where they come from is the program's affair.
//!
//! The modules in the order of a run:

mod agent;
mod running;

mod client;
mod request;

mod early;

mod after;
mod turn;

mod conversation;

mod budget;
mod daily;
mod parked;
mod rates;
mod repeats;
mod stop;

mod resume;

pub use agent::{Agent, AgentError, AgentOptions, RunSettings, new_run_id};
pub use budget::{Budget, BudgetError, Limits, Price};
pub use client::{Handed, Handover, Offer, Ours, WritesAfterClient};
pub use conversation::Conversation;
pub use daily::{Daily, DailyCap, Day, Ledger, LedgerError, MemoryLedger, nano_usd};
pub use parked::{Parked, Parking};
pub use rates::MODEL_GROUPS;
pub use resume::{Given, ResumeError, Resumed, usage_of};
pub use stop::{Cancel, Report, Status};
pub use turn::{calls_of, reply};
