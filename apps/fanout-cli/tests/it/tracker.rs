//! A small MCP server that demands OAuth, with its authorization server; and a browser.
//!
//! It notes whatever the protocol does not allow: a wrong resource, redirect address, state, PKCE verifier or client.

use std::collections::{HashMap, HashSet};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

/// The server; cloning it shares it.
#[derive(Clone)]
pub struct Tracker {
    pub base: String,
    known: Arc<Mutex<Known>>,
    /// Calls that come with the very first token wait for each other, and are refused together.
    crowd: Arc<Barrier>,
}

/// What it knows, and how it behaves.
#[derive(Default)]
pub struct Known {
    pub publishes_nothing: bool,
    pub refuses_refresh: bool,
    pub revokes_first: bool,
    /// The scope that calls need beyond what was given.
    pub wants: Option<&'static str>,
    /// What came that must not come.
    pub wrong: Vec<String>,
    pub refreshes: usize,
    pub tokens: HashSet<String>,
    refresh_token: Option<String>,
    redirects: HashMap<String, String>,
    codes: HashMap<String, HashMap<String, String>>,
    given: usize,
}

impl Known {
    fn check(&mut self, is_right: bool, what: &str) {
        if !is_right {
            self.wrong.push(what.to_owned());
        }
    }

    /// A new pair of tokens; the refresh token before it is worth nothing any more.
    fn give(&mut self) -> Value {
        self.given += 1;
        let (token, refresh) = (format!("access-token-{}", self.given), format!("refresh-token-{}", self.given));
        self.tokens.insert(token.clone());
        self.refresh_token = Some(refresh.clone());
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600, "refresh_token": refresh })
    }
}

type Fields = HashMap<String, String>;

impl Tracker {
    pub async fn start(crowd: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let this = Self { base, known: Arc::default(), crowd: Arc::new(Barrier::new(crowd)) };
        let app = Router::new()
            .route("/mcp", any(mcp))
            .route("/.well-known/oauth-protected-resource/mcp", get(resource))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/as/register", post(register))
            .route("/as/authorize", get(authorize))
            .route("/as/token", post(token))
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        this
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// The configuration of it as a server.
    pub fn config(&self, oauth: &str) -> String {
        format!(
            "[mcp_servers.tracker]\nurl = \"{}\"\noauth = {oauth}\n[limits.\"mcp/tracker\"]\nconcurrency = 50\n",
            self.resource()
        )
    }

    fn resource(&self) -> String {
        format!("{}/mcp", self.base)
    }
}

async fn resource(State(this): State<Tracker>) -> Response {
    match this.known().publishes_nothing {
        true => StatusCode::NOT_FOUND.into_response(),
        false => Json(json!({
            "resource": this.resource(), "authorization_servers": [this.base], "scopes_supported": ["read", "admin"],
        }))
        .into_response(),
    }
}

async fn metadata(State(this): State<Tracker>) -> Response {
    if this.known().publishes_nothing {
        return StatusCode::NOT_FOUND.into_response();
    }
    let at = |path: &str| format!("{}/as/{path}", this.base);
    Json(json!({
        "issuer": this.base, "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
        "registration_endpoint": at("register"), "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"], "authorization_response_iss_parameter_supported": true,
    }))
    .into_response()
}

async fn register(State(this): State<Tracker>, Json(asked): Json<Value>) -> Response {
    let redirect = asked["redirect_uris"][0].as_str().unwrap_or_default().to_owned();
    let mut known = this.known();
    known.check(redirect.starts_with("http://127.0.0.1:"), "redirect_uris");
    known.check(asked["application_type"] == "native", "application_type");
    let id = format!("client-{}", known.redirects.len() + 1);
    known.redirects.insert(id.clone(), redirect.clone());
    (StatusCode::CREATED, Json(json!({ "client_id": id, "redirect_uris": [redirect] }))).into_response()
}

