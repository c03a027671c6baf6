//! `[database.NAME]`: a database whose statements are tools.
//!
//! From the page. To [`databases`](crate::databases), which opens it, and to `sql`, which looks a tool's `database` up in the
//! names.
//!
//! Nothing is connected to, and no secret is read but to see whose SQL is meant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fanout_core::limits::{LimitOptions, POOL_CONNECTIONS};
use fanout_tools::sql::{Database, Dialect};

use super::field::Field;
use super::keys::Kind;
use super::page::{Place, Section, Spot};
use super::sections::{count, or};
use super::setting::Setting;

/// One database.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Where it is: `sqlite://shop.db`, `postgres://…`.
    pub url: Setting,
    /// Relative paths in the URL start here.
    pub folder: PathBuf,
    /// The most connections at once.
    pub pool: u32,
    /// Whether each transaction takes role and claims from the end user's verified token.
    pub role_from_claims: bool,
    /// The longest that one statement may take.
    pub statement_timeout: Duration,
    /// Whose SQL it speaks, where that is known without a secret.
    pub dialect: Option<Dialect>,
    /// Where it stands.
    pub place: Place,
}

/// The longest statement unless said; half a minute is all that a tool has.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

impl DatabaseConfig {
    /// The budget of its limit group, `sql/NAME`, where nobody set that up.
    pub(crate) fn limit(&self) -> LimitOptions {
        LimitOptions::at_once(self.pool)
    }
}

/// Reads every `[database.NAME]`; those with mistakes that leave nothing to go on with are left out.
pub(super) fn read_all(top: &Section<'_>) -> BTreeMap<String, DatabaseConfig> {
    let Some(section) = top.get("database").and_then(|field| field.section("[database]", Kind::Names)) else {
        return BTreeMap::new();
    };
    section.all().filter_map(|(spot, field)| Some((field.key.clone(), read(&spot, &field)?))).collect()
}

fn read(spot: &Spot, field: &Field<'_>) -> Option<DatabaseConfig> {
    let (name, page) = (&field.key, field.page);
    let section = field.section(format!("[database.{name}]"), Kind::Database)?;
    if name.trim().is_empty() {
        page.mistake(spot, "a database needs a name, as in [database.shop]");
    }
    let url = section.get("url");
    if url.is_none() {
        page.mistake(
            spot,
            format!("{} needs `url`, such as \"sqlite://shop.db\" or \"${{DATABASE_URL}}\"", section.name),
        );
    }
    let pool = or(&section, "pool", POOL_CONNECTIONS, count);
    let statement_timeout = or(&section, "statement_timeout", STATEMENT_TIMEOUT, Field::duration);
    let role_from_claims = section.get("role_from_claims").and_then(|field| field.boolean()).unwrap_or_default();
    let url = url.and_then(|field| Some((field.setting()?, field)));
    section.finish();
    let (url, field) = url?;
    let known = url.known(page.environment);
    let dialect = known.as_deref().and_then(Database::dialect_of);
    // An empty one is a variable that is set to nothing: what needs it says so.
    if known.is_some_and(|url| !url.is_empty()) && dialect.is_none() {
        // What it is instead is not told: a password may stand in it.
        field.mistake("`url` must be a URL such as \"sqlite://shop.db\" or \"postgres://user:password@host/database\"");
    }
    if role_from_claims && dialect == Some(Dialect::Sqlite) {
        page.mistake(
            &section.spot_of("role_from_claims")?,
            "`role_from_claims` needs a PostgreSQL: SQLite has no roles",
        );
    }
    if let Some(spot) = section.spot_of("role_from_claims").filter(|_| role_from_claims && !page.verifies_tokens.get())
    {
        let message = format!(
            "every call of {} will be `not_permitted`: `role_from_claims` needs an end user's verified token, and [server] \
             has no `jwt` to verify one by",
            section.name
        );
        page.warning(&spot, message);
    }
    let folder = page.folder.to_owned();
    Some(DatabaseConfig { url, folder, pool, role_from_claims, statement_timeout, dialect, place: page.place(spot) })
}
