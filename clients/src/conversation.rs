//! The conversations, each held twice: straight with the model, and through the gateway.
//!
//! From a client: the answers that it got. To `main`: nothing bad if the two ways' answers are the same, the model
//! refused nothing, and the shop came to the same state; else the error that says where they part.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use fanout_script::shop::ShopState;
use fanout_script::{Fidelity, Received};
use serde_json::Value;

use crate::client::Client;
use crate::install::root;
use crate::stage::{Gateway, Stage};

/// One conversation. Every client knows it by its name.
#[derive(Debug)]
pub struct Conversation {
    /// Its name.
    pub name: &'static str,
    script: &'static str,
    /// Whether the client has the server hold the history.
    threads: bool,
}

/// All of them: plain requests, the SDKs' tool runners as they are by default (with server-held threads) and without
/// threads, loops of the client's own with thinking over three messages, tools that run in the gateway, and
/// what goes wrong at the model.
pub const ALL: [Conversation; 17] = [
    plain("create", "greeting"),
    plain("stream", "greeting"),
    threaded("runner", "sums"),
    plain("runner_without_threads", "sums"),
    threaded("runner_streaming", "sums"),
    plain("runner_streaming_without_threads", "sums"),
    threaded("runner_eager", "sums"),
    plain("thoughts", "thoughts"),
    plain("thoughts_streaming", "thoughts"),
    plain("shopping", "shop"),
    plain("shopping_streaming", "shop"),
    threaded("shopping_in_a_thread", "shop"),
    threaded("mixed", "mixed"),
    plain("mixed_without_threads", "mixed"),
    plain("refused", "refused"),
    plain("overloaded", "overloaded"),
    plain("broken", "broken"),
];

const fn plain(name: &'static str, script: &'static str) -> Conversation {
    Conversation { name, script, threads: false }
}

const fn threaded(name: &'static str, script: &'static str) -> Conversation {
    Conversation { name, script, threads: true }
}

/// The names of all conversations.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|conversation| conversation.name).collect()
}

/// What one way of holding it came to.
#[derive(Debug)]
struct Held {
    answers: Value,
    requests: Vec<Received>,
    shop: ShopState,
}

impl Conversation {
    /// Holds it both ways and compares; returns a line for people.
    ///
    /// # Errors
    /// Where the two part, or when the model refused a request.
    pub async fn hold(&self, client: &mut Client, fanout: &Path) -> anyhow::Result<String> {
        let straight = self.straight(client).await.context("straight with the model")?;
        let through = self.through(client, fanout).await.context("through the gateway")?;
        ensure!(
            straight.answers == through.answers,
            "the answers are not the same\nstraight: {}\nthrough:  {}",
            straight.answers,
            through.answers
        );
        ensure!(
            straight.shop == through.shop,
            "the shop came to different states\nstraight: {:?}\nthrough:  {:?}",
            straight.shop,
            through.shop
        );
        for (way, held) in [("straight", &straight), ("through", &through)] {
            let threaded = held.requests.iter().filter(|request| is_threaded(request)).count();
            let wanted = if self.threads { held.requests.len() } else { 0 };
            ensure!(threaded == wanted, "{way}: {threaded} of {} requests name a thread", held.requests.len());
        }
        let (straight, through) = (straight.requests.len(), through.requests.len());
        Ok(format!("the same; {straight} requests straight, {through} from the gateway"))
    }

    async fn straight(&self, client: &mut Client) -> anyhow::Result<Held> {
        // SDKs read what the model said and print it anew: the same values, other bytes.
        let stage = self.stage(Fidelity::Values)?;
        let answers = client.hold(self.name, &stage.claude(), Some(&stage.shop())).await;
        finish(stage, answers).await
    }

    async fn through(&self, client: &mut Client, fanout: &Path) -> anyhow::Result<Held> {
        // What the model said comes back to it byte for byte, however the client spells it.
        let stage = self.stage(Fidelity::Bytes)?;
        let gateway = Gateway::before(&stage, fanout).await?;
        let answers = client.hold(self.name, gateway.url(), None).await;
        let answers = answers.map_err(|error| error.context(format!("the gateway logged:\n{}", gateway.log())));
        gateway.end().await?;
        finish(stage, answers).await
    }

    fn stage(&self, fidelity: Fidelity) -> anyhow::Result<Stage> {
        Stage::open(&root().join("clients/scripts").join(self.script).with_extension("json"), fidelity)
    }
}

/// What the model refused says more than how the client took it, so it is looked at first.
async fn finish(stage: Stage, answers: anyhow::Result<Value>) -> anyhow::Result<Held> {
    let (requests, shop) = match (stage.close().await, answers.as_ref()) {
        (Ok(closed), _) => closed,
        (Err(refused), Ok(_)) => return Err(refused),
        (Err(refused), Err(failed)) => bail!("{refused:#}\n{failed:#}"),
    };
    Ok(Held { answers: answers?, requests, shop })
}

fn is_threaded(request: &Received) -> bool {
    String::from_utf8_lossy(&request.body).contains(r#""thread":"#)
}
