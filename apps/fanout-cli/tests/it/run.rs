//! `fanout run` against the scripted server, with the shop's real APIs behind its tools.

use fanout_script::shop::{Latencies, Shop, ShopOptions, story, tools_toml};
use fanout_script::{Block, Script, Server, ServerOptions, Turn, Usage};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::binary::Desk;

#[tokio::test(flavor = "multi_thread")]
async fn the_order_is_processed_streaming_and_not() {
    for stream in [true, false] {
        let shop = Shop::start_with(ShopOptions { latencies: Latencies::none() }).unwrap();
        let server =
            Server::start(ServerOptions::responder(|said| story::turn(said).pace(Default::default()))).unwrap();
        let config = format!("[model]\nstream = {stream}\n{}", tools_toml(&shop.base_url()));
        // No key: the server is on this machine.
        let desk = Desk::with(&config).set("ANTHROPIC_BASE_URL", server.base_url());
        let came = desk.run(&["run", "--system", "Be brief.", story::PROMPT], "").await.code(0);
        assert!(
            came.out.starts_with("Order #123 is processed. The desk-lamp units are reserved (10 left, then 9 left).")
        );
        assert!(came.err.contains("3 turns, 10 calls"), "{}", came.err);
        assert_eq!(server.violations(), []);
        let requests = server.requests();
        assert_eq!(requests.len(), 3);
        let body: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
        assert_eq!(body["stream"].as_bool().unwrap_or_default(), stream);
        assert!(body["system"].to_string().contains("Be brief."), "{}", body["system"]);
        assert!(requests.iter().all(|request| request.header("x-api-key").is_none()));
        assert_eq!(shop.state().unwrap().tables["payments"].len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_sent_where_there_is_one() {
    let options = ServerOptions::script(Script::new([Turn::text("hello")])).key("k3y");
    let server = Server::start(options).unwrap();
    let desk = |key: &str| Desk::new().set("ANTHROPIC_BASE_URL", server.base_url()).set("ANTHROPIC_API_KEY", key);
    assert_eq!(desk("k3y").run(&["run", "hi"], "").await.code(0).out, "hello\n");
    let came = desk("other").run(&["run", "hi"], "").await.code(1);
    assert!(came.said("failed:").contains("check the key: ANTHROPIC_API_KEY"), "{}", came.err);
    assert!(!came.err.contains("other"), "no key is repeated: {}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_adds_up_what_was_used() {
    let usage = Usage { input_tokens: 1_000_000, output_tokens: 100_000, ..Usage::default() };
    let server = Server::start(ServerOptions::script(Script::new([Turn::text("hello").usage(usage)]))).unwrap();
    let desk = Desk::with(
        "[prices.\"m\"]\ninput = 1.0\noutput = 10.0\ncache_read = 0\ncache_write = 0\n[model]\nname = \"m\"\n",
    )
    .set("ANTHROPIC_BASE_URL", server.base_url());
    let lines = desk.run(&["run", "--json", "hi"], "").await.code(0).lines();
    let [.., answer, end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&answer["type"], &answer["text"]), (&json!("answer"), &json!("hello")));
    assert_eq!((&end["status"], &end["turns"], &end["calls"]), (&json!("done"), &json!(1), &json!(0)));
    assert_eq!(end["cost_usd"], json!(2.0));
    let tokens = json!({"input_tokens": 1_000_000, "output_tokens": 100_000, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0});
    assert_eq!(end["usage"], tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_the_run_as_one() {
    let turn = || Turn::new([Block::text("I look."), Block::tool_use("nothing_such", "{}")]);
    let server = Server::start(ServerOptions::script(Script::new([turn(), turn()]))).unwrap();
    for (run, said) in [
        ("max_turns = 1", "budget: the run has used its 1 turns (`max_turns`)"),
        ("max_calls = 1", "budget: the run has used its 1 calls (`max_calls`)"),
        ("max_total_tokens = 10", "budget: the next request may take"),
        ("max_cost_usd = 0.001", "budget: the next request may cost"),
    ] {
        let desk = Desk::with(&format!("[run]\n{run}\n")).set("ANTHROPIC_BASE_URL", server.base_url());
        let came = desk.run(&["run", "hi"], "").await.code(3);
        assert!(came.err.lines().last().unwrap().starts_with(said), "{}", came.err);
    }
    assert_eq!(server.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_it_is_told_before_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "it breaks off");
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8(request).unwrap()
    });
    let server = Server::start(ServerOptions::script(Script::new([Turn::text("hello")]))).unwrap();
    let config = format!("[[notify]]\nurl = \"http://{address}/hook\"\nsecret = \"${{HOOK_SECRET}}\"\n");
    let desk = Desk::with(&config).set("ANTHROPIC_BASE_URL", server.base_url());
    let came = desk.run(&["run", "hi"], "").await.code(2);
    assert!(came.err.contains("HOOK_SECRET"), "{}", came.err);
    let desk = desk.set("HOOK_SECRET", "s3cret");
    assert_eq!(desk.run(&["run", "hi"], "").await.code(0).out, "hello\n");
    let request = told.await.unwrap();
    assert!(request.contains("webhook-signature: v1,") && request.contains("\"type\":\"run_ended\""), "{request}");
}
