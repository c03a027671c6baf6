//! The configured databases, opened and asked what they hold.
//!
//! From [`Config`] and its surroundings. To [`build`](crate::build), which makes tools of their statements.
//!
//! All are asked at once. One that cannot be asked takes nothing else down: its tools are there, and are taken to touch all of
//! it; a [`Trouble`] says why.

use std::collections::BTreeMap;
use std::time::Duration;

use fanout_tools::sql::{Database, DatabaseError, DatabaseOptions, Statement};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::build::Purpose;
use crate::config::{Config, DatabaseConfig, Implementation, Place, SettingError, ToolConfig};
use crate::connect::Trouble;
use crate::environment::Environment;

/// So long it is awaited that stopped statements are over.
const UNUSED_MAX: Duration = Duration::from_secs(10);

/// In the place of a URL that nobody may be asked for: tools can be looked at without it.
const NOWHERE: &str = "postgres://localhost:1/nowhere";

/// The databases, by name. Cloning it shares their connections.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    by_name: BTreeMap<String, Opened>,
}

#[derive(Clone, Debug)]
struct Opened {
    options: DatabaseOptions,
    database: Database,
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Databases {
    /// The database of that name, if it could be opened.
    pub fn get(&self, name: &str) -> Option<&Database> {
        self.by_name.get(name).map(|opened| &opened.database)
    }

    /// Waits until none of them works for us any more: what was stopped is stopped in the server too, before this process
    /// ends. At most ten seconds, after which their own time-outs are left to it.
    pub async fn unused(&self) {
        let mut waiting = JoinSet::new();
        for opened in self.by_name.values() {
            let database = opened.database.clone();
            waiting.spawn(async move { database.unused().await });
        }
        let _ = timeout(UNUSED_MAX, waiting.join_all()).await;
    }

    /// What is allowed and perhaps not meant: a line that nobody proves, one database under two names.
    pub fn warnings(&self) -> Vec<String> {
        let unproven = self.by_name.iter().filter(|(_, opened)| opened.database.is_unproven()).map(|(name, _)| {
            format!(
                "[database.{name}] is on another machine, and nothing proves which: its URL needs `sslmode=verify-full` (and \
                 `sslrootcert`, if its certificate is of an authority of its own)"
            )
        });
        let all: Vec<(&String, &Opened)> = self.by_name.iter().collect();
        let twice = all.iter().enumerate().flat_map(|(at, (name, opened))| {
            let same = all[..at].iter().filter(|(_, other)| is_same_place(&opened.options, &other.options));
            same.map(move |(other, _)| {
                format!(
                    "[database.{other}] and [database.{name}] are one database under two names: conflicts between their tools are \
                     only seen by the database itself"
                )
            })
        });
        unproven.chain(twice).collect()
    }

    /// Opens every database, and asks what it holds; at most 15 s each, and all at once. The connections of those of
    /// `before` that are reached and used in the same way stay.
    ///
    /// # Cancellation
    /// Safe: nothing is left open but what `before` has.
    pub async fn open(
        config: &Config,
        environment: &Environment,
        purpose: Purpose,
        before: &Self,
    ) -> (Self, Vec<Trouble>) {
        let (mut by_name, mut troubles) = (BTreeMap::new(), Vec::new());
        let mut asking = JoinSet::new();
        for (name, section) in &config.databases {
            let trouble = |message| Trouble { source: format!("sql/{name}"), place: section.place.clone(), message };
            match before.database(name, section, environment) {
                Ok(opened) => {
                    let (of, database) = (name.clone(), opened.database.clone());
                    let tools = statements(config, &database);
                    asking.spawn(async move { (of, asked(&database, tools).await) });
                    by_name.insert(name.clone(), opened);
                }
                Err(error) => {
                    let (what, opened) = match purpose {
                        Purpose::Run | Purpose::Serve => ("its tools are missing", None),
                        Purpose::Look => ("its tools are shown as touching all of it", nowhere(name, section).ok()),
                    };
                    by_name.extend(opened.map(|opened| (name.clone(), opened)));
                    troubles.push(trouble(format!("the database `{name}` cannot be used, {what}: {error}")));
                }
            }
        }
        for (name, asked) in asking.join_all().await {
            let trouble =
                |place: &Place, message| Trouble { source: format!("sql/{name}"), place: place.clone(), message };
            match (asked, config.databases.get(&name)) {
                (Ok(refused), _) => troubles.extend(refused.into_iter().map(|(place, told)| trouble(&place, told))),
                (Err(error), Some(section)) => {
                    let what = "the tools of the database";
                    let message = format!("{what} `{name}` are taken to touch all of it: {error}");
                    troubles.push(trouble(&section.place, message));
                }
                (Err(_), None) => {}
            }
        }
        troubles.sort_by(|one, other| one.source.cmp(&other.source));
        (Self { by_name }, troubles)
    }

    /// The database that is reached so: the one that is there, or a new one.
    fn database(&self, name: &str, section: &DatabaseConfig, environment: &Environment) -> Result<Opened, OpenError> {
        let options = options(section, section.url.fill(environment)?);
        match self.by_name.get(name).filter(|known| is_same(&known.options, &options)) {
            Some(known) => Ok(known.clone()),
            None => Ok(Opened { database: Database::new(name, options.clone())?, options }),
        }
    }
}

/// A statement of a tool, what that is called, and where it stands.
type Of = (Statement, String, Place);

/// The statements of every tool of this database; what cannot be read is told when the tool is made.
fn statements(config: &Config, database: &Database) -> Vec<Of> {
    let of_tool = |tool: &ToolConfig| match &tool.implementation {
        Implementation::Sql(sql) if sql.database == database.name() => {
            let statements = sql.draft.read(database.dialect(), &tool.input_schema).unwrap_or_default();
            statements.into_iter().map(|statement| (statement, tool.name.clone(), tool.place.clone())).collect()
        }
        _ => Vec::new(),
    };
    config.tools.iter().flat_map(of_tool).collect()
}

/// Learns what a database holds, and which statements it would refuse.
async fn asked(database: &Database, of: Vec<Of>) -> Result<Vec<(Place, String)>, DatabaseError> {
    database.learn().await?;
    let statements: Vec<Statement> = of.iter().map(|(statement, ..)| statement.clone()).collect();
    let refused = database.refused(&statements).await;
    let told = |(refused, (_, tool, place)): (Option<String>, Of)| {
        let message = format!("the database `{}` refuses a statement of `{tool}`: {}", database.name(), refused?);
        Some((place, message))
    };
    Ok(refused.into_iter().zip(of).filter_map(told).collect())
}

fn nowhere(name: &str, section: &DatabaseConfig) -> Result<Opened, OpenError> {
    let options = options(section, NOWHERE.into());
    Ok(Opened { database: Database::new(name, options.clone())?, options })
}

fn options(section: &DatabaseConfig, url: SecretString) -> DatabaseOptions {
    let DatabaseConfig { folder, pool, role_from_claims, statement_timeout, .. } = section;
    DatabaseOptions {
        url,
        folder: folder.clone(),
        pool: *pool,
        statement_timeout: *statement_timeout,
        role_from_claims: *role_from_claims,
    }
}

fn is_same_place(one: &DatabaseOptions, other: &DatabaseOptions) -> bool {
    one.url.expose_secret() == other.url.expose_secret() && one.folder == other.folder
}

fn is_same(one: &DatabaseOptions, other: &DatabaseOptions) -> bool {
    let DatabaseOptions { url, folder, pool, statement_timeout, role_from_claims } = one;
    url.expose_secret() == other.url.expose_secret()
        && *folder == other.folder
        && *pool == other.pool
        && *statement_timeout == other.statement_timeout
        && *role_from_claims == other.role_from_claims
}
