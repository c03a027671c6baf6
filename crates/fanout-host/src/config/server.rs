//! `[server]`: where the gateway listens, whom it lets in, and how it treats clients.
//!
//! From the page. To the gateway and to `fanout keys`.
//!
//! Nothing is opened here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::field::Field;
use super::jwt::{self, JwtConfig};
use super::page::{Section, Spot};
use super::sections::or;
use crate::environment::Environment;

/// `[server]`: the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it listens, unless `PORT` says otherwise. Any address but loopback demands keys.
    pub listen: SocketAddr,
    /// Where `fanout keys` writes; looked for beside the configuration.
    pub keys_file: PathBuf,
    /// Further names by which it may be called, beside loopback's and the address it listens on. With any of them it is
    /// taken to be reached from elsewhere, through a proxy say, and demands keys.
    pub hosts: Vec<String>,
    /// Whether `plan` is among the tools of a gateway.
    pub plan: bool,
    /// What happens to our writes that come after a client's own call.
    pub writes_after_client: WritesAfterClient,
    /// How long a run goes on after its client is gone, for somebody to join it.
    pub disconnect_grace: Duration,
    /// How end users' tokens are verified; `None`: they are not, and what receives one must.
    pub jwt: Option<JwtConfig>,
}

/// What happens to our writes that come after a client's own call in program order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritesAfterClient {
    /// They wait for the client's results.
    Wait,
    /// They run at once.
    Run,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8787)),
            keys_file: PathBuf::from("keys.toml"),
            hosts: Vec::new(),
            plan: false,
            writes_after_client: WritesAfterClient::Wait,
            disconnect_grace: Duration::from_secs(10),
            jwt: None,
        }
    }
}

/// `PORT` is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable `PORT` must be a port, a number from 0 to 65535, not `{text}`")]
pub struct PortError {
    /// What it is.
    text: String,
}

impl ServerConfig {
    /// Where to listen: `listen`, with the port of the environment's `PORT` if that is set. Platforms set it for the
    /// programs that they run.
    ///
    /// # Errors
    /// [`PortError`] when `PORT` is none. It is looked at only here: it hurts no other command.
    pub fn address(&self, environment: &Environment) -> Result<SocketAddr, PortError> {
        let mut address = self.listen;
        if let Some(text) = environment.get("PORT") {
            address.set_port(text.trim().parse().map_err(|_| PortError { text: text.to_owned() })?);
        }
        Ok(address)
    }
}

pub(super) fn read(section: &Section<'_>) -> ServerConfig {
    let default = ServerConfig::default();
    let folder = section.page.folder;
    let config = ServerConfig {
        listen: or(section, "listen", default.listen, address),
        keys_file: or(section, "keys_file", folder.join(default.keys_file), |field| {
            field.string().map(|path| folder.join(path))
        }),
        hosts: or(section, "hosts", default.hosts, hosts),
        plan: or(section, "plan", default.plan, Field::boolean),
        writes_after_client: or(section, "writes_after_client", default.writes_after_client, |field| {
            match field.string()? {
                "wait" => Some(WritesAfterClient::Wait),
                "run" => Some(WritesAfterClient::Run),
                _ => {
                    field.expected("\"wait\" or \"run\"");
                    None
                }
            }
        }),
        disconnect_grace: or(section, "disconnect_grace", default.disconnect_grace, Field::duration),
        jwt: or(section, "jwt", default.jwt, |field| jwt::read(field).map(Some)),
    };
    section.finish();
    config
}

fn address(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.string()?.trim();
    let on_loopback = text.strip_prefix("localhost:").map(|port| format!("{}:{port}", Ipv4Addr::LOCALHOST));
    let address = on_loopback.as_deref().unwrap_or(text).parse().ok();
    if address.is_none() {
        field.expected("an address and a port such as \"127.0.0.1:8787\" or \"0.0.0.0:8787\"");
    }
    address
}

fn hosts(field: &Field<'_>) -> Option<Vec<String>> {
    let name = |(text, spot): (&str, Spot)| {
        let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        if !is_name {
            let message = format!("`hosts` takes names such as \"fanout.example.com\", without a port, not \"{text}\"");
            field.page.mistake(&spot, message);
        }
        is_name.then(|| text.to_ascii_lowercase())
    };
    Some(field.strings()?.into_iter().filter_map(name).collect())
}
