//! What a command needs of the configuration: read, checked, and with its warnings said.

use std::env::current_dir;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use fanout_agent::{Ledger, MemoryLedger};
use fanout_core::call::RunId;
use fanout_core::event::{Recorder, RunKind};
use fanout_core::run::{Scheduler, SchedulerOptions};
use fanout_core::toolbox::Toolbox;
use fanout_host::approvals::Approvals;
use fanout_host::build::{Purpose, add_plan, build_toolbox};
use fanout_host::config::Config;
use fanout_host::connect::{Servers, Trouble, connect};
use fanout_host::controls::Controls;
use fanout_host::databases::Databases;
use fanout_host::documents::{Downloaded, fetch};
use fanout_host::environment::Environment;
use fanout_host::groups::unused;
use fanout_host::journal::{Opened, begin};
use fanout_host::notify::{Notices, hooks};
use fanout_journal::Journal;
use fanout_tools::command::Programs;
use fanout_tools::http::HttpClient;

use crate::args::Common;
use crate::show::say;

/// How long notices that wait have to be sent when the process ends.
pub const NOTICES_MAX: Duration = Duration::from_secs(5);

/// The configuration that the flags name, or the one that is found. Nothing is built and nobody is asked.
pub fn configuration(common: &Common, environment: &Environment) -> anyhow::Result<Config> {
    Ok(match file(common)? {
        Some(file) => Config::load(&file, environment)?,
        None => Config::find(&current_folder()?, environment)?,
    })
}

/// The same, once the documents that it names by address are there.
pub async fn fetched(common: &Common, environment: &Environment) -> anyhow::Result<Config> {
    if let Some(file) = file(common)? {
        for Downloaded { name, path } in fetch(&file).await? {
            say(format!("downloaded the document of [openapi.{name}] to {}", path.display()));
        }
    }
    configuration(common, environment)
}

fn file(common: &Common) -> anyhow::Result<Option<PathBuf>> {
    Ok(match &common.config {
        Some(path) => Some(path.clone()),
        None => Config::locate(&current_folder()?)?,
    })
}

fn current_folder() -> anyhow::Result<PathBuf> {
    current_dir().context("the current folder cannot be read")
}

/// A configuration and the tools that it describes.
pub struct Loaded {
    pub config: Config,
    pub environment: Environment,
    pub toolbox: Arc<Toolbox>,
    /// What of the sources cannot be used; said already, as warnings.
    pub troubles: Vec<Trouble>,
    /// What the tools start; none of it may be left behind.
    pub programs: Programs,
    /// The MCP servers that are connected.
    pub servers: Servers,
    /// The databases that are open.
    pub databases: Databases,
    /// Where runs are kept, if they are.
    kept: Option<Opened>,
}

/// What a configuration that is read again goes on with.
#[derive(Clone, Default)]
pub struct Before {
    pub programs: Programs,
    pub servers: Servers,
    pub databases: Databases,
}

impl Loaded {
    /// Reads the file that the flags name, or the one that is found, and builds its tools.
    /// Sources whose tools only they know are connected.
    pub async fn read(common: &Common, purpose: Purpose) -> anyhow::Result<Self> {
        Self::read_after(common, purpose, Before::default()).await
    }

    /// The same, going on with what an earlier reading left.
    pub async fn read_after(common: &Common, purpose: Purpose, before: Before) -> anyhow::Result<Self> {
        let environment = Environment::of_process();
        let config = fetched(common, &environment).await?;
        if purpose.runs() {
            check_depth(&environment, config.run.max_depth)?;
        }
        Self::build_after(config, environment, purpose, before).await
    }

    /// Builds the tools of a configuration. A source that cannot be used is warned of, and its tools are missing: one server
    /// that is down must not keep all others from their work, and the model is not offered what cannot run.
    pub async fn build(config: Config, environment: Environment, purpose: Purpose) -> anyhow::Result<Self> {
        Self::build_after(config, environment, purpose, Before::default()).await
    }

