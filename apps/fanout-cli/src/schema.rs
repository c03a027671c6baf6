//! `fanout schema`: what a configuration may look like, for editors.

use fanout_host::config;

use crate::args::Common;
use crate::exit::Ended;
use crate::show::give;

/// Prints the schema; with `--json` on one line. No configuration is read.
pub fn schema(common: &Common) -> anyhow::Result<Ended> {
    let schema = config::schema();
    give(&if common.json { schema.to_string() } else { serde_json::to_string_pretty(&schema)? })?;
    Ok(Ended::Done)
}
