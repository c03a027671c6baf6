//! `oauth` of `[mcp_servers.NAME]`: how one becomes entitled to use a remote server.
//!
//! From the server's section. To [`connect`](crate::connect), and to `fanout login`.
//!
//! No token stands in the configuration: those of a login are in a file beside it.

use std::path::PathBuf;

use super::field::Field;
use super::keys::Kind;
use super::page::Section;
use super::setting::Setting;

/// The folder of tokens, beside the configuration.
const TOKENS: &str = ".fanout/mcp";

/// How one becomes entitled to use a server.
#[derive(Clone, Debug)]
pub struct OauthConfig {
    /// How the authorization server knows us; `None`: we register there.
    pub client_id: Option<Setting>,
    /// The secret that goes with it.
    pub client_secret: Option<Setting>,
    /// What is asked for; none: what the server names.
    pub scopes: Vec<String>,
    /// Id and secret are enough: nobody logs in.
    pub client_credentials: bool,
    /// The port that a browser comes back to; `None`: any.
    pub redirect_port: Option<u16>,
    /// Where the tokens of a login are kept.
    pub tokens: PathBuf,
}

/// Reads `oauth`, beside the headers of the same server; `None` if there is none, or a mistake was noted.
pub(super) fn read(section: &Section<'_>, headers: &[(String, Setting)]) -> Option<OauthConfig> {
    let field = section.get("oauth")?;
    let name = section.name.strip_prefix("[mcp_servers.").and_then(|name| name.strip_suffix(']')).unwrap_or_default();
    let tokens = section.page.folder.join(TOKENS).join(format!("{name}.json"));
    let none = OauthConfig {
        client_id: None,
        client_secret: None,
        scopes: Vec::new(),
        client_credentials: false,
        redirect_port: None,
        tokens,
    };
    let config = if field.is_table() {
        table(&field, section, none)?
    } else if field.is_boolean() {
        field.boolean()?.then_some(none)?
    } else {
        field.expected("true, or a table such as { scopes = [\"issues:read\"] }");
        return None;
    };
    if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
        let name = &section.name;
        field.mistake(format!("{name} has `oauth` and an `authorization` header; one of them says who you are"));
        return None;
    }
    Some(config)
}

fn table(field: &Field<'_>, server: &Section<'_>, none: OauthConfig) -> Option<OauthConfig> {
    let section = field.section(format!("`oauth` of {}", server.name), Kind::Oauth)?;
    let setting = |key| section.get(key).and_then(|field: Field<'_>| field.setting());
    let (client_id, client_secret) = (setting("client_id"), setting("client_secret"));
    let scopes = section.get("scopes").and_then(|field| field.strings()).unwrap_or_default();
    let client_credentials = section.get("client_credentials").and_then(|field| field.boolean()).unwrap_or_default();
    let port = section.get("redirect_port").and_then(|field| field.integer(1..=u16::MAX.into()));
    section.finish();
    if client_secret.is_some() && section.spot_of("client_id").is_none() {
        field.mistake("`client_secret` in `oauth` does nothing without the `client_id` that it goes with");
    }
    let whole = ["client_id", "client_secret"].iter().all(|key| section.spot_of(key).is_some());
    if client_credentials && !whole {
        field.mistake("`client_credentials` in `oauth` needs a `client_id` and a `client_secret`");
    }
    if let Some(spot) = section.spot_of("redirect_port").filter(|_| client_credentials) {
        section
            .page
            .mistake(&spot, "`redirect_port` in `oauth` does nothing with `client_credentials`: nobody logs in");
    }
    Some(OauthConfig {
        client_id,
        client_secret,
        scopes: scopes.into_iter().map(|(text, _)| text.to_owned()).collect(),
        client_credentials,
        redirect_port: port.and_then(|port| u16::try_from(port).ok()),
        ..none
    })
}
