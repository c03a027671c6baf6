//! `fanout explain`: what would wait for what. Runs no call; MCP servers are started for their lists, without which their
//! tools would be unknown.

use std::fmt::Write as _;
use std::sync::Arc;

use fanout_host::build::Purpose;
use fanout_host::explain::Explanation;

use crate::args::{Common, Explain, Format};
use crate::content::from_stdin;
use crate::exit::Ended;
use crate::loaded::Loaded;
use crate::show::{give, give_styled, plain};

/// Prints the graph of the calls on standard input.
pub fn explain(common: &Common, explain: &Explain) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let loaded = runtime.block_on(Loaded::read(common, Purpose::Look))?;
    let explanation = Explanation::of(from_stdin()?.calls, Arc::clone(&loaded.toolbox))?;
    let format = if common.json { Format::Json } else { explain.format };
    match format {
        Format::Json => give(&explanation.to_json().to_string())?,
        Format::Mermaid => give(explanation.to_mermaid().trim_end())?,
        Format::Text => {
            let mut text = explanation.to_text();
            for line in explanation.advice(&loaded.toolbox) {
                let _ = writeln!(text, "a declaration is missing: {line}");
            }
            give_styled(&plain(&text))?;
        }
    }
    Ok(Ended::Done)
}
