//! `[mcp_servers.NAME]` and `mcp_config`: servers whose tools are ours too.
//!
//! From the page, and from `mcp_file` for servers that other programs' files name. To [`connect`](crate::connect), which
//! starts them.
//!
//! Nothing is started here, so what a server lists is not known: names of its tools are checked when it is connected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fanout_core::tool::Policy;
use http::Uri;

use super::command::check_one_word;
use super::field::Field;
use super::keys::Kind;
use super::limits::LimitConfig;
use super::mcp_file;
use super::oauth::{self, OauthConfig};
use super::page::{Mistake, Page, Place, Section, Spot};
use super::server::ServerConfig;
use super::setting::Setting;
use super::source::{self, Names, Said, SourceToolConfig, said};

/// One MCP server.
#[derive(Clone, Debug)]
pub struct McpServerConfig {
    /// How it is reached.
    pub reach: McpReachConfig,
    /// The only tools that are taken; `None`: all.
    pub enabled: Option<Vec<String>>,
    /// The tools that are not taken.
    pub disabled: Vec<String>,
    /// What is said of all its tools.
    pub policy: Policy,
    /// Tools without a declaration keep no order.
    pub parallel: bool,
    /// What is said of single tools, by the server's name for them.
    pub tools: BTreeMap<String, SourceToolConfig>,
    /// Where it stands.
    pub place: Place,
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub enum McpReachConfig {
    /// As a program of our own.
    Program {
        /// The program.
        command: Setting,
        /// Its arguments.
        args: Vec<Setting>,
        /// Its variables, beside the few that every server inherits.
        env: Vec<(String, Setting)>,
        /// The folder that it runs in: unless said, that of the file.
        folder: PathBuf,
    },
    /// Over streamable HTTP.
    Http {
        /// The address.
        url: Setting,
        /// The headers.
        headers: Vec<(String, Setting)>,
        /// How one becomes entitled to use it; `None`: by its headers, or not at all.
        oauth: Option<OauthConfig>,
    },
}

/// Reads every server, by name. One that is this very gateway is left out, with a warning.
pub(super) fn read_all(
    page: &Page<'_>,
    top: &Section<'_>,
    limits: &BTreeMap<String, LimitConfig>,
    server: &ServerConfig,
) -> BTreeMap<String, McpServerConfig> {
    let mut named = top.get("mcp_config").map(|field| mcp_file::read(&field)).unwrap_or_default();
    let mut servers = BTreeMap::new();
    let sections = top.get("mcp_servers").and_then(|field| field.section("[mcp_servers]", Kind::Names));
    for (spot, field) in sections.iter().flat_map(Section::all) {
        let name = field.key.clone();
        check_name(page, &spot, &name);
        let Some(section) = field.section(format!("[mcp_servers.{name}]"), Kind::McpServer) else { continue };
        if let Some(config) = read(&section, &spot, limits, named.remove(&name)) {
            servers.insert(name, config);
        }
    }
    for (name, (place, reach)) in named {
        servers.insert(name, McpServerConfig::of_reach(reach, place));
    }
    servers.retain(|name, config| {
        let is_this = is_this_gateway(&config.reach, page, server);
        if is_this {
            let message = format!("the MCP server `{name}` is left out: it would be this very gateway, calling itself");
            page.warning_at(Mistake { place: config.place.clone(), message });
        }
        !is_this
    });
    servers
}

impl McpServerConfig {
    fn of_reach(reach: McpReachConfig, place: Place) -> Self {
        let (enabled, disabled, tools) = (None, Vec::new(), BTreeMap::new());
        Self { reach, enabled, disabled, policy: Policy::default(), parallel: false, tools, place }
    }
}

fn check_name(page: &Page<'_>, spot: &Spot, name: &str) {
    // Its name is a part of keys (`mcp/NAME`), in which `/` separates.
    if name.trim().is_empty() || name.contains('/') {
        page.mistake(spot, "an MCP server needs a name without `/`, as in [mcp_servers.files]");
    }
}

/// `reach` is how another program's file reaches a server of this name: then this section need not say it.
fn read(
    section: &Section<'_>,
    spot: &Spot,
    limits: &BTreeMap<String, LimitConfig>,
    named: Option<(Place, McpReachConfig)>,
) -> Option<McpServerConfig> {
    let names = |key| {
        let texts = section.get(key).and_then(|field: Field<'_>| field.strings())?;
        Some(texts.into_iter().map(|(text, _)| text.to_owned()).collect::<Vec<_>>())
    };
    let (enabled, disabled) = (names("enabled_tools"), names("disabled_tools").unwrap_or_default());
    let Said { policy, parallel } = said(section, limits);
    let tools =
        section.get("tools").and_then(|field| field.section(format!("`tools` of {}", section.name), Kind::Names));
    // Neither its tools nor their inputs are known before it is asked.
    let names = Names::default();
    let tool = |(_, field): (_, Field<'_>)| {
        Some((field.key.clone(), source::tool(&field, &section.name, None, &names, limits, &policy)?))
    };
    let tools = tools.iter().flat_map(Section::all).filter_map(tool).collect();
    let reach = reach(section, named.map(|(_, reach)| reach));
    section.finish();
    let place = section.page.place(spot);
    Some(McpServerConfig { reach: reach?, enabled, disabled, policy, parallel, tools, place })
}

fn reach(section: &Section<'_>, named: Option<McpReachConfig>) -> Option<McpReachConfig> {
    let page = section.page;
    let (command, url) = (section.get("command"), section.get("url"));
    let folder = section.get("cwd").and_then(|field| field.string()).map(|folder| page.folder.join(folder));
    let (args, env) = (settings(section, "args"), pairs(section, "env"));
    let headers = pairs(section, "http_headers");
    let oauth = oauth::read(section, &headers);
    match (command, url) {
        (Some(_), Some(url)) => {
            url.mistake(format!("{} has a `command` and a `url`; one of them says how it is reached", section.name));
            None
        }
        (Some(command), None) => {
            refuse(section, &["http_headers", "oauth"], "a `url`");
            let folder = folder.unwrap_or_else(|| page.folder.to_owned());
            let setting = command.setting()?;
            check_one_word(page, &command.spot, "command", &setting.with("x"));
            Some(McpReachConfig::Program { command: setting, args, env, folder })
        }
        (None, Some(url)) => {
            refuse(section, &["args", "env", "cwd"], "a `command`");
            let setting = url.setting()?;
            let known = setting.known(page.environment);
            if known.is_some_and(|known| !known.starts_with("https://") && !known.starts_with("http://")) {
                url.mistake("`url` must be an address such as \"https://example.com/mcp\"");
            }
            Some(McpReachConfig::Http { url: setting, headers, oauth })
        }
        (None, None) => {
            if named.is_none() {
                page.mistake(
                    &section.spot,
                    format!("{} needs `command = \"…\"` or `url = \"https://…\"`", section.name),
                );
            }
            named.map(|named| match named {
                McpReachConfig::Http { url, headers, .. } => McpReachConfig::Http { url, headers, oauth },
                program => {
                    refuse(section, &["oauth"], "a `url`");
                    program
                }
            })
        }
    }
}

fn refuse(section: &Section<'_>, keys: &[&str], with: &str) {
    for key in keys {
        if let Some(spot) = section.spot_of(key) {
            section.page.mistake(&spot, format!("`{key}` of {} does nothing without {with}", section.name));
        }
    }
}

fn settings(section: &Section<'_>, key: &'static str) -> Vec<Setting> {
    let texts = section.get(key).and_then(|field| field.strings()).unwrap_or_default();
    let page = section.page;
    let read = |(text, spot): (&str, Spot)| match Setting::parse(text, page.place(&spot), key, page.folder) {
        Ok(setting) => Some(setting),
        Err(message) => {
            page.mistake(&spot, message);
            None
        }
    };
    texts.into_iter().filter_map(read).collect()
}

fn pairs(section: &Section<'_>, key: &'static str) -> Vec<(String, Setting)> {
    let section = section.get(key).and_then(|field| field.section(format!("`{key}`"), Kind::Names));
    let all = section.iter().flat_map(Section::all);
    all.filter_map(|(_, field)| Some((field.key.clone(), field.setting()?))).collect()
}

/// Whether a server would be the gateway that reads this file: it would call itself, for ever deeper.
fn is_this_gateway(reach: &McpReachConfig, page: &Page<'_>, server: &ServerConfig) -> bool {
    match reach {
        McpReachConfig::Program { command, args, folder, .. } => {
            let program = command.with("");
            let is_ours = Path::new(&program).file_stem().is_some_and(|stem| stem == "fanout");
            let args: Vec<String> = args.iter().map(|arg| arg.with("")).collect();
            is_ours && args.iter().any(|arg| arg == "mcp") && reads_this(&args, folder, page)
        }
        McpReachConfig::Http { url, .. } => {
            let (Some(url), Ok(address)) = (url.known(page.environment), server.address(page.environment)) else {
                return false;
            };
            let Ok(url) = url.parse::<Uri>() else { return false };
            let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
            let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let here = host == "localhost"
                || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback() || ip == address.ip());
            here && port == address.port()
        }
    }
}

/// Whether `fanout mcp` with these arguments reads the file that is being read. Without `--config` it finds it as we did.
fn reads_this(args: &[String], folder: &Path, page: &Page<'_>) -> bool {
    let named = args.iter().enumerate().find_map(|(at, arg)| match arg.strip_prefix("--config") {
        Some("") => args.get(at + 1).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    let Some(named) = named else { return true };
    let whole = |path: PathBuf| path.canonicalize().unwrap_or(path);
    whole(folder.join(named)) == whole(PathBuf::from(page.file))
}
