//! `jwt` of `[server]`: by whose keys the end users' tokens are verified.
//!
//! From the server's section. To [`claims`](crate::claims), which verifies.
//!
//! Nothing is fetched and no key is looked at here.

use super::field::Field;
use super::keys::Kind;
use super::setting::Setting;

/// By whose keys tokens are verified, and what else must be true of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtConfig {
    /// The keys.
    pub keys: JwtKeys,
    /// Who must have issued a token; `None`: whoever has the key.
    pub issuer: Option<Setting>,
    /// For whom a token must be meant; `None`: for anyone.
    pub audience: Option<Setting>,
}

/// Where the keys are. It is one or the other: whoever could choose would sign with the published key as if it were a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// Published at this address, as a JWKS.
    Published(Setting),
    /// A secret that issuer and gateway share, for HS256.
    Secret(Setting),
}

/// Reads `jwt`; `None` where a mistake was noted.
pub(super) fn read(field: &Field<'_>) -> Option<JwtConfig> {
    let section = field.section("`jwt` of [server]", Kind::Jwt)?;
    let setting = |key| {
        let field = section.get(key)?;
        let setting = field.setting()?;
        let is_empty = setting.literal().is_some_and(|text| text.trim().is_empty());
        if is_empty {
            field.mistake(format!("`{key}` of `jwt` is empty"));
        }
        (!is_empty).then_some(setting)
    };
    let (published, secret) = (setting("jwks_url"), setting("secret"));
    let (issuer, audience) = (setting("issuer"), setting("audience"));
    section.finish();
    let keys = match (section.spot_of("jwks_url"), section.spot_of("secret")) {
        (Some(_), None) => JwtKeys::Published(published?),
        (None, Some(_)) => JwtKeys::Secret(secret?),
        (Some(_), Some(_)) => {
            field.mistake("`jwt` has a `jwks_url` and a `secret`; tokens are verified by the one or by the other");
            return None;
        }
        (None, None) => {
            field.mistake("`jwt` needs a `jwks_url`, where the issuer publishes its keys, or the `secret` of HS256");
            return None;
        }
    };
    Some(JwtConfig { keys, issuer, audience })
}
