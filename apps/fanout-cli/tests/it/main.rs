//! The built `fanout`, as people and programs meet it: a child process, with real parts on loopback around it.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is not as it should be")]

mod api;
mod approvals;
mod binary;
mod process;

mod call;
mod caps;
mod check;
#[cfg(unix)]
mod comes_back;
mod command;
#[cfg(unix)]
mod controls;
mod crash;
mod demo;
#[cfg(target_os = "linux")]
mod disk;
mod documents;
mod drain;
mod explain;
mod faults;
mod help;
mod init;
mod interrupt;
mod keys;
mod killed;
mod limits;
mod login;
mod mcp;
mod plan;
#[cfg(unix)]
mod projects;
#[cfg(unix)]
mod reload;
mod replay;
mod run;
mod runs;
mod serve;
mod sql;
mod tracker;
mod usage;
mod write;
