//! Databases and their statements, from a configuration to tools.

use std::path::Path;
use std::time::Duration;

use fanout_core::call::GroupName;
use fanout_core::effects::Source;
use fanout_core::toolbox::Toolbox;
use fanout_host::build::{Purpose, build_toolbox};
use fanout_host::config::Config;
use fanout_host::databases::Databases;
use fanout_host::environment::Environment;
use fanout_host::groups::groups;
use fanout_tools::command::Programs;
use tempfile::TempDir;

const SCHEMA: &str = "create table stock (sku text primary key, qty integer not null)";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(folder.path().join("shop.db")).unwrap().execute_batch(SCHEMA).unwrap();
    folder
}

const CONFIG: &str = r#"
[database.shop]
url = "sqlite://shop.db"
pool = 3
statement_timeout = "2s"

[[tool]]
name = "take"
input = { sku = { type = "string" } }
sql = { database = "shop", statement = "update stock set qty = qty - 1 where sku = :sku", expect_rows = 1 }

[[tool]]
name = "read"
input = { sku = { type = "string" } }
sql = { database = "shop", statement = "select qty from stock where sku = :sku", max_rows = 5 }
"#;

fn config(text: &str, folder: &Path) -> Config {
    Config::parse("fanout.toml", text, folder, &Environment::default()).unwrap()
}

async fn tools(config: &Config, before: &Databases) -> (Toolbox, Databases, Vec<String>) {
    let environment = Environment::default();
    let (databases, troubles) = Databases::open(config, &environment, Purpose::Run, before).await;
    let toolbox = build_toolbox(config, &environment, Purpose::Run, &Programs::new(), &databases).unwrap();
    (toolbox, databases, troubles.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn statements_become_tools_whose_effects_are_known() {
    let folder = folder();
    let config = config(CONFIG, folder.path());
    assert_eq!(config.databases["shop"].statement_timeout, Duration::from_secs(2));
    let (toolbox, _, troubles) = tools(&config, &Databases::default()).await;
    assert!(troubles.is_empty(), "{troubles:?}");
    let specs: Vec<_> = toolbox.iter().map(|tool| &tool.spec).collect();
    assert!(specs.iter().all(|spec| spec.source == Source::sql("shop") && !spec.reasons.is_empty()));
    assert_eq!(specs.iter().map(|spec| spec.repeatable()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(specs[0].effects.inferred_writes[0].to_string(), "sql/shop/stock/{sku}");
    // Its connections are its limit group.
    let groups = groups(&config, &toolbox);
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].name.as_str(), "sql/shop");
    assert_eq!(groups[0].options.concurrency.map(std::num::NonZeroU32::get), Some(3));
    let limits = config.scheduler_options().limits;
    assert_eq!(limits[&groups[0].name], groups[0].options);
}

#[tokio::test]
async fn a_limit_of_ones_own_changes_what_it_names_and_nothing_else() {
    let folder = folder();
    let text = format!("{CONFIG}\n[limits.\"sql/shop\"]\nrate = \"50/s\"\n");
    let options = config(&text, folder.path()).scheduler_options().limits[&GroupName::from("sql/shop")].clone();
    assert_eq!(options.concurrency.map(std::num::NonZeroU32::get), Some(3));
    assert!(options.rate.is_some(), "{options:?}");
}

#[tokio::test]
async fn one_database_under_two_names_is_told() {
    let folder = folder();
    let text = format!("{CONFIG}\n[database.depot]\nurl = \"sqlite://shop.db\"\n");
    let (_, databases, _) = tools(&config(&text, folder.path()), &Databases::default()).await;
    let warnings = databases.warnings();
    assert!(matches!(&warnings[..], [one] if one.contains("[database.depot] and [database.shop]")), "{warnings:?}");
}

#[tokio::test]
async fn a_reload_keeps_a_database_that_is_used_in_the_same_way_and_learns_it_anew() {
    let folder = folder();
    let (_, databases, _) = tools(&config(CONFIG, folder.path()), &Databases::default()).await;
    let path = folder.path().join("shop.db");
    let trigger = "create trigger t after update on stock begin select 1; end";
    rusqlite::Connection::open(path).unwrap().execute_batch(trigger).unwrap();
    let (toolbox, again, _) = tools(&config(CONFIG, folder.path()), &databases).await;
    let writes = &toolbox.iter().next().unwrap().spec.effects.inferred_writes;
    assert_eq!(writes[0].to_string(), "sql/shop/*", "a trigger may do anything");
    assert!(again.get("shop").unwrap().is_same(databases.get("shop").unwrap()));
    let other = CONFIG.replace("pool = 3", "pool = 4");
    let (_, other, _) = tools(&config(&other, folder.path()), &databases).await;
    assert!(!other.get("shop").unwrap().is_same(databases.get("shop").unwrap()));
}
