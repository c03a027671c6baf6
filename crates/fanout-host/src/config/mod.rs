//! `fanout.toml` as options.
//!
//! From a file, and from `FANOUT_SECTION__KEY` variables, which win.
//! To [`build`](crate::build) and to the surfaces, as plain structs; every mistake comes with its place.
//!
//! In reading order: `page` is the text with its places, `syntax` says what is no TOML, `field` reads one value of it, `units` durations, rates and sizes,
//! `setting` texts with `${NAME}` in them; `keys` describes every key, and `schema` and `reference` are made of it; `sections`, `limits`, `server`, `database`, `tool`, `command`, `sql`, `source`, `openapi`, `mcp`, `mcp_file`, `oauth`, `project`, `notify` and `jwt` know the keys; `later` the keys of later versions; `find`
//! looks for the file. Nothing is connected to and nothing is built.

mod approval;
mod command;
mod database;
mod field;
mod find;
mod jwt;
mod keys;
mod later;
mod limits;
mod mcp;
mod mcp_file;
mod notify;
mod oauth;
mod openapi;
mod page;
mod project;
mod reference;
mod schema;
mod sections;
mod server;
mod setting;
mod source;
mod sql;
mod store;
mod syntax;
mod tool;
mod units;

pub use command::{CommandConfig, Variable};
pub use database::DatabaseConfig;
pub use find::FindError;
pub use jwt::{JwtConfig, JwtKeys};
pub(crate) use limits::written;
pub use limits::{IN_FLIGHT, LimitConfig};
pub use mcp::{McpReachConfig, McpServerConfig};
pub use notify::NotifyConfig;
pub use oauth::OauthConfig;
pub use openapi::{OpenapiConfig, OpenapiTool};
pub use page::{ConfigErrors, Mistake, Place};
pub use project::ProjectConfig;
pub(crate) use project::written as project_written;
pub use reference::reference;
pub use schema::schema;
pub use sections::{ModelConfig, RunConfig, SchedulerConfig};
pub use server::{PortError, ServerConfig, WritesAfterClient};
pub use setting::{Setting, SettingError};
pub use source::SourceToolConfig;
pub use sql::SqlConfig;
pub use store::{StoreConfig, StorePlace, WorkerConfig};
pub use tool::{HttpConfig, Implementation, ToolConfig};

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use page::Page;

use fanout_agent::Price;
use fanout_core::call::GroupName;
use fanout_core::effects::Source;
use fanout_core::limits::LimitOptions;
use fanout_core::run::SchedulerOptions;

use crate::environment::Environment;

/// The whole configuration. [`Config::default`] is that of an empty file.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The file that it came from, if any.
    pub file: Option<PathBuf>,
    /// `[model]`: whom to ask.
    pub model: ModelConfig,
    /// `[run]`: budgets and habits of one run.
    pub run: RunConfig,
    /// `[scheduler]`: bounds of this process.
    pub scheduler: SchedulerConfig,
    /// `[limits.NAME]`: the budgets of external APIs, by name.
    pub limits: BTreeMap<String, LimitConfig>,
    /// `[database.NAME]`: the databases whose statements are tools, by name.
    pub databases: BTreeMap<String, DatabaseConfig>,
    /// `[server]`: where the gateway listens and whom it lets in.
    pub server: ServerConfig,
    /// `[[tool]]`, in the order of the file; the names differ.
    pub tools: Vec<ToolConfig>,
    /// `[openapi.NAME]`, by name.
    pub openapi: Vec<OpenapiConfig>,
    /// `[mcp_servers.NAME]` and those of `mcp_config`, by name.
    pub mcp_servers: BTreeMap<String, McpServerConfig>,
    /// `[project.NAME]`, by name.
    pub projects: BTreeMap<String, ProjectConfig>,
    /// `[[notify]]`, in the order of the file.
    pub notify: Vec<NotifyConfig>,
    /// `[prices."MODEL"]`.
    pub prices: BTreeMap<String, Price>,
    /// `[store]`: where runs are kept.
    pub store: StoreConfig,
    /// `[worker]`: background runs.
    pub worker: WorkerConfig,
    /// What is allowed and perhaps not meant, in the order of the file.
    pub warnings: Vec<Mistake>,
    /// What it was read from.
    pub(crate) text: Text,
}

