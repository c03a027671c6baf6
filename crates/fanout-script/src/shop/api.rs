//! The shop's HTTP APIs: ten of them, each with its own latency.
//!
//! From any HTTP client. To [`database`](super::database), at the end of the latency and off the async threads.
//! A client that goes away in the meantime has asked for nothing: its ledger entry stays without an end.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::Latencies;
use super::database::{Answer, Ask, Database};

#[derive(Clone)]
struct Front {
    database: Arc<Database>,
    latencies: Latencies,
}

#[derive(Deserialize)]
struct QuoteQuery {
    order_id: String,
    carrier: String,
}

#[derive(Deserialize)]
struct CheapestQuery {
    order_id: String,
}

#[derive(Deserialize)]
struct ChargeBody {
    shipping_cents: u32,
}

#[derive(Deserialize)]
struct ReserveBody {
    n: u32,
}

#[derive(Deserialize)]
struct PaymentBody {
    order_id: String,
    amount_cents: u32,
}

#[derive(Deserialize)]
struct NoteBody {
    text: String,
}

#[derive(Deserialize)]
struct EmailBody {
    to: String,
    subject: String,
    body: String,
}

type Checked<T> = Result<Json<T>, JsonRejection>;

pub(super) fn router(database: Arc<Database>, latencies: Latencies) -> Router {
    let order = async |State(front): State<Front>, Path(id): Path<String>, head: Parts| {
        front.serve(&head, Ok(Ask::Order { id })).await
    };
    let customer = async |State(front): State<Front>, Path(id): Path<String>, head: Parts| {
        front.serve(&head, Ok(Ask::Customer { id })).await
    };
    let stock = async |State(front): State<Front>, Path(sku): Path<String>, head: Parts| {
        front.serve(&head, Ok(Ask::Stock { sku })).await
    };
    let quote = async |State(front): State<Front>, query: Result<Query<QuoteQuery>, QueryRejection>, head: Parts| {
        let ask = query.map(|Query(QuoteQuery { order_id, carrier })| Ask::Quote { order_id, carrier });
        front.serve(&head, ask.map_err(|rejection| rejection.body_text())).await
    };
    let cheapest =
        async |State(front): State<Front>, query: Result<Query<CheapestQuery>, QueryRejection>, head: Parts| {
            let ask = query.map(|Query(CheapestQuery { order_id })| Ask::Cheapest { order_id });
            front.serve(&head, ask.map_err(|rejection| rejection.body_text())).await
        };
    let charge =
        async |State(front): State<Front>, Path(order_id): Path<String>, head: Parts, body: Checked<ChargeBody>| {
            let ask = checked(body, |ChargeBody { shipping_cents }| Ask::Charge { order_id, shipping_cents });
            front.serve(&head, ask).await
        };
    let reserve =
        async |State(front): State<Front>, Path(sku): Path<String>, head: Parts, body: Checked<ReserveBody>| {
            front.serve(&head, checked(body, |ReserveBody { n }| Ask::Reserve { sku, n })).await
        };
    let pay = async |State(front): State<Front>, head: Parts, body: Checked<PaymentBody>| {
        let ask = checked(body, |PaymentBody { order_id, amount_cents }| Ask::Pay { order_id, amount_cents });
        front.serve(&head, ask).await
    };
    let note =
        async |State(front): State<Front>, Path(order_id): Path<String>, head: Parts, body: Checked<NoteBody>| {
            front.serve(&head, checked(body, |NoteBody { text }| Ask::Note { order_id, text })).await
        };
    let email = async |State(front): State<Front>, head: Parts, body: Checked<EmailBody>| {
        let ask = checked(body, |EmailBody { to, subject, body }| Ask::Email { to, subject, body });
        front.serve(&head, ask).await
    };
    Router::new()
        .route("/orders/{id}", get(order))
        .route("/customers/{id}", get(customer))
        .route("/inventory/{sku}", get(stock))
        .route("/inventory/{sku}/reserve", post(reserve))
        .route("/shipping/quote", get(quote))
        .route("/shipping/cheapest", get(cheapest))
        .route("/payments", post(pay))
        .route("/orders/{id}/charge", post(charge))
        .route("/orders/{id}/notes", post(note))
        .route("/emails", post(email))
        .with_state(Front { database, latencies })
}

fn checked<T>(body: Checked<T>, ask: impl FnOnce(T) -> Ask) -> Result<Ask, String> {
    match body {
        Ok(Json(body)) => Ok(ask(body)),
        Err(rejection) => Err(rejection.body_text()),
    }
}

impl Front {
    /// Serves one request. What can't be understood is in the ledger too, as a 400.
    async fn serve(&self, head: &Parts, ask: Result<Ask, String>) -> Response {
        let method = head.method.as_str().to_owned();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let given = head.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        let key = given.clone();
        let entry = self.blocking(move |database| database.arrived(&method, &path, key.as_deref())).await;
        let latency = ask.as_ref().map_or(Duration::ZERO, |ask| self.latency(ask));
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        // The key says that a write is carried out once; a read has nothing to protect.
        let key = given.filter(|_| head.method == http::Method::POST);
        let answer = match (entry, ask) {
            (Ok(entry), Ok(ask)) => self.blocking(move |database| database.serve(entry, &ask, key.as_deref())).await,
            (Ok(entry), Err(message)) => self.blocking(move |database| database.reject(entry, &message)).await,
            (Err(error), _) => Err(error),
        };
        match answer {
            Ok(answer) => respond(answer),
            Err(message) => respond(Answer { status: 500, body: failure("database", &message), replayed: false }),
        }
    }

    fn latency(&self, ask: &Ask) -> Duration {
        let latencies = &self.latencies;
        match ask {
            Ask::Order { .. } => latencies.orders,
            Ask::Customer { .. } => latencies.customers,
            Ask::Stock { .. } => latencies.inventory,
            Ask::Quote { .. } | Ask::Cheapest { .. } => latencies.shipping,
            // Bounded, so that no request for a million units holds its connection for a day.
            Ask::Reserve { n, .. } => latencies.reserve_per_unit * (*n).min(5),
            Ask::Pay { .. } | Ask::Charge { .. } => latencies.payments,
            Ask::Note { .. } => latencies.notes,
            Ask::Email { .. } => latencies.emails,
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn failure(code: &str, message: &str) -> String {
    json!({"error": {"code": code, "message": message}}).to_string()
}

fn respond(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if answer.replayed {
        headers.insert("idempotent-replay", HeaderValue::from_static("true"));
    }
    response
}
