//! `fanout keys`: who may use the gateway.

use fanout_host::config::Config;
use fanout_host::controls::deed;
use fanout_host::environment::Environment;
use fanout_host::journal::Opened;
use fanout_host::keys::{Grant, Key, KeysFile};
use fanout_journal::deeds::Action;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::args::{AddKey, Common, Keys, KeysCommand};
use crate::controls::at_the_terminal;
use crate::exit::Ended;
use crate::loaded::configuration;
use crate::show::{QUIET, give, print_line, say, styled};

/// Makes, lists or takes away keys.
pub fn keys(common: &Common, keys: &Keys) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let config = configuration(common, &environment)?;
    // Tools and their secrets are of no matter here.
    let file = KeysFile::at(&config.server.keys_file);
    let note = |action, key: &Key| note(&config, &environment, action, key);
    match &keys.command {
        KeysCommand::Add(add) => note(Action::AddKey, &add_key(common, &file, add)?),
        KeysCommand::List => list(common, &file)?,
        KeysCommand::Revoke { id } => {
            let key = file.revoke(id)?;
            note(Action::RevokeKey, &key);
            match common.json {
                true => print_line(&described(&key)),
                false => say(format!("{} does not hold any longer", key.id)),
            }
        }
    }
    Ok(Ended::Done)
}

fn add_key(common: &Common, file: &KeysFile, add: &AddKey) -> anyhow::Result<Key> {
    let grant = Grant { project: add.project.clone(), admin: add.admin, approve: add.approve };
    let (key, secret) = file.add(grant)?;
    if common.json {
        let mut line = described(&key);
        line["key"] = json!(secret.expose_secret());
        give(&line.to_string())?;
    } else {
        give(secret.expose_secret())?;
        let note = format!("{} in {}; the key is shown this once", key.id, file.path().display());
        say(styled(QUIET, note));
    }
    Ok(key)
}

/// Puts what was done into the audit trail, where there is one. The keys hold, or do not, all the same.
fn note(config: &Config, environment: &Environment, action: Action, key: &Key) {
    let noted = || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            if let Some(opened) = Opened::open(config, environment).await? {
                let detail = described(key);
                opened.journal.store().keep_deed(deed(at_the_terminal(), action, &key.id, detail)).await?;
                opened.close().await?;
            }
            Ok(())
        })
    };
    if let Err(error) = noted() {
        say(format!("warning: it is not in the audit trail: {error}"));
    }
}

fn list(common: &Common, file: &KeysFile) -> anyhow::Result<()> {
    let keys = file.read()?;
    if keys.is_empty() && !common.json {
        say(format!("there are no keys in {}; `fanout keys add` makes one", file.path().display()));
    }
    for key in &keys {
        if common.json {
            print_line(&described(key));
            continue;
        }
        let may = [(key.admin, "admin"), (key.approve, "approve")];
        let may: Vec<&str> = may.into_iter().filter(|(may, _)| *may).map(|(_, word)| word).collect();
        let project = key.project.as_deref().unwrap_or("-");
        give(&format!("{}  {}  {project}  {}", key.id, key.created, may.join(" ")))?;
    }
    Ok(())
}

fn described(key: &Key) -> Value {
    json!({
        "id": key.id, "created": key.created, "project": key.project, "admin": key.admin, "approve": key.approve,
    })
}
