//! Tools from an endpoint, from an OpenAPI document, from a program and from a function, called in one batch.
//!
//! The API is the demo's shop, on this machine. MCP servers are a source too: see `fanout::mcp`.
//!
//! `cargo run -p fanout-examples --bin every_source`

use std::sync::Arc;

use fanout::command::{CommandTool, Programs};
use fanout::http::{HttpClient, HttpTool};
use fanout::openapi::Document;
use fanout::{Attempt, Call, Function, RunOptions, Scheduler, SchedulerOptions, ToolError, Toolbox};
use fanout_script::shop::Shop;
use http::Method;
use serde_json::json;

const DOCUMENT: &str = r#"
openapi: 3.1.0
info: { title: Shop, version: "1" }
paths:
  /orders/{order_id}:
    get:
      operationId: get_order
      parameters: [{ name: order_id, in: path, required: true, schema: { type: string } }]
      responses: { "200": { description: The order. } }
"#;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Shout {
    text: String,
}

async fn shout(input: Shout, _: Attempt) -> Result<String, ToolError> {
    Ok(input.text.to_uppercase())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shop = Shop::start()?;
    let (client, programs) = (HttpClient::new(), Programs::new());
    let text =
        |field: &str| json!({ "type": "object", "properties": { field: { "type": "string" } }, "required": [field] });
    let mut toolbox = Toolbox::new();

    let url = format!("{}/inventory/{{sku}}", shop.base_url());
    let stock =
        HttpTool::builder("get_stock", Method::GET, url).description("How many there are.").input_schema(text("sku"));
    toolbox.add(stock.reads(["stock/{sku}"]).build(&client)?)?;

    let file = std::env::temp_dir().join(format!("shop-{}.yaml", std::process::id()));
    std::fs::write(&file, DOCUMENT)?;
    let document = Document::load(&file);
    std::fs::remove_file(&file)?;
    let document = document?;
    for outline in document.operations("shop") {
        let builder = document.describe(&outline)?.builder("shop", Some(&shop.base_url()), &[])?;
        toolbox.add(builder.reads(["order/{order_id}"]).build(&client)?)?;
    }

    let count = CommandTool::builder("count_letters", "wc").argument("-c").stdin("{text}").input_schema(text("text"));
    toolbox.add(count.writes([]).build(&programs)?)?;

    toolbox.add(Function::new("shout", "Say it louder.", shout).writes([]).build()?)?;

    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), RunOptions::new("every-source"));
    let mut batch = run.batch();
    let calls = [
        ("get_stock", json!({ "sku": "desk-lamp" })),
        ("shop__get_order", json!({ "order_id": "123" })),
        ("count_letters", json!({ "text": "fanout" })),
        ("shout", json!({ "text": "done" })),
    ];
    for (index, (tool, input)) in (0..).zip(calls) {
        batch.call(Call::new(index, format!("toolu_{index}"), tool, input))?;
    }
    for outcome in batch.finish().await {
        match &outcome.result {
            Ok(output) => println!("{}: {}", outcome.call, output.value()),
            Err(error) => println!("{}: {error}", outcome.call),
        }
    }
    programs.gone().await;
    Ok(())
}