async fn authorize(State(this): State<Tracker>, Query(asked): Query<Fields>) -> Response {
    let mut known = this.known();
    let field = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let redirect = known.redirects.get(&field("client_id")).cloned().unwrap_or_default();
    known.check(field("redirect_uri") == redirect, "redirect_uri");
    known.check(field("response_type") == "code", "response_type");
    known.check(field("code_challenge_method") == "S256" && field("code_challenge").len() == 43, "code_challenge");
    known.check(field("resource") == this.resource(), "resource");
    known.check(field("scope") == "read", "scope");
    known.check(field("state").len() > 10, "state");
    let code = format!("code-{}", known.codes.len() + 1);
    known.codes.insert(code.clone(), asked.clone());
    let to = format!("{redirect}?code={code}&state={}&iss={}", field("state"), this.base);
    (StatusCode::FOUND, [("location", to)]).into_response()
}

async fn token(State(this): State<Tracker>, form: String) -> Response {
    // A form is written as a query is.
    let Query(asked): Query<Fields> = Query::try_from_uri(&format!("/?{form}").parse().unwrap()).unwrap();
    let mut known = this.known();
    let field = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let refused = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    known.check(field("resource") == this.resource(), "resource of a token");
    match field("grant_type").as_str() {
        "authorization_code" => {
            let Some(begun) = known.codes.remove(&field("code")) else { return refused("invalid_grant") };
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, field("code_verifier").as_bytes()));
            known.check(challenge == begun["code_challenge"], "code_verifier");
            known.check(field("redirect_uri") == begun["redirect_uri"], "redirect_uri of a token");
            known.check(field("client_id") == begun["client_id"], "client_id of a token");
        }
        "refresh_token" => {
            known.refreshes += 1;
            let is_right = known.refresh_token.as_ref() == asked.get("refresh_token");
            known.check(is_right, "refresh_token");
            known.check(field("client_id") == "client-1", "client_id of a refresh");
            if known.refuses_refresh || !is_right {
                return refused("invalid_grant");
            }
        }
        "client_credentials" => {
            if (field("client_id").as_str(), field("client_secret").as_str()) != ("robot", "robot-secret") {
                return refused("invalid_client");
            }
        }
        _ => return refused("unsupported_grant_type"),
    }
    Json(known.give()).into_response()
}

async fn mcp(State(this): State<Tracker>, headers: HeaderMap, body: String) -> Response {
    let said: Value = serde_json::from_str(&body).unwrap_or_default();
    let is_call = said["method"] == "tools/call";
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let token = bearer.strip_prefix("Bearer ").unwrap_or_default();
    if is_call && token == "access-token-1" && this.known().revokes_first {
        this.crowd.wait().await;
        this.known().tokens.remove(token);
    }
    if !this.known().tokens.contains(token) {
        let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", this.base);
        let challenge = format!("Bearer resource_metadata=\"{metadata}\", scope=\"read\"");
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
    }
    if let Some(scope) = this.known().wants.filter(|_| is_call) {
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        return (StatusCode::FORBIDDEN, [("www-authenticate", challenge)]).into_response();
    }
    let result = match said["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
            "serverInfo": { "name": "tracker", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [
            { "name": "whoami", "inputSchema": { "type": "object" }, "annotations": { "readOnlyHint": true } },
        ] }),
        Some("tools/call") => json!({ "content": [{ "type": "text", "text": format!("you are {token}") }] }),
        Some(_) => return StatusCode::ACCEPTED.into_response(),
        None => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    Json(json!({ "jsonrpc": "2.0", "id": said["id"], "result": result })).into_response()
}

/// Asks an address as a browser does, and gives what it is sent on to, or else what the page says.
pub async fn browse(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let location = head.lines().find_map(|line| line.strip_prefix("location: "));
    location.unwrap_or(body).to_owned()
}

/// The address that `fanout login --json` prints first.
pub fn address_of(child: &mut Child) -> String {
    let mut line = Vec::new();
    let out = child.stdout.as_mut().unwrap();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        std::io::Read::read_exact(out, &mut byte).unwrap();
        line.extend(byte);
    }
    let line: Value = serde_json::from_slice(&line).unwrap();
    line["url"].as_str().unwrap().to_owned()
}
