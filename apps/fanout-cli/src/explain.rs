//! `fanout explain`: what would wait for what. Runs nothing.

use std::sync::Arc;

use fanout_host::build::Purpose;
use fanout_host::explain::Explanation;

use crate::args::{Common, Explain, Format};
use crate::content::calls_from_stdin;
use crate::exit::Ended;
use crate::loaded::Loaded;

/// Prints the graph of the calls on standard input.
pub fn explain(common: &Common, explain: &Explain) -> anyhow::Result<Ended> {
    let loaded = Loaded::read(common, Purpose::Look)?;
    let explanation = Explanation::of(calls_from_stdin()?, Arc::clone(&loaded.toolbox))?;
    match explain.format {
        _ if common.json => anstream::println!("{}", explanation.to_json()),
        Format::Json => anstream::println!("{}", explanation.to_json()),
        Format::Mermaid => anstream::print!("{}", explanation.to_mermaid()),
        Format::Text => {
            anstream::print!("{}", explanation.to_text());
            for line in explanation.advice(&loaded.toolbox) {
                anstream::println!("a declaration is missing: {line}");
            }
        }
    }
    Ok(Ended::Done)
}
