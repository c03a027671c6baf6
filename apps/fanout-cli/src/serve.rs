//! `fanout serve`: the gateway, until somebody stops it.
//!
//! Where it listens goes to standard output, as the first thing there; the log goes to standard error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use fanout_gateway::{Gateway, GatewayOptions, Reload, Setup};
use fanout_host::build::{Purpose, Upstream, build_upstream};
use fanout_host::claims::build_verifier;
use fanout_host::config::Config;
use fanout_host::connect::{Servers, Trouble};
use fanout_host::environment::Environment;
use fanout_host::keys::KeysFile;
use fanout_script::shop::{Shop, story, tools_toml};
use fanout_script::{Server, ServerOptions};
use fanout_tools::command::Programs;
use serde_json::json;

use crate::args::{Common, Serve};
use crate::exit::{Ended, INTERRUPTED};
use crate::interrupt::{Hangups, Signal, Signals};
use crate::loaded::{Before, Loaded, NOTICES_MAX};
use crate::log::{Clock, Last, Lines};
use crate::show::{ERROR, QUIET, STRONG, Unwritten, filter, give, give_styled, say, styled};

/// How long what runs has to end, once the gateway is told to stop.
const GRACE: Duration = Duration::from_secs(30);

/// How often MCP servers that change their tools can change those of the gateway.
const CHANGES_EVERY: Duration = Duration::from_secs(1);

/// Serves until a signal comes.
pub fn serve(common: &Common, serve: &Serve) -> anyhow::Result<Ended> {
    let _last = log(common).context("the log has no thread to write it")?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        if !serve.demo {
            let mut loaded = Loaded::read(common, Purpose::Serve).await?;
            loaded.open_journal().await?;
            let upstream = build_upstream(&loaded.config.model, &loaded.environment)?;
            let reload = reload(common.clone(), &loaded);
            return until_stopped(common, loaded, upstream, Some(reload)).await;
        }
        let shop = Shop::start().context("the demo shop cannot open a port on 127.0.0.1")?;
        let claude = Server::start(ServerOptions::responder(story::turn))
            .context("the scripted Claude cannot open a port on 127.0.0.1")?;
        let environment = surroundings(&Environment::of_process());
        let config = Config::parse("the demo", &tools_toml(&shop.base_url()), Path::new("."), &environment)?;
        let loaded = Loaded::build(config, environment, Purpose::Serve).await?;
        // The scripted Claude takes any key, and none of the user's may go there.
        let upstream = Upstream { base_url: claude.base_url(), api_key: Some("scripted".into()) };
        until_stopped(common, loaded, upstream, None).await
    })
}

/// What the demo may know of the surroundings: where to listen. A variable that is set for real work must not change it.
fn surroundings(process: &Environment) -> Environment {
    let server = process.starting_with("FANOUT_SERVER__");
    let server = server.map(|(rest, value)| (format!("FANOUT_SERVER__{rest}"), value.to_owned()));
    server.chain(process.get("PORT").map(|port| ("PORT".to_owned(), port.to_owned()))).collect()
}

/// Reads the configuration again, the same way. A source that could be used before and cannot now is a reason not to take it.
fn reload(common: Common, loaded: &Loaded) -> Reload {
    let (programs, servers, databases) = (&loaded.programs, &loaded.servers, &loaded.databases);
    let kept = Before { programs: programs.clone(), servers: servers.clone(), databases: databases.clone() };
    let (kept, known) = (Arc::new(Mutex::new(kept)), loaded.troubles.clone());
    Arc::new(move || {
        let (common, kept, known) = (common.clone(), Arc::clone(&kept), known.clone());
        Box::pin(async move {
            let read = async {
                let before = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let loaded = Loaded::read_after(&common, Purpose::Serve, before).await?;
                let is_new = |trouble: &&Trouble| !known.iter().any(|known| known.message == trouble.message);
                let new: Vec<String> = loaded.troubles.iter().filter(is_new).map(ToString::to_string).collect();
                ensure!(new.is_empty(), "{}", new.join("\n"));
                let upstream = build_upstream(&loaded.config.model, &loaded.environment)?;
                let verifier = build_verifier(loaded.config.server.jwt.as_ref(), &loaded.environment)?;
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                (kept.servers, kept.databases) = (loaded.servers, loaded.databases);
                anyhow::Ok(Setup { config: loaded.config, toolbox: loaded.toolbox, upstream, verifier })
            };
            read.await.map_err(|error| format!("{error:#}"))
        })
    })
}

