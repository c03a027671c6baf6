//! `fanout reload`: the running gateway reads its configuration again.

use anyhow::Context;
use fanout_host::changes::Changes;
use fanout_host::environment::Environment;
use serde_json::json;

use crate::args::Common;
use crate::exit::Ended;
use crate::gateway::Gateway;
use crate::loaded::fetched;
use crate::show::{give, print_line};

/// Asks the gateway, and prints what changed.
pub fn reload(common: &Common) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The gateway reads it anew; it is read here to say what is wrong before anyone is asked, and for the address.
    let config = runtime.block_on(fetched(common, &environment))?;
    let gateway = Gateway::of(&config, &environment)?;
    let asked = runtime.block_on(gateway.ask("/reload", Some(json!({}))));
    let answer = asked.with_context(|| format!("the gateway at {} did not take the configuration", gateway.url()))?;
    match common.json {
        true => print_line(&answer),
        false => give(&serde_json::from_value::<Changes>(answer)?.to_string())?,
    }
    Ok(Ended::Done)
}
