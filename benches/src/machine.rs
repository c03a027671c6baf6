//! What the figures were measured on.
//!
//! To every result file. No name of a host and no path is ever put into it.

use std::process::Command;
use std::thread::available_parallelism;

use serde_json::{Value, json};

/// Cores, processor, compiler and build of this process.
pub fn describe() -> Value {
    json!({
        "cores": available_parallelism().map_or(0, usize::from),
        "processor": processor(),
        "os": std::env::consts::OS,
        "rustc": rustc(),
        "optimised": !cfg!(debug_assertions),
    })
}

/// How many runnable tasks the machine had on average over the last minute: others than ours make figures worse.
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn rustc() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
