//! `[openapi.NAME]`: what a section comes to, and what its mistakes are answered.

use std::path::Path;

use fanout_core::toolbox::Toolbox;
use fanout_host::advice::advice;
use fanout_host::build::{Purpose, build_toolbox};
use fanout_host::config::Config;
use fanout_host::databases::Databases;
use fanout_host::environment::Environment;
use fanout_tools::command::Programs;

const DOCUMENT: &str = r#"
openapi: 3.0.3
servers: [{ url: "https://shop.example/v1" }]
components:
  securitySchemes:
    key: { type: apiKey, in: header, name: x-key }
paths:
  /orders:
    get: { operationId: orders/list }
    post: { operationId: orders/create }
  /orders/{id}:
    parameters: [{ name: id, in: path, required: true, schema: { type: string } }]
    get: { operationId: orders/get }
    delete: {}
    put:
      operationId: orders/odd
      parameters: [{ name: m, in: query, style: matrix, schema: {} }]
"#;

/// A configuration beside the document, as its mistakes or as it is.
fn parse(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("shop.yaml"), DOCUMENT).expect("a file");
    std::fs::write(folder.path().join("old.json"), r#"{"swagger":"2.0"}"#).expect("a file");
    let environment = Environment::default();
    Config::parse("fanout.toml", text, folder.path(), &environment)
        .map_err(|errors| errors.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

fn toolbox(lines: &str) -> (Config, Toolbox) {
    let config = parse(&format!("[openapi.shop]\nspec = \"shop.yaml\"\n{lines}")).expect("no mistakes");
    let toolbox =
        build_toolbox(&config, &Environment::default(), Purpose::Look, &Programs::new(), &Databases::default())
            .expect("tools");
    (config, toolbox)
}

/// Names, what decides its effects, and whether it is declared: `name: reads | writes (declared)`.
fn shown(toolbox: &Toolbox) -> Vec<String> {
    let one = |tool: &fanout_core::toolbox::Registered| {
        let effects = &tool.spec.effects;
        let inferred = (&effects.inferred_reads, &effects.inferred_writes);
        let all = format!("{:?} {:?} {:?} {:?}", effects.reads, effects.writes, inferred.0, inferred.1);
        format!("{}: {all}", tool.spec.name)
    };
    toolbox.iter().map(one).collect()
}

#[test]
fn operations_are_tools_with_the_effects_of_their_methods() {
    let (config, toolbox) = toolbox("");
    assert_eq!(
        shown(&toolbox),
        [
            "shop__orders_list: None None [http/shop.example] []",
            "shop__orders_create: None None [] [http/shop.example]",
            "shop__orders_get: None None [http/shop.example] []",
            "shop__delete_orders_id: None None [] [http/shop.example]",
        ]
    );
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "fanout.toml:2:8: `orders/odd` of [openapi.shop] is left out: its parameter `m` has the style `matrix`, which is not known here"
        ]
    );
}

#[test]
fn include_and_exclude_choose_by_id_or_by_method_and_path() {
    for (lines, names) in [
        ("include = [\"orders/*\"]\nexclude = [\"*/create\"]", "shop__orders_list shop__orders_get"),
        ("include = [\"DELETE /orders/*\", \"orders/get\"]", "shop__orders_get shop__delete_orders_id"),
        ("exclude = [\"* /orders/{id}\"]", "shop__orders_list shop__orders_create"),
    ] {
        let (_, toolbox) = toolbox(lines);
        let found: Vec<&str> = toolbox.iter().map(|tool| tool.spec.name.as_str()).collect();
        assert_eq!(found.join(" "), names, "{lines}");
    }
}

