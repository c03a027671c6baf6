//! A kind of tool that Fanout has never heard of, and a layer of your own around every attempt.
//!
//! A mail server stands in for whatever you have. What a call touches is said by templates over its input, so two mails to one
//! person keep their order and all others go together.
//!
//! `cargo run -p fanout-examples --bin your_own_source`

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use fanout::{
    Attempt, BoxFuture, Call, EffectsSpec, Output, RunOptions, Scheduler, SchedulerOptions, Source, Template, Tool,
    ToolError, ToolSpec, Toolbox,
};
use serde_json::json;
use tower_layer::layer_fn;
use tower_service::Service;

/// The state that the tool works on. It is down at first.
#[derive(Default)]
struct MailServer {
    asked: AtomicU32,
    sent: Mutex<Vec<String>>,
}

/// Sends a mail.
struct SendMail(Arc<MailServer>);

impl Tool for SendMail {
    fn spec(&self) -> ToolSpec {
        let source = Source::from("mail/example.com".to_owned());
        ToolSpec {
            description: "Send a mail.".to_owned(),
            input_schema: json!({
                "type": "object",
                "properties": { "to": { "type": "string" }, "text": { "type": "string" } },
                "required": ["to", "text"],
            }),
            effects: EffectsSpec {
                writes: Template::parse("mailbox/{to}").ok().map(|key| vec![key]),
                ..EffectsSpec::writes_all_of(&source)
            },
            ..ToolSpec::new("send_mail", source)
        }
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            if server.asked.fetch_add(1, Ordering::Relaxed) == 0 {
                // Nothing was carried out, so it may go again, though sending twice would do harm.
                return Err(ToolError::NotSent("the mail server refused the connection".to_owned()));
            }
            let mail = format!("{}: {}", attempt.input["to"], attempt.input["text"]);
            server.sent.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
            // The key is the same for every attempt at this call: hand it on, and nobody gets a mail twice.
            Ok(Output::json(json!({ "message_id": &*attempt.idempotency_key })))
        })
    }
}

/// A `tower` layer: counts the attempts of every tool. It sees attempts, not calls, so it must not retry.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    count: Arc<AtomicU32>,
}

impl<S: Service<Attempt>> Service<Attempt> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> S::Future {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.call(attempt)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (server, count) = (Arc::new(MailServer::default()), Arc::new(AtomicU32::new(0)));
    let mut toolbox = Toolbox::new();
    toolbox.add(SendMail(Arc::clone(&server)))?;
    toolbox.layer(&layer_fn(|inner| Counted { inner, count: Arc::clone(&count) }));

    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), RunOptions::new("mails"));
    let mut batch = run.batch();
    for (index, (to, text)) in (0..).zip([("ada", "first"), ("bob", "hello"), ("ada", "second")]) {
        batch.call(Call::new(index, format!("toolu_{index}"), "send_mail", json!({ "to": to, "text": text })))?;
    }
    for outcome in batch.finish().await {
        println!("{}: {}", outcome.call, if outcome.is_error() { "failed" } else { "sent" });
    }
    let sent = server.sent.lock().unwrap_or_else(PoisonError::into_inner);
    let to_ada: Vec<&String> = sent.iter().filter(|mail| mail.contains("ada")).collect();
    println!("to ada, in this order: {to_ada:?}; {} attempts", count.load(Ordering::Relaxed));
    Ok(())
}
