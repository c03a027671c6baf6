//! Endpoints as tools, against a real server.

use axum::http::Method;
use fanout_core::outcome::{Content, Output};
use fanout_core::tool::{Attempt, Tool, ToolError};
use fanout_tools::http::{Body, Credential, HttpClient, HttpTool, HttpToolBuilder};
use serde_json::{Value, json};

use crate::server::{self, Server};

fn tool(method: Method, url: &str) -> HttpToolBuilder {
    HttpTool::builder("get_user", method, url)
}

fn build(builder: HttpToolBuilder) -> HttpTool {
    builder.build(&HttpClient::direct()).unwrap()
}

async fn call(tool: &HttpTool, input: Value) -> Result<Output, ToolError> {
    tool.call(Attempt::detached("get_user", input)).await
}

/// What `GET path` comes to.
async fn get(server: &Server, path: &str) -> Result<Output, ToolError> {
    call(&build(tool(Method::GET, &format!("{}{path}", server.base))), json!({})).await
}

#[tokio::test]
async fn an_input_stays_one_segment_on_the_wire() {
    let server = Server::start().await;
    let get_user = build(tool(Method::GET, &format!("{}/users/{{id}}/orders", server.base)));
    let table = [
        ("u1", "/users/u1/orders"),
        ("a/b", "/users/a%2Fb/orders"),
        ("../admin", "/users/..%2Fadmin/orders"),
        ("..\\..\\admin", "/users/..%5C..%5Cadmin/orders"),
        ("%2e%2e", "/users/%252e%252e/orders"),
        ("a?b=c#d", "/users/a%3Fb%3Dc%23d/orders"),
        ("a\r\nx-evil: 1", "/users/a%0D%0Ax-evil%3A%201/orders"),
        ("//evil.example", "/users/%2F%2Fevil.example/orders"),
        ("é", "/users/%C3%A9/orders"),
    ];
    for (id, _) in table {
        call(&get_user, json!({ "id": id })).await.unwrap();
    }
    let seen = server.seen();
    assert_eq!(seen.iter().map(|seen| &*seen.target).collect::<Vec<_>>(), table.map(|(_, target)| target));
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("x-evil")));
    for dots in [".", ".."] {
        assert!(matches!(call(&get_user, json!({ "id": dots })).await, Err(ToolError::BadInput(_))));
    }
    assert_eq!(server.seen().len(), table.len());
}

#[tokio::test]
async fn inputs_that_are_not_in_the_path_go_where_the_method_puts_them() {
    let server = Server::start().await;
    let url = format!("{}/u/{{id}}", server.base);
    let input = json!({"id": 7, "n": 2, "tags": ["a", "b"]});
    for (method, body) in
        [(Method::GET, None), (Method::DELETE, None), (Method::POST, None), (Method::PUT, Some(Body::Form))]
    {
        let mut tool = tool(method, &url);
        if let Some(body) = body {
            tool = tool.body(body);
        }
        call(&build(tool), input.clone()).await.unwrap();
    }
    let seen = server.seen();
    let lines: Vec<String> = seen
        .iter()
        .map(|seen| {
            let media = seen.headers.get("content-type").map_or("", |media| media.to_str().unwrap());
            format!("{} {} {media} {}", seen.method, seen.target, seen.body)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "GET /u/7?n=2&tags=a&tags=b  ",
            "DELETE /u/7?n=2&tags=a&tags=b  ",
            r#"POST /u/7 application/json {"n":2,"tags":["a","b"]}"#,
            "PUT /u/7 application/x-www-form-urlencoded n=2&tags=a&tags=b",
        ]
    );
}