#[test]
fn what_is_said_of_a_tool_counts_before_what_is_said_of_its_source() {
    let lines = "limit = \"a\"\nbase_url = \"http://localhost:8080/x/\"\nstop_on_failure = true\n\
                 tools.\"orders/create\" = { writes = [\"orders/*\"], limit = \"b\", idempotent = true, after = [\"shop__orders_list\"] }\n\
                 tools.\"DELETE /orders/{id}\" = { writes = [\"orders/{id}\"] }\n[limits.a]\n[limits.b]";
    let (_, toolbox) = toolbox(lines);
    let spec = |name: &str| &toolbox.get(&name.into()).unwrap().spec;
    let create = spec("shop__orders_create");
    assert!(create.repeatable() && create.effects.is_declared() && create.policy.stop_on_failure);
    assert_eq!(create.policy.limit, Some("b".into()));
    assert_eq!(create.policy.after, ["shop__orders_list".into()]);
    let delete = spec("shop__delete_orders_id");
    assert_eq!((delete.source.as_str(), delete.policy.limit.clone()), ("http/localhost:8080", Some("a".into())));
    assert_eq!(delete.effects.writes.as_ref().unwrap()[0].to_string(), "orders/{id}");
}

#[test]
fn undeclared_calls_are_parallel_only_where_somebody_says_so() {
    let (_, toolbox) = toolbox("undeclared = \"parallel\"\ntools.\"orders/create\" = { reads = [\"orders/*\"] }");
    let lines = shown(&toolbox);
    assert_eq!(lines[0], "shop__orders_list: None None [] []");
    assert_eq!(lines[3], "shop__delete_orders_id: None None [] []");
    // It says what it reads and not what it writes: that stays its whole host.
    assert_eq!(lines[1], "shop__orders_create: Some([orders/*]) None [] [http/shop.example]");
    assert!(!toolbox.get(&"shop__delete_orders_id".into()).unwrap().repeatable());
}

#[test]
fn the_line_that_is_proposed_is_that_of_the_path() {
    let (_, toolbox) = toolbox("");
    let lines: Vec<String> = toolbox.iter().map(|tool| advice(&tool.spec)).collect();
    assert_eq!(
        lines,
        [
            "[openapi.shop] tools.\"orders/list\" = { reads = [\"orders/*\"] }",
            "[openapi.shop] tools.\"orders/create\" = { writes = [\"orders/*\"] }",
            "[openapi.shop] tools.\"orders/get\" = { reads = [\"orders/{id}/*\"] }",
            "[openapi.shop] tools.\"DELETE /orders/{id}\" = { writes = [\"orders/{id}/*\"] }",
        ]
    );
    for line in lines {
        let (header, rest) = line.split_once(' ').unwrap();
        assert!(parse(&format!("{header}\nspec = \"shop.yaml\"\n{rest}")).is_ok(), "{line} can be added as it is");
    }
}

#[test]
fn a_secret_is_asked_for_where_calls_run() {
    let text = "[openapi.shop]\nspec = \"shop.yaml\"\nauth = { key = \"${SHOP_KEY}\" }";
    let config = parse(text).unwrap();
    let error = build_toolbox(&config, &Environment::default(), Purpose::Run, &Programs::new(), &Databases::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "fanout.toml:3:16: `key` needs the environment variable `SHOP_KEY`, which is not set"
    );
    let environment = Environment::from_iter([("SHOP_KEY", "s3cret")]);
    assert_eq!(
        build_toolbox(&config, &environment, Purpose::Run, &Programs::new(), &Databases::default()).unwrap().len(),
        4
    );
}

