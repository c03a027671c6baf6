//! The tools of every comparison: what they do is the same code on both sides.
//!
//! From [`ours`](crate::ours), as typed function tools, and from [`raw`](crate::raw), by name.
//! To the external API, over loopback.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::toolbox::Toolbox;
use fanout_tools::function::Function;
use reqwest::Client;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// Tools that ask the external API to take its time.
pub const SLEEPING: [&str; 6] = ["sleep_tool", "get_user", "get_orders", "get_recs", "get_inventory", "validate"];

/// All tools, as the model is told of them.
pub const ALL: [&str; 9] = [
    "sleep_tool",
    "get_user",
    "get_orders",
    "get_recs",
    "get_inventory",
    "validate",
    "noop_tool",
    "boom_tool",
    "hang_tool",
];

/// What the model reads of each.
pub const DESCRIPTION: &str = "Calls the external API, which answers after ms milliseconds.";

/// A tool that hangs does so for longer than anything measured.
const HANG: Duration = Duration::from_secs(3600);

/// The external API.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where it is.
    pub base: String,
    /// Whether it is asked to log.
    pub log: bool,
    /// Its client.
    pub http: Client,
}

#[derive(Deserialize, JsonSchema)]
struct Noop {}

#[derive(Deserialize, JsonSchema)]
struct Sleep {
    ms: u64,
    #[serde(default)]
    text: String,
}

impl Api {
    /// Runs the tool `name`.
    ///
    /// # Errors
    /// A sentence, for the model.
    pub async fn call(&self, name: &str, input: &Value) -> Result<String, String> {
        match name {
            "noop_tool" => Ok("ok".to_owned()),
            "boom_tool" => Err("boom".to_owned()),
            "hang_tool" => {
                tokio::time::sleep(HANG).await;
                Ok("never".to_owned())
            }
            name if SLEEPING.contains(&name) => {
                let sleep = Sleep::deserialize(input).map_err(|error| error.to_string())?;
                self.sleep(sleep.ms, &sleep.text).await.map_err(|error| error.to_string())
            }
            name => Err(format!("unknown tool {name}")),
        }
    }

    async fn sleep(&self, ms: u64, text: &str) -> Result<String, reqwest::Error> {
        let tag: String = text.chars().take(8).collect();
        let url = format!("{}/sleep?ms={ms}&log={}&tag={tag}", self.base, u8::from(self.log));
        self.http.get(url).send().await?.text().await
    }
}

/// The schema of a tool's input.
pub fn schema(name: &str) -> Value {
    if name == "noop_tool" {
        return json!({ "type": "object", "properties": { "i": { "type": "integer" } } });
    }
    let properties = json!({ "ms": { "type": "integer" }, "text": { "type": "string" } });
    json!({ "type": "object", "properties": properties, "required": ["ms"] })
}

/// All of them as function tools of ours. They only read, and are declared so; `timeout` bounds one attempt.
///
/// # Errors
/// Never, as long as the names and schemas here are right.
pub fn toolbox(api: &Arc<Api>, timeout: Duration) -> anyhow::Result<Toolbox> {
    let mut toolbox = Toolbox::new();
    for name in ALL {
        let api = Arc::clone(api);
        let builder = match name {
            "noop_tool" => Function::new(name, DESCRIPTION, |_: Noop, _| async { Ok::<_, String>("ok") }),
            "boom_tool" => Function::new(name, DESCRIPTION, |_: Sleep, _| async { Err::<String, _>("boom") }),
            "hang_tool" => Function::new(name, DESCRIPTION, |_: Sleep, _| async {
                tokio::time::sleep(HANG).await;
                Ok::<_, String>("never")
            }),
            _ => Function::new(name, DESCRIPTION, move |input: Sleep, _| {
                let api = Arc::clone(&api);
                async move { api.sleep(input.ms, &input.text).await }
            }),
        };
        toolbox.add(builder.input_schema(schema(name)).reads([]).writes([]).timeout(timeout).build()?)?;
    }
    Ok(toolbox)
}