/// Without `reload` it is the demo.
async fn until_stopped(
    common: &Common,
    mut loaded: Loaded,
    upstream: Upstream,
    reload: Option<Reload>,
) -> anyhow::Result<Ended> {
    let demo = reload.is_none();
    let address = loaded.config.server.address(&loaded.environment)?;
    let verifier = build_verifier(loaded.config.server.jwt.as_ref(), &loaded.environment)?;
    let listener = fanout_gateway::open(address).with_context(|| {
        format!("cannot listen on {address}; another address: `listen` in [server], FANOUT_SERVER__LISTEN or PORT")
    })?;
    let address = listener.local_addr()?;
    let keys = KeysFile::at(&loaded.config.server.keys_file);
    let (programs, servers, databases) = (loaded.programs.clone(), loaded.servers.clone(), loaded.databases.clone());
    let notices = loaded.notices()?;
    let has_upstream_key = upstream.api_key.is_some();
    let gateway = Gateway::new(GatewayOptions {
        scheduler: loaded.scheduler(),
        journal: loaded.journal().cloned(),
        setup: Setup { config: loaded.config.clone(), toolbox: Arc::clone(&loaded.toolbox), upstream, verifier },
        approvals: loaded.approvals(),
        reload,
        address,
        ledger: loaded.ledger(),
        notices: notices.clone(),
    })?;
    let resumed = gateway.recover().await?;
    if resumed > 0 {
        say(format!("goes on with {resumed} runs whose process was gone"));
    }
    // Whoever reads where it listens may stop it at once.
    let signals = Signals::listen()?;
    let reloading = tokio::spawn(reload_when_asked(Hangups::listen()?, servers, gateway.clone()));
    announce(common, address, gateway.demands_keys(), demo)?;
    if gateway.demands_keys() && keys.read()?.is_empty() {
        warn(&format!("there are no keys in {}: nobody is let in until `fanout keys add`", keys.path().display()));
    }
    if !has_upstream_key {
        warn("`api_key` of [model] is not set: clients of the Messages API must bring a key of their own");
    }
    let mut ended = Ended::Done;
    let serving =
        fanout_gateway::serve(listener, &gateway, async { ended = stopped(signals, programs.clone()).await }, GRACE);
    tokio::join!(serving, gateway.work(GRACE));
    reloading.abort();
    tokio::join!(programs.gone(), databases.unused(), notices.close(NOTICES_MAX));
    loaded.close_journal().await;
    Ok(ended)
}

/// Reads the configuration again whenever the signal for it comes or an MCP server has other tools, and says what changed or
/// why nothing did.
async fn reload_when_asked(mut hangups: Hangups, servers: Servers, gateway: Gateway) {
    loop {
        let is_asked = tokio::select! {
            asked = hangups.next() => match asked {
                Some(()) => true,
                None => return,
            },
            () = servers.changed() => {
                // One that changes them all the time changes ours no more often than so.
                tokio::time::sleep(CHANGES_EVERY).await;
                false
            }
        };
        match gateway.reload().await {
            Ok(changes) if is_asked => say(format!("the configuration was read again:\n{changes}")),
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => say(format!("an MCP server has other tools:\n{changes}")),
            Err(error) => warn(&format!("the configuration stays as it was: {error}")),
        }
    }
}

/// Says where it listens, in one piece: who reads only the first line (`| head -1`) has what it wanted.
fn announce(common: &Common, address: SocketAddr, demands_keys: bool, demo: bool) -> Result<(), Unwritten> {
    let url = format!("http://{}", reached_at(address));
    let (tool_calls, mcp) = (format!("{url}/fanout/v1/tool_calls"), format!("{url}/mcp"));
    if common.json {
        let what = json!({
            "type": "listening", "url": url, "tool_calls": tool_calls, "mcp": mcp, "demands_keys": demands_keys,
        });
        return give(&what.to_string());
    }
    let key = if demands_keys { "   with a key of `fanout keys add` as ANTHROPIC_API_KEY" } else { "" };
    let mut lines = format!("fanout listens on {}\n", styled(STRONG, &url));
    let mut line = |what: &str, how: String| lines += &format!("  {} {how}\n", styled(QUIET, format!("{what:<21}")));
    line("any Anthropic client:", format!("ANTHROPIC_BASE_URL={url}{key}"));
    line("any MCP client:", mcp);
    line("a loop of your own:", format!("POST {tool_calls}"));
    if demo {
        let prompt = story::PROMPT;
        line("the demo:", format!("a scripted Claude and a shop are behind it; say anything, such as \"{prompt}\""));
    }
    give_styled(&lines)
}

/// Where this machine reaches it: an address that stands for all of them is none to send to.
pub fn reached_at(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn warn(message: &str) {
    say(format!("{} {message}", styled(ERROR, "warning:")));
}

/// Waits for the signal that stops it in good order, and has a second one end the process and `programs` with it.
async fn stopped(mut signals: Signals, programs: Programs) -> Ended {
    let ended = match signals.next().await {
        Signal::Interrupt => Ended::Interrupted,
        Signal::Terminate => Ended::Done,
    };
    say(format!("stopping: what is under way has {} s; once more stops at once", GRACE.as_secs()));
    tokio::spawn(async move {
        signals.next().await;
        programs.kill();
        std::process::exit(INTERRUPTED.into());
    });
    ended
}

/// Sends log lines to standard error, as `RUST_LOG` says; if it says nothing, what the gateway answers and runs. The last of
/// them are written when what is returned is dropped.
///
/// # Errors
/// When the system gives no thread.
fn log(common: &Common) -> std::io::Result<Last> {
    let (lines, last) = Lines::start(std::io::stderr())?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter("warn,fanout_gateway=info"))
        .with_writer(lines)
        .with_timer(Clock);
    match common.json {
        true => log.json().init(),
        false => log.init(),
    }
    Ok(last)
}