#[test]
fn a_mistake_names_what_was_meant() {
    for (line, answer) in [
        (
            "include = [\"order/list\"]",
            "3:12: `include` names `order/list`, which is no operation of the document; did you mean `orders/list`?",
        ),
        ("exclude = [\"zzz*\"]", "3:12: `exclude` names `zzz*`, which is no operation of the document"),
        (
            "tools.\"orders/lst\" = {}",
            "3:7: `tools` names `orders/lst`, which is no operation of the document; did you mean `orders/list`?",
        ),
        (
            "include = [\"*/get\"]\ntools.\"orders/list\" = {}",
            "4:7: `tools` names `orders/list`, which is not among the tools: `include` or `exclude` leaves it out",
        ),
        (
            "tools.\"orders/get\" = { reads = [\"o/{ids}\"] }",
            "3:33: `o/{ids}` names `ids`, which the input lacks; did you mean `id`?",
        ),
        (
            "tools.\"orders/get\" = { tiemout = \"1s\" }",
            "3:24: unknown key `tiemout` in [openapi.shop] tools.\"orders/get\"; did you mean `timeout`?",
        ),
        (
            "tools.\"orders/get\" = { approval = [] }",
            "3:35: `approval` must be \"never\", \"always\" or conditions such as [{ if = \"/amount\", over = 100 }], not []",
        ),
        (
            "tools.\"orders/get\" = { after = [\"shop__orders_lst\"] }",
            "3:33: `after` names `shop__orders_lst`, which is no tool of this file; did you mean `shop__orders_list`?",
        ),
        (
            "auth = { kee = \"s3cret\" }",
            "3:10: `auth` names `kee`, which is no security scheme of the document; did you mean `key`?",
        ),
        ("undeclared = \"paralel\"", "3:14: `undeclared` must be \"serial\" or \"parallel\", not \"paralel\""),
        (
            "limit = \"shop\"",
            "3:9: `limit` names `shop`, which is no limit group of this file; there must be a section [limits.shop]",
        ),
        ("base_url = \"shop.example\"", "3:12: `base_url`: a url must start with `https://` or `http://`"),
        ("basurl = \"x\"", "3:1: unknown key `basurl` in [openapi.shop]; did you mean `base_url`?"),
        (
            "rate = \"5/s\"",
            "3:1: unknown key `rate` in [openapi.shop]; it belongs into [limits.NAME], and the tool says `limit = \"NAME\"`",
        ),
    ] {
        let error = parse(&format!("[openapi.shop]\nspec = \"shop.yaml\"\n{line}")).unwrap_err();
        assert_eq!(error, format!("fanout.toml:{answer}"), "{line}");
    }
    for (text, answer) in [
        ("[openapi.shop]", "1:10: [openapi.shop] needs `spec`, the file or address of an OpenAPI document"),
        ("[openapi.shop]\nspec = 7", "2:8: `spec` must be a text in quotes, not 7"),
        ("[openapi.a]\nspec = \"gone.yaml\"", "2:8: gone.yaml cannot be read: No such file or directory (os error 2)"),
        (
            "[openapi.a]\nspec = \"old.json\"",
            "2:8: old.json is Swagger 2.0; convert it to OpenAPI 3 once: npx swagger2openapi old.json --outfile openapi.json",
        ),
        (
            "[openapi.a]\nspec = \"https://a.example/x\"",
            "2:8: the document at `https://a.example/x` is not downloaded yet: `fanout check` does it once and keeps it as .fanout/openapi/a_39021306",
        ),
        ("[openapi]\na = 1", "2:5: `a` must be a table such as { key = \"value\" }, not 1"),
        (
            "[openapi.\"\"]\nspec = \"shop.yaml\"",
            "1:10: a document needs a name, as in [openapi.github]: its tools begin with it",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err(), format!("fanout.toml:{answer}"), "{text}");
    }
}

#[test]
fn a_document_without_a_server_needs_an_address() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), "openapi: 3.1.0\npaths: { /x: { get: {} } }\n").unwrap();
    let parse = |text: &str, folder: &Path| Config::parse("fanout.toml", text, folder, &Environment::default());
    let error = parse("[openapi.a]\nspec = \"a.yaml\"", folder.path()).unwrap_err().to_string();
    let message =
        "fanout.toml:1:1: [openapi.a] needs `base_url`: the document names no server with scheme and host for `GET /x`";
    assert_eq!(error, message);
    assert!(parse("[openapi.a]\nspec = \"a.yaml\"\nbase_url = \"http://localhost\"", folder.path()).is_ok());
}
