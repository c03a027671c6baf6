//! The loop that a careful person writes by hand: reqwest, `serde_json` values, `join_all`.
//!
//! The other side of every comparison with [`ours`](crate::ours): same API, same tools, same clients. It has no time-outs of
//! calls, no limits, no validation beyond what the tools do, no order between conflicting calls, and repeats nothing.

use anyhow::{Context, bail};
use futures_util::future::join_all;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::tools::{ALL, Api, DESCRIPTION, schema};

/// What one run needs.
#[derive(Debug)]
pub struct Raw<'a> {
    /// The tools, and where the model is.
    pub api: &'a Api,
    /// The client for the model.
    pub model: &'a Client,
    /// Its name.
    pub model_name: &'a str,
    /// Whether answers are streamed.
    pub stream: bool,
}

impl Raw<'_> {
    /// Runs until the model is done, and gives its last text.
    ///
    /// # Errors
    /// The first error of the model.
    pub async fn run(&self, prompt: &str) -> anyhow::Result<String> {
        let tools: Vec<Value> = ALL
            .iter()
            .map(|name| json!({ "name": name, "description": DESCRIPTION, "input_schema": schema(name) }))
            .collect();
        let mut messages = vec![json!({ "role": "user", "content": prompt })];
        loop {
            let mut body = json!({
                "model": self.model_name, "max_tokens": 8192, "tools": tools, "messages": messages,
            });
            if self.stream {
                body["stream"] = json!(true);
            }
            let url = format!("{}/v1/messages", self.api.base);
            let answer = self.model.post(url).json_body(&body)?.send().await?.error_for_status()?;
            let message =
                if self.stream { assembled(answer).await? } else { serde_json::from_slice(&answer.bytes().await?)? };
            let content = message["content"].as_array().cloned().unwrap_or_default();
            if message["stop_reason"] != "tool_use" {
                return Ok(content.iter().filter_map(|block| block["text"].as_str()).collect());
            }
            let calls = content.iter().filter(|block| block["type"] == "tool_use");
            let results = join_all(calls.map(|call| self.result(call))).await;
            messages.push(json!({ "role": "assistant", "content": content }));
            messages.push(json!({ "role": "user", "content": results }));
        }
    }

    async fn result(&self, call: &Value) -> Value {
        let result = self.api.call(call["name"].as_str().unwrap_or_default(), &call["input"]).await;
        let is_error = result.is_err();
        let content = result.unwrap_or_else(|error| error);
        json!({ "type": "tool_result", "tool_use_id": call["id"], "content": content, "is_error": is_error })
    }
}

/// reqwest's `json` is a feature that nothing else here needs.
trait JsonBody: Sized {
    fn json_body(self, body: &Value) -> anyhow::Result<Self>;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json_body(self, body: &Value) -> anyhow::Result<Self> {
        Ok(self.header(reqwest::header::CONTENT_TYPE, "application/json").body(serde_json::to_vec(body)?))
    }
}

/// Puts a streamed message together.
async fn assembled(mut answer: Response) -> anyhow::Result<Value> {
    let (mut message, mut texts, mut buffer) = (Value::Null, Vec::new(), Vec::new());
    while let Some(chunk) = answer.chunk().await? {
        buffer.extend_from_slice(&chunk);
        let mut done = 0;
        while let Some(end) = buffer[done..].iter().position(|byte| *byte == b'\n') {
            let line = &buffer[done..done + end];
            done += end + 1;
            if let Some(data) = line.strip_prefix(b"data: ") {
                let event: Value = serde_json::from_slice(data)?;
                take(event, &mut message, &mut texts)?;
            }
        }
        buffer.drain(..done);
    }
    Ok(message)
}

fn take(mut event: Value, message: &mut Value, texts: &mut Vec<String>) -> anyhow::Result<()> {
    match event["type"].as_str().context("an event without a type")? {
        "message_start" => *message = event["message"].take(),
        "content_block_start" => {
            message["content"].as_array_mut().context("no content")?.push(event["content_block"].take());
            texts.push(String::new());
        }
        "content_block_delta" => {
            let delta = &event["delta"];
            let piece = delta["partial_json"].as_str().or_else(|| delta["text"].as_str()).unwrap_or_default();
            texts.last_mut().context("a delta before its block")?.push_str(piece);
        }
        "content_block_stop" => {
            let text = texts.last().context("an end before its block")?;
            let at = texts.len() - 1;
            let block = &mut message["content"][at];
            if block["type"] == "tool_use" {
                block["input"] = serde_json::from_str(text)?;
            } else {
                block["text"] = json!(text);
            }
        }
        "message_delta" => message["stop_reason"] = event["delta"]["stop_reason"].take(),
        "message_stop" | "ping" => {}
        other => bail!("an event of type `{other}`"),
    }
    Ok(())
}