#[tokio::test]
async fn headers_arrive_and_stand_in_no_debug_output() {
    let server = Server::start().await;
    let tool = tool(Method::POST, &format!("{}/u?key=s3cret", server.base))
        .header("Authorization", "Bearer s3cret")
        .header("Content-Type", "application/merge-patch+json");
    assert!(!format!("{tool:?}").contains("s3cret"));
    let tool = build(tool);
    assert!(!format!("{tool:?}").contains("s3cret"));
    call(&tool, json!({})).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.headers["authorization"], "Bearer s3cret");
    assert_eq!(seen.headers["content-type"], "application/merge-patch+json");
    assert_eq!(seen.headers.get_all("content-type").iter().count(), 1);
    assert!(seen.headers["user-agent"].to_str().unwrap().starts_with("fanout/"));
}

#[tokio::test]
async fn an_input_in_a_header_is_sent_there_and_nowhere_else() {
    let server = Server::start().await;
    for (method, body, rest) in [
        (Method::GET, None, "/u?n=2 "),
        (Method::POST, Some(Body::Json), "/u {\"n\":2}"),
        (Method::POST, Some(Body::Form), "/u n=2"),
        (Method::POST, Some(Body::Raw), "/u 2"),
    ] {
        let tool = tool(method, &format!("{}/u", server.base))
            .header("x-tenant", "t-{tenant}")
            .header("accept", "{type}")
            .secret_header("x-json", "{\"plain\":{tenant}}");
        let tool = build(body.into_iter().fold(tool, HttpToolBuilder::body));
        let before = server.seen().len();
        call(&tool, json!({"tenant": "acme", "type": "text/csv", "n": 2})).await.unwrap();
        call(&tool, json!({"n": 2})).await.unwrap();
        assert!(matches!(call(&tool, json!({"tenant": "a\r\nb: c", "n": 2})).await, Err(ToolError::BadInput(_))));
        let [given, absent] = &server.seen()[before..] else { panic!("not two requests") };
        assert_eq!(format!("{} {}", given.target, given.body), rest);
        assert_eq!(
            (&given.headers["x-tenant"], &given.headers["accept"]),
            (&"t-acme".parse().unwrap(), &"text/csv".parse().unwrap())
        );
        assert_eq!(given.headers["x-json"], "{\"plain\":{tenant}}");
        assert!(!absent.headers.contains_key("x-tenant"));
        assert!(absent.headers["accept"].to_str().unwrap().starts_with("application/json"), "the usual one stays");
    }
}

#[tokio::test]
async fn every_attempt_at_a_write_carries_the_same_key() {
    let server = Server::start().await;
    let url = format!("{}/orders", server.base);
    let post = build(tool(Method::POST, &url));
    let mut attempt = Attempt::detached("get_user", json!({}));
    attempt.idempotency_key = "run-1/toolu_1 é".into();
    post.call(attempt.clone()).await.unwrap();
    attempt.number = 2;
    post.call(attempt.clone()).await.unwrap();
    build(tool(Method::GET, &url)).call(attempt.clone()).await.unwrap();
    build(tool(Method::POST, &url).header("idempotency-key", "mine")).call(attempt).await.unwrap();
    let keys: Vec<String> = server
        .seen()
        .iter()
        .map(|seen| seen.headers.get("idempotency-key").map_or("none", |key| key.to_str().unwrap()).to_owned())
        .collect();
    assert_eq!(keys, ["run-1/toolu_1 %C3%A9", "run-1/toolu_1 %C3%A9", "none", "mine"]);
}

