//! `fanout demo`: everything on this machine, nothing to install, no key.
//!
//! A scripted Claude answers on a real loopback socket, and a shop with slow HTTP APIs stands on others. Every figure that is
//! printed comes from the events of this very run.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use fanout_agent::Conversation;
use fanout_anthropic::{HttpModel, HttpOptions};
use fanout_host::build::Purpose;
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::options::agent_options;
use fanout_script::shop::{Shop, story, tools_toml};
use fanout_script::{Server, ServerOptions};

use crate::args::Common;
use crate::exit::Ended;
use crate::loaded::Loaded;
use crate::run::converse;
use crate::show::{QUIET, STRONG, say, styled};

/// Runs the demo.
pub fn demo(common: &Common) -> anyhow::Result<Ended> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let shop = Shop::start().context("the demo shop cannot open a port on 127.0.0.1")?;
        let server = Server::start(ServerOptions::responder(story::turn))
            .context("the scripted Claude cannot open a port on 127.0.0.1")?;
        // The surroundings are left out: a variable that is set for real work must not change the demo.
        let environment = Environment::default();
        let config = Config::parse("the demo", &tools_toml(&shop.base_url()), Path::new("."), &environment)?;
        let loaded = Loaded::build(config, environment, Purpose::Run).await?;
        let model = HttpModel::new(HttpOptions { base_url: server.base_url(), ..HttpOptions::default() })?;
        if !common.json {
            let place = "(a scripted Claude and a shop with slow APIs, on this machine)";
            say(format!("{} {}\n", styled(STRONG, story::PROMPT), styled(QUIET, place)));
        }
        converse(
            common,
            &loaded,
            Arc::new(model),
            agent_options(&loaded.config, &loaded.config.model.name),
            Conversation::from_prompt(story::PROMPT),
        )
        .await
    })
}