/// The text of a configuration. A secret may have slipped into it, so it is never printed.
#[derive(Clone, Default)]
pub(crate) struct Text(pub(crate) String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text")
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file holds mistakes.
    #[error(transparent)]
    Mistakes(#[from] ConfigErrors),
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// There is a folder where a file should be.
    #[error("{} is a folder; name the file in it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// It is too large to be a configuration.
    #[error("{} is larger than {} MiB, and surely no configuration", path.display(), SIZE_MAX >> 20)]
    Large {
        /// The file.
        path: PathBuf,
    },
    /// There is a file, and it may not be used unasked.
    #[error(transparent)]
    Find(#[from] FindError),
}

/// Reads a time such as `30s`, `12h` or `7d`, as the configuration writes them.
pub fn read_duration(text: &str) -> Option<std::time::Duration> {
    units::duration(text)
}

/// The most bytes of a configuration: far more than anybody writes, far less than a device or a log would pour in.
const SIZE_MAX: u64 = 16 << 20;

impl Config {
    /// Reads a file, whoever owns it. Files that it names are looked for beside it.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] with every mistake that could be found; the others where there is no text to read.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let text = Self::text(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut config = Self::parse(&path.display().to_string(), &text, folder, environment)?;
        config.file = Some(path.to_owned());
        Ok(config)
    }

    /// Reads the `fanout.toml` of `folder` or of the nearest folder above that has one; without any, the defaults hold.
    ///
    /// # Errors
    /// Those of [`Config::load`], and [`ConfigError::Find`] when the file belongs to somebody else: what it says would run
    /// with this user's secrets.
    pub fn find(folder: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        match Self::locate(folder)? {
            Some(path) => Self::load(&path, environment),
            None => Ok(Self::parse("fanout.toml", "", folder, environment)?),
        }
    }

    /// The text of a file that is to be a configuration.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] where it is no UTF-8; the others where there is no text to read.
    pub fn text(path: &Path) -> Result<String, ConfigError> {
        let wrong = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(wrong)?;
        if file.metadata().map_err(wrong)?.is_dir() {
            return Err(ConfigError::Folder { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SIZE_MAX {
            return Err(ConfigError::Large { path: path.to_owned() });
        }
        Ok(page::decode(&path.display().to_string(), bytes)?)
    }

    /// The file that [`Config::find`] would read, if there is one.
    ///
    /// # Errors
    /// [`FindError`] when there is one that may not be used unasked.
    pub fn locate(folder: &Path) -> Result<Option<PathBuf>, FindError> {
        find::find(folder)
    }

    /// Reads a text. `file` is what mistakes call it; files that it names are looked for in `folder`.
    ///
    /// # Errors
    /// Every mistake that could be found, in the order of the text.
    pub fn parse(file: &str, text: &str, folder: &Path, environment: &Environment) -> Result<Self, ConfigErrors> {
        let page = Page::new(file, text, folder, environment);
        let config = sections::read(&page);
        let warnings = page.finish()?;
        Ok(Self { warnings, text: Text(text.to_owned()), ..config })
    }

    /// What the scheduler is made of: `[scheduler]` and `[limits.NAME]`.
    pub fn scheduler_options(&self) -> SchedulerOptions {
        let SchedulerConfig { max_in_flight, stray_hold } = self.scheduler;
        let pools = self.databases.iter().map(|(name, database)| (Source::sql(name), database));
        let pools = pools.map(|(source, database)| (source.as_str().into(), database.limit()));
        let limits = self.limits.iter().map(|(name, limit)| (name.as_str().into(), limit.options.clone()));
        SchedulerOptions { in_flight_max: max_in_flight, stray_hold, limits: pools.chain(limits).collect(), once: None }
    }

    /// The limit group that a source has unasked, if it has one: [`LimitOptions::unasked`], with the pools of the databases.
    pub fn unasked_limit(&self, source: &Source) -> Option<(GroupName, LimitOptions)> {
        let (name, options) = LimitOptions::unasked(source)?;
        let database = source.as_str().strip_prefix("sql/").and_then(|name| self.databases.get(name));
        Some((name, database.map_or(options, DatabaseConfig::limit)))
    }

    /// The price of a model, if the configuration knows it.
    pub fn price(&self, model: &str) -> Option<&Price> {
        self.prices.get(model)
    }
}