#[tokio::test]
async fn a_body_is_shown_as_what_it_is() {
    let server = Server::start().await;
    let json = get(&server, "/json").await.unwrap();
    assert_eq!(json.content, Output::text(r#"{ "b": 1.0, "a": [1] }"#).content);
    assert_eq!(json.structured, Some(json!({"b": 1.0, "a": [1]})));
    assert_eq!(get(&server, "/problem").await.unwrap().structured, Some(json!({"ok": true})));
    let marked = get(&server, "/marked").await.unwrap();
    assert_eq!((marked.content, marked.structured), (Output::text("[1]").content, Some(json!([1]))));
    let image = Content::Image { media_type: "image/png".into(), data: "iVBORw==".into() };
    assert_eq!(get(&server, "/png").await.unwrap().content, [image]);
    for (path, shown) in [
        ("/broken-json", "{"),
        ("/text", "hello"),
        ("/untyped", "plain"),
        ("/pdf", "binary, 1,234 bytes of application/pdf"),
        ("/zipped", "binary, 2 bytes of text/plain, encoded as gzip"),
        ("/wide", "binary, 4 bytes of text/plain in UTF-16LE"),
        ("/wide-unnamed", "binary, 6 bytes of text/csv in UTF-16, by its first bytes"),
        ("/empty", "HTTP 204, no content"),
        ("/", "HTTP 200, no content"),
    ] {
        assert_eq!(get(&server, path).await.unwrap(), Output::text(shown), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_utf_8_says_so_before_it_is_cut_and_is_referenced_as_the_text_alone() {
    let server = Server::start().await;
    for (path, what) in [("/latin", "is in iso-8859-1, not in UTF-8"), ("/latin-json", "is not UTF-8")] {
        let latin = get(&server, path).await.unwrap();
        let note = format!("(the body {what}; what could not be read is shown as \u{FFFD})");
        assert_eq!(latin.content, [Content::Text(note.into()), Content::Text("caf\u{FFFD}".into())]);
        assert_eq!(latin.value(), json!("caf\u{FFFD}"));
    }
    assert_eq!(get(&server, "/mislabelled").await.unwrap(), Output::text("binary, 4 bytes of text/plain"));
}

#[tokio::test]
async fn a_picture_is_what_its_bytes_say() {
    let server = Server::start().await;
    let image = Content::Image { media_type: "image/jpeg".into(), data: "/9j/4A==".into() };
    assert_eq!(get(&server, "/jpg-named-png").await.unwrap().content, [image]);
    assert_eq!(get(&server, "/page-named-png").await.unwrap(), Output::text("binary, 6 bytes of image/png"));
    assert_eq!(get(&server, "/huge-png").await.unwrap(), Output::text("binary, 3,750,001 bytes of image/png"));
    assert_eq!(get(&server, "/large-png").await.unwrap(), Output::text("binary, 24 bytes of image/png"));
}

#[tokio::test]
async fn an_error_is_explained_by_the_part_of_its_body_that_can_be_read() {
    let server = Server::start().await;
    for (path, message) in [
        ("/page", "410 Gone: It was here."),
        ("/zipped-error", "400 Bad Request: binary, 2 bytes of application/octet-stream, encoded as br"),
        ("/binary-error", "400 Bad Request: binary, 2 bytes of image/png"),
    ] {
        assert_eq!(get(&server, path).await, Err(ToolError::Failed(format!("`get_user` answered {message}"))));
    }
}

#[tokio::test]
async fn a_head_shows_what_its_headers_say() {
    let server = Server::start().await;
    let head = build(tool(Method::HEAD, &format!("{}/big", server.base)));
    let shown = "HTTP 200, no content\ncontent-type: text/plain\ncontent-length: 16777217";
    assert_eq!(call(&head, json!({})).await.unwrap(), Output::text(shown));
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_too_large() {
    let server = Server::start().await;
    let message = "`get_user` answered with 16,777,217 bytes, and at most 16,777,216 are kept; ask \
                   for less, or for a part";
    assert_eq!(get(&server, "/big").await, Err(ToolError::TooLarge(message.into())));
    assert!(get(&server, "/largest").await.is_ok());
}

#[tokio::test]
async fn each_status_says_what_is_known_of_the_work() {
    let server = Server::start().await;
    let message = |status: &str| format!("`get_user` answered {status}: as asked");
    for (code, error) in [
        (400, ToolError::Failed(message("400 Bad Request"))),
        (404, ToolError::Failed(message("404 Not Found"))),
        (408, ToolError::Broken(message("408 Request Timeout"))),
        (409, ToolError::Failed(message("409 Conflict"))),
        (412, ToolError::Failed(message("412 Precondition Failed"))),
        (499, ToolError::Failed(message("499"))),
        (500, ToolError::Broken(message("500 Internal Server Error"))),
        (502, ToolError::Broken(message("502 Bad Gateway"))),
        (503, ToolError::Overloaded { message: message("503 Service Unavailable"), retry_after: None }),
        (504, ToolError::Broken(message("504 Gateway Timeout"))),
        (403, ToolError::Failed(message("403 Forbidden"))),
        (304, ToolError::Failed("`get_user` answered 304 Not Modified".into())),
    ] {
        assert_eq!(get(&server, &format!("/status/{code}")).await, Err(error), "{code}");
    }
    let busy = |message: &str, seconds| ToolError::Busy {
        message: format!("`get_user` answered {message}"),
        retry_after: Some(std::time::Duration::from_secs(seconds)),
    };
    assert_eq!(get(&server, "/busy").await, Err(busy("429 Too Many Requests: slow down", 7)));
    assert_eq!(get(&server, "/github").await, Err(busy("403 Forbidden: API rate limit exceeded", 60)));
    let overloaded = ToolError::Overloaded {
        message: "`get_user` answered 503 Service Unavailable".into(),
        retry_after: Some(std::time::Duration::from_secs(9)),
    };
    assert_eq!(get(&server, "/overloaded").await, Err(overloaded));
}

#[tokio::test]
async fn a_redirect_is_followed_within_its_origin_and_only_for_reads() {
    let other = Server::start().await;
    let server = Server::start_beside(&format!("{}/stolen?token=secret", other.base)).await;
    let secret = |method, path: &str| {
        build(tool(method, &format!("{}{path}", server.base)).header("authorization", "Bearer s3cret"))
    };
    let output = call(&secret(Method::GET, "/there"), json!({})).await.unwrap();
    assert_eq!(output.structured, Some(json!({"b": 1.0, "a": [1]})));

    let host = other.base.trim_start_matches("http://");
    for method in [Method::GET, Method::POST] {
        let error = call(&secret(method, "/away"), json!({})).await.unwrap_err();
        let message = format!(
            "`get_user` answered 302 Found, a redirect to {host}/stolen that was not followed: it is another scheme, host or port"
        );
        assert_eq!(error, ToolError::Failed(message));
    }
    assert!(other.seen().is_empty());

    let error = call(&secret(Method::POST, "/there"), json!({})).await.unwrap_err();
    assert!(
        matches!(error, ToolError::Failed(message) if message.ends_with("/json that was not followed: only GET and HEAD are sent a second time"))
    );
    let before = server.seen().len();
    let error = call(&secret(Method::GET, "/round"), json!({})).await.unwrap_err();
    assert!(matches!(error, ToolError::Failed(message) if message.ends_with("five were followed before it")));
    assert_eq!(server.seen().len() - before, 6);
    assert!(call(&secret(Method::GET, "/hops/5"), json!({})).await.is_ok());
    let error = call(&secret(Method::GET, "/hops/6"), json!({})).await.unwrap_err();
    assert!(matches!(error, ToolError::Failed(message) if message.contains("/hops/0 that was not followed")));
    let error = call(&secret(Method::GET, "/nowhere"), json!({})).await.unwrap_err();
    assert!(
        matches!(error, ToolError::Failed(message) if message.ends_with("a redirect that was not followed: it names no address"))
    );
}

#[tokio::test]
async fn a_refused_connection_proves_that_nothing_was_sent() {
    let base = server::nobody().await;
    let post = build(tool(Method::POST, &format!("{base}/orders?key=s3cret")));
    let Err(ToolError::NotSent(message)) = call(&post, json!({})).await else { panic!("it was sent") };
    let host = base.trim_start_matches("http://");
    assert!(message.starts_with(&format!("`get_user` found no connection for POST {host}/orders: ")), "{message}");
    assert!(message.contains("refused") && !message.contains("s3cret"), "{message}");
}

#[tokio::test]
async fn an_unknown_host_and_a_failed_handshake_prove_it_too() {
    for url in ["http://nobody.invalid/", &server::raw(b"no TLS here").await.replace("http:", "https:")] {
        let post = build(tool(Method::POST, url));
        assert!(matches!(call(&post, json!({})).await, Err(ToolError::NotSent(_))), "{url}");
    }
}

#[tokio::test]
async fn once_it_was_sent_a_lost_connection_proves_nothing() {
    for answer in [
        b"".as_slice(),
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"this is not HTTP\r\n\r\n",
    ] {
        let base = server::raw(answer).await;
        let post = build(tool(Method::POST, &format!("{base}/orders")));
        let error = call(&post, json!({})).await.unwrap_err();
        assert!(matches!(error, ToolError::Broken(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_error_whose_body_is_cut_is_still_that_error() {
    let base = server::raw(b"HTTP/1.1 404 Not Found\r\ncontent-length: 99\r\n\r\nno such").await;
    let error = call(&build(tool(Method::GET, &base)), json!({})).await.unwrap_err();
    assert_eq!(error, ToolError::Failed("`get_user` answered 404 Not Found: no such".into()));
}

#[tokio::test]
async fn a_method_says_what_is_read_and_written() {
    let schema = json!({"type": "object", "properties": {"id": {"type": "string"}}});
    let spec = |method| {
        let tool = tool(method, "https://API.example.com:8443/users/{id}").input_schema(schema.clone());
        build(tool.description("d").reads(["user/{id}"])).spec()
    };
    let get = spec(Method::GET);
    assert_eq!((get.source.as_str(), get.description.as_str()), ("http/api.example.com:8443", "d"));
    assert_eq!(get.input_schema, schema);
    assert_eq!(get.effects.inferred_reads[0].to_string(), "http/api.example.com:8443");
    assert!(get.effects.inferred_writes.is_empty() && get.safe && get.repeatable() && get.effects.is_declared());
    let post = spec(Method::POST);
    assert_eq!(post.effects.inferred_writes[0].to_string(), "http/api.example.com:8443");
    assert!(post.effects.inferred_reads.is_empty() && !post.safe && !post.repeatable());
    assert!(!post.effects.is_declared());
}

#[test]
fn a_mistake_shows_when_the_tool_is_built() {
    let schema = json!({"type": "object", "properties": {"user_id": {}, "text": {}}});
    let check = |tool: HttpToolBuilder, message: &str| {
        let error = tool.input_schema(schema.clone()).build(&HttpClient::direct()).unwrap_err().to_string();
        assert_eq!(error, message);
        assert!(!error.contains("s3cret"));
    };
    let get = |url: &str| tool(Method::GET, url);
    let fine = "https://a.example/{user_id}";
    check(get("ftp://a.example"), "a url must start with `https://` or `http://`");
    check(
        get("https://a.example/{userid}"),
        "the url or the query names `userid`, which the input lacks; did you mean `user_id`?",
    );
    check(
        get(fine).query("q", "{txt}"),
        "the url or the query names `txt`, which the input lacks; did you mean `text`?",
    );
    let brace =
        "in the query parameter `q` a `{` needs a field name and a `}`, as in `{text}`; a plain brace is written twice";
    check(get(fine).query("q", "{"), brace);
    check(get(fine).reads(["user/{id}"]), "`user/{id}` names `id`, which the input lacks");
    check(get(fine).header("Host", "s3cret"), "the header `Host` is set by the connection itself");
    check(get(fine).header("content-length", "1"), "the header `content-length` is set by the connection itself");
    check(get(fine).header("transfer-encoding", "x"), "the header `transfer-encoding` is set by the connection itself");
    let unsendable = "cannot be sent: its name or its value holds a character that a header must not hold";
    check(get(fine).header("x-a", "s3cret\r\n"), &format!("the header `x-a` {unsendable}"));
    check(get(fine).header("x a", "s3cret"), &format!("the header `x a` {unsendable}"));
    check(
        get(fine).header("X-A", "s3cret {userid}"),
        "the header `x-a` names `userid`, which the input lacks; did you mean `user_id`?",
    );
    let brace =
        "in the header `x-a` a `{` needs a field name and a `}`, as in `{tenant}`; a plain brace is written twice";
    check(get(fine).header("x-a", "{\"s3cret\": 1}"), brace);
    check(get(fine).header("x-{text}", "s3cret"), &format!("the header `x-{{text}}` {unsendable}"));
    for name in ["Host", "content-length", "transfer-encoding", "connection"] {
        check(get(fine).header(name, "{text}"), &format!("the header `{name}` is set by the connection itself"));
    }
    let key = "the header `idempotency-key` cannot hold an input: two calls with the same one would pass for one call. Leave \
               it out: every call is sent a key of its own, the same on every attempt";
    check(get(fine).header("Idempotency-Key", "{text}"), key);
    check(get(fine).body(Body::Json), "GET sends no body: its inputs go into the path and the query");
    check(tool(Method::TRACE, fine), "a tool cannot use the method TRACE");
    let raw = "a raw body is the one input that neither the url, the query nor a header names, but 2 are left";
    check(tool(Method::PUT, "https://a.example/").body(Body::Raw), raw);
}

#[tokio::test]
async fn a_body_that_comes_slowly_comes_whole() {
    let pieces = [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/pl".as_slice(),
        b"ain\r\ncontent-length: 6\r\n\r\n",
        b"caf",
        b"\xc3",
        b"\xa9\n",
    ];
    let base = server::pieces(pieces.to_vec()).await;
    let output = call(&build(tool(Method::GET, &base)), json!({})).await.unwrap();
    assert_eq!(output, Output::text("caf\u{e9}\n"));
}

#[tokio::test]
async fn an_attempt_that_is_dropped_hangs_up() {
    let (base, mut hung) = server::hanging().await;
    let mut attempt = build(tool(Method::POST, &base)).call(Attempt::detached("get_user", json!({})));
    tokio::select! {
        answer = &mut attempt => panic!("it answered: {answer:?}"),
        seen = hung.recv() => assert_eq!(seen, Some("the request came")),
    }
    drop(attempt);
    assert_eq!(hung.recv().await, Some("the connection ended"));
}

#[tokio::test]
async fn the_end_users_token_is_sent_to_the_tools_own_host_alone() {
    let other = Server::start().await;
    let server = Server::start_beside(&format!("{}/stolen", other.base)).await;
    let bearer = || Credential::around_token(["Bearer ".into(), String::new().into()]);
    let tool =
        |method, path: &str| build(tool(method, &format!("{}{path}", server.base)).header("authorization", bearer()));
    let as_user = |token: Option<&str>| {
        let mut attempt = Attempt::detached("get_user", json!({}));
        attempt.caller_token = token.map(Into::into);
        attempt
    };
    for (method, path) in [(Method::GET, "/there"), (Method::POST, "/json")] {
        tool(method, path).call(as_user(Some("t0ken"))).await.unwrap();
    }
    assert_eq!(server.seen().len(), 3);
    assert!(server.seen().iter().all(|seen| seen.headers["authorization"] == "Bearer t0ken"));
    tool(Method::GET, "/away").call(as_user(Some("t0ken"))).await.unwrap_err();
    assert!(other.seen().is_empty());
    let before = server.seen().len();
    for token in [None, Some("a\nb")] {
        let error = tool(Method::POST, "/json").call(as_user(token)).await.unwrap_err();
        assert!(matches!(error, ToolError::NotPermitted(_)), "{error:?}");
    }
    assert_eq!(server.seen().len(), before, "nothing was sent");
    let bad = HttpTool::builder("t", Method::GET, "http://a.example")
        .header("x", Credential::around_token(["a\n".into(), "".into()]));
    assert!(bad.check().is_err());
    assert!(!format!("{:?}", bearer()).contains("Bearer"));
}
