//! How credentials travel.
//!
//! From the document's security schemes, and from the configuration's secrets by scheme. To `operation`, as headers, pairs of
//! the query, and cookies.
//!
//! No secret is printed, and none is asked for here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;

use super::document::{Document, Spot};
use crate::http::{Credential, HttpToolBuilder, ParameterPlace};

/// How one scheme's secret is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Header(String),
    Query(String),
    Cookie(String),
    /// Also OAuth 2 and OpenID Connect: the token is the configuration's to get.
    Bearer,
    /// The secret is `user:password`.
    Basic,
}

/// A scheme that there can be a secret for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) scheme: Scheme,
    /// The document's own, not one that every API may have.
    pub(super) own: bool,
}

/// What an operation asks for: any of these sets of schemes. `None`: the document does not say.
pub(super) type Needs = Option<Vec<Vec<String>>>;

impl Document {
    /// The schemes that a configuration can bring secrets for, in alphabetical order: the document's own, and `bearer` and
    /// `basic` where it has none of that name.
    pub fn schemes(&self) -> Vec<String> {
        self.all_schemes().into_keys().collect()
    }

    pub(super) fn all_schemes(&self) -> BTreeMap<String, Known> {
        let own = self.root().get("components").and_then(|components| components.get("securitySchemes"));
        let mut schemes = BTreeMap::from(
            [("bearer", Scheme::Bearer), ("basic", Scheme::Basic)]
                .map(|(name, scheme)| (name.to_owned(), Known { scheme, own: false })),
        );
        for (name, spot) in own.into_iter().flat_map(Spot::entries) {
            if let Some(scheme) = self.resolved(spot).and_then(scheme) {
                schemes.insert(name.clone(), Known { scheme, own: true });
            }
        }
        schemes
    }

    /// What an operation asks for: its own word, else the document's.
    pub(super) fn needs(&self, operation: Spot<'_>) -> Needs {
        let said = operation.get("security").or_else(|| self.root().get("security"))?;
        let set = |spot: Spot<'_>| spot.entries().map(|(name, _)| name.clone()).collect();
        Some(said.elements().map(set).collect())
    }
}

fn scheme(spot: Spot<'_>) -> Option<Scheme> {
    match spot.text("type")? {
        "apiKey" => {
            let name = spot.text("name")?.to_owned();
            match spot.text("in")? {
                "header" => Some(Scheme::Header(name)),
                "query" => Some(Scheme::Query(name)),
                "cookie" => Some(Scheme::Cookie(name)),
                _ => None,
            }
        }
        "http" => match spot.text("scheme")?.to_ascii_lowercase().as_str() {
            "bearer" => Some(Scheme::Bearer),
            "basic" => Some(Scheme::Basic),
            _ => None,
        },
        "oauth2" | "openIdConnect" => Some(Scheme::Bearer),
        _ => None,
    }
}

/// Which of the schemes that there are secrets for an operation is sent. Where the document says nothing of it, all; else
/// those of the first set that is complete. `bearer` and `basic` are always sent where the document does not know them.
pub(super) fn chosen(needs: &Needs, given: impl Fn(&str) -> bool, all: &BTreeMap<String, Known>) -> Vec<String> {
    let complete = needs.iter().flatten().find(|set| set.iter().all(|name| given(name)));
    let is_asked = |name: &String| needs.is_none() || complete.is_some_and(|set| set.contains(name));
    let is_sent = |(name, known): &(&String, &Known)| given(name) && (!known.own || is_asked(name));
    all.iter().filter(is_sent).map(|(name, _)| name.clone()).collect()
}

impl Scheme {
    /// Whether it is what a parameter of this name would be.
    pub(super) fn sends(&self, place: ParameterPlace, name: &str) -> bool {
        match self {
            Self::Header(header) => place == ParameterPlace::Header && header.eq_ignore_ascii_case(name),
            Self::Query(query) => place == ParameterPlace::Query && query == name,
            Self::Cookie(cookie) => place == ParameterPlace::Cookie && cookie == name,
            Self::Bearer | Self::Basic => false,
        }
    }

    /// The tool, sending this secret. `None`: the end user's token stands in it, and this scheme cannot send that.
    pub(super) fn apply(&self, builder: HttpToolBuilder, secret: &Credential) -> Option<HttpToolBuilder> {
        let only = || secret.only().map(str::to_owned);
        Some(match self {
            Self::Header(name) => builder.secret_header(name, secret.clone()),
            Self::Query(name) => builder.secret_query(name, only()?),
            Self::Cookie(name) => builder.secret_cookie(name, only()?),
            Self::Bearer => builder.secret_header(AUTHORIZATION.as_str(), secret.clone().after("Bearer ")),
            Self::Basic => builder.secret_header(AUTHORIZATION.as_str(), format!("Basic {}", STANDARD.encode(only()?))),
        })
    }
}