    async fn build_after(
        config: Config,
        environment: Environment,
        purpose: Purpose,
        before: Before,
    ) -> anyhow::Result<Self> {
        let Before { programs, servers, databases } = before;
        for warning in &config.warnings {
            say(format!("warning: {warning}"));
        }
        let (databases, mut troubles) = Databases::open(&config, &environment, purpose, &databases).await;
        for warning in databases.warnings() {
            say(format!("warning: {warning}"));
        }
        let mut toolbox = build_toolbox(&config, &environment, purpose, &programs, &databases)?;
        let (servers, more) = connect(&mut toolbox, &config, &environment, &servers).await;
        add_plan(&mut toolbox, &config, purpose)?;
        troubles.extend(more);
        for trouble in &troubles {
            say(format!("warning: {trouble}"));
        }
        let toolbox = Arc::new(toolbox);
        for warning in unused(&config, &toolbox) {
            say(format!("warning: {warning}"));
        }
        Ok(Self { config, environment, toolbox, troubles, programs, servers, databases, kept: None })
    }

    /// Opens the journal that the configuration names. What is not kept cannot be gone on with, so it is said at once if that
    /// fails.
    pub async fn open_journal(&mut self) -> anyhow::Result<()> {
        self.kept = Opened::open(&self.config, &self.environment).await?;
        Ok(())
    }

    /// The journal, if one is open.
    pub fn journal(&self) -> Option<&Journal> {
        self.kept.as_ref().map(|kept| &kept.journal)
    }

    /// Where calls that need a person's approval wait for it: in the journal, if one is open. Ask once for each process.
    pub fn approvals(&self) -> Approvals {
        self.kept.as_ref().map_or_else(Approvals::in_memory, |kept| kept.approvals.clone())
    }

    /// What is spent in a day: in the journal, if one is open. Ask once for each process.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        match &self.kept {
            Some(kept) => Arc::clone(&kept.ledger) as _,
            None => Arc::new(MemoryLedger::default()),
        }
    }

    /// The recorder of a run of ours, in the journal and beside it.
    pub fn recorder(&self, run: &RunId, kind: RunKind, title: &str, beside: Arc<dyn Recorder>) -> Arc<dyn Recorder> {
        match self.journal() {
            Some(journal) => Arc::new((begin(journal, run, kind, &"local".into(), None, title), beside)),
            None => beside,
        }
    }

    /// Writes what was recorded, and closes the journal.
    pub async fn close_journal(&mut self) {
        if let Some(kept) = self.kept.take()
            && let Err(error) = kept.close().await
        {
            say(format!("warning: the end of this run is not kept: {error}"));
        }
    }

    /// Waits until nothing that the tools began goes on.
    pub async fn gone(&self) {
        tokio::join!(self.programs.gone(), self.databases.unused());
    }

    /// Those who are to be told what happens. Each call starts tasks of its own.
    pub fn notices(&self) -> anyhow::Result<Notices> {
        Ok(Notices::start(hooks(&self.config, &self.environment)?, &HttpClient::new()))
    }

    /// A scheduler within the configuration's bounds. Who serves sees to what is ordered by itself.
    pub fn scheduler(&self) -> Scheduler {
        let once = self.kept.as_ref().map(|kept| Arc::clone(&kept.once));
        Scheduler::new(SchedulerOptions { once, ..self.config.scheduler_options() })
    }

    /// The same, which does what people on call have ordered, and what they order from here on.
    pub async fn obeying_scheduler(&self) -> anyhow::Result<Scheduler> {
        let scheduler = self.scheduler();
        if let Some(journal) = self.journal() {
            let controls = Controls::new(Some(journal.clone()), scheduler.clone(), Arc::new(self.config.clone()));
            controls.look().await?;
            tokio::spawn(Arc::new(controls).keep_looking());
        }
        Ok(scheduler)
    }
}

/// Refuses to begin where calls run calls too deep. A `fanout` that a tool starts finds in `FANOUT_DEPTH` how many stand
/// above it; without a bound, a tool that starts `fanout` with itself among the tools would never end.
fn check_depth(environment: &Environment, max: u32) -> anyhow::Result<()> {
    let Some(depth) = environment.get("FANOUT_DEPTH") else { return Ok(()) };
    let number: u32 = depth.trim().parse().ok().with_context(|| {
        format!("FANOUT_DEPTH is `{depth}`, which is no number: fanout sets it for its own children, leave it unset")
    })?;
    ensure!(
        number < max,
        "this run would stand {number} calls deep (FANOUT_DEPTH) and `max_depth` in [run] is {max}: a tool that runs \
         fanout may be calling itself; raise `max_depth` if it is meant to"
    );
    Ok(())
}
