//! Raw samples and settings as a file, so that every figure can be computed again.
//!
//! From a measurement. To `benches/results/NAME.json`, which is committed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// Writes `value` as the result of the measurement `name`, over the one before.
///
/// # Errors
/// When the file cannot be written.
pub fn write(name: &str, value: &Value) -> anyhow::Result<()> {
    let file = path(name);
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::fs::write(&file, text).with_context(|| format!("`{}` cannot be written", file.display()))?;
    eprintln!("written: benches/results/{name}.json");
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(format!("{name}.json"))
}
