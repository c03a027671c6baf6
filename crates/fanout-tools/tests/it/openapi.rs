//! Documents as tools: what each part of a small document comes to, and what is sent.

use fanout_core::tool::{Attempt, Tool, ToolError};
use fanout_core::toolbox::Toolbox;
use fanout_tools::http::{Credential, HttpClient};
use fanout_tools::openapi::{Document, Operation};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Seen, Server};

/// Documents in files of a folder; the first is the one that is read.
fn load(files: &[(&str, &str)]) -> (TempDir, Result<Document, String>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let document = Document::load(&folder.path().join(files[0].0));
    let shown = folder.path().canonicalize().unwrap().display().to_string();
    (folder, document.map_err(|error| error.to_string().replace(&shown, "")))
}

/// A document of this version with these paths and components.
fn document(version: &str, paths: &Value, components: &Value) -> Document {
    let text = json!({ "openapi": version, "info": {}, "paths": paths, "components": components }).to_string();
    load(&[("a.json", &text)]).1.unwrap()
}

fn operation(document: &Document, label: &str) -> Operation {
    let outline = document.operations("s").into_iter().find(|outline| outline.label() == label).unwrap();
    document.describe(&outline).unwrap()
}

/// The schema of the one field `a` of a body, as a document of this version says it.
fn field(version: &str, schema: &Value, schemas: &Value) -> Value {
    let body = json!({ "type": "object", "properties": { "a": schema } });
    let content = json!({ "application/json": { "schema": body } });
    let paths = json!({ "/x": { "post": { "requestBody": { "required": true, "content": content } } } });
    let document = document(version, &paths, &json!({ "schemas": schemas }));
    operation(&document, "POST /x").input_schema()["properties"]["a"].clone()
}

/// Sends one call of the only operation of `paths` and returns what arrived.
async fn sent(paths: &Value, components: &Value, auth: &[(&str, &str)], input: Value) -> Result<Seen, ToolError> {
    let server = Server::start().await;
    let document = document("3.0.3", paths, components);
    let outline = &document.operations("s")[0];
    // A lone `@` stands for the end user's token.
    let credential = |(name, secret): &(&str, &str)| {
        ((*name).to_owned(), Credential::around_token(secret.split('@').map(SecretString::from)))
    };
    let auth: Vec<(String, Credential)> = auth.iter().map(credential).collect();
    let builder = document.describe(outline).unwrap().builder("[openapi.s]", Some(&server.base), &auth).unwrap();
    let tool = builder.build(&HttpClient::direct()).unwrap();
    let mut toolbox = Toolbox::new();
    toolbox.add(tool.clone()).unwrap();
    let mut attempt = Attempt::detached(outline.tool.clone(), input);
    attempt.caller_token = Some("t0ken".into());
    tool.call(attempt).await?;
    Ok(server.seen().remove(0))
}

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn each_input_goes_where_the_document_says() {
    let text = |name: &str, place: &str| json!({ "name": name, "in": place, "schema": { "type": "string" } });
    let list = |name: &str, style: &str, explode: bool| json!({ "name": name, "in": "query", "style": style, "explode": explode, "schema": { "type": "array", "items": { "type": "string" } } });
    let body = json!({ "required": true, "content": { "application/json": { "schema": {
        "type": "object", "required": ["title"], "properties": { "title": { "type": "string" }, "we ird": { "type": "integer" } } } } } });
    let paths = json!({ "/r/{owner.name}/i/{id}": {
        "parameters": [{ "name": "owner.name", "in": "path", "required": true, "schema": { "type": "string" } }, text("id", "header")],
        "post": { "operationId": "create", "requestBody": body, "parameters": [
            { "name": "id", "in": "path", "required": true, "schema": { "type": "array", "items": { "type": "integer" } } },
            text("id", "query"), text("x-trace", "header"), text("session", "cookie"), text("Authorization", "header"),
            list("all", "form", true), list("some", "form", false), list("piped", "pipeDelimited", false),
            { "name": "filter", "in": "query", "style": "deepObject", "schema": { "type": "object" } },
            { "name": "json", "in": "query", "content": { "application/json": { "schema": { "type": "object" } } } } ] } } });
    let input = json!({ "owner_name": "a/b", "id_path": [1, 2], "id": "h", "id_query": "q", "x-trace": "t", "session": "s; x=1",
        "all": ["a", "b"], "some": ["a", "b"], "piped": ["a", "b"], "filter": { "a": { "b": 1 } }, "json": { "c": 2 },
        "title": "T", "we_ird": 7 });
    let seen = sent(&paths, &json!({}), &[], input).await.unwrap();
    assert_eq!(
        seen.target,
        "/r/a%2Fb/i/1%2C2?id=q&all=a&all=b&some=a%2Cb&piped=a%7Cb&filter%5Ba%5D%5Bb%5D=1&json=%7B%22c%22%3A2%7D"
    );
    assert_eq!((header(&seen, "id"), header(&seen, "x-trace")), ("h", "t"));
    assert_eq!((header(&seen, "cookie"), header(&seen, "authorization")), ("session=s%3B%20x%3D1", ""));
    assert_eq!((header(&seen, "content-type"), &*seen.body), ("application/json", r#"{"title":"T","we ird":7}"#));
}

#[tokio::test]
async fn an_input_begins_no_header_of_its_own() {
    let paths = json!({ "/x": { "get": { "parameters": [{ "name": "x-a", "in": "header", "schema": {} }] } } });
    let error = sent(&paths, &json!({}), &[], json!({ "x-a": "1\r\nx-evil: 2" })).await.unwrap_err();
    assert!(matches!(error, ToolError::BadInput(message) if message.contains("`x-a`")));
}

#[tokio::test]
async fn each_kind_of_body_is_sent_as_what_it_is() {
    let object = json!({ "type": "object", "properties": { "a": { "type": "string" }, "list": { "type": "array", "items": { "type": "string" } }, "deep": { "type": "object", "properties": { "b": {} } } } });
    let list = json!({ "type": "array", "items": { "type": "integer" } });
    let fields = json!({ "a": "x y", "list": ["1", "2"], "deep": { "b": 3 } });
    for (media, schema, required, input, content_type, body) in [
        (
            "application/x-www-form-urlencoded",
            &object,
            true,
            fields.clone(),
            "application/x-www-form-urlencoded",
            "a=x+y&deep%5Bb%5D=3&list=1&list=2",
        ),
        ("application/vnd.x+json", &object, true, json!({ "a": "1" }), "application/vnd.x+json", r#"{"a":"1"}"#),
        ("application/json", &list, true, json!({ "body": [1, 2] }), "application/json", "[1,2]"),
        ("application/json", &json!({ "type": "string" }), true, json!({ "body": "t" }), "application/json", r#""t""#),
        ("text/plain", &json!({ "type": "string" }), true, json!({ "body": "t" }), "text/plain", "t"),
        ("application/json", &object, false, json!({}), "", ""),
        ("application/json", &object, true, json!({}), "application/json", "{}"),
        (
            "multipart/form-data",
            &object,
            true,
            json!({ "a": "fanout-boundary" }),
            "multipart/form-data; boundary=fanout-boundary-",
            "--fanout-boundary-\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nfanout-boundary\r\n--fanout-boundary---\r\n",
        ),
    ] {
        let request = json!({ "required": required, "content": { media: { "schema": schema } } });
        let paths = json!({ "/x": { "post": { "requestBody": request } } });
        let seen = sent(&paths, &json!({}), &[], input).await.unwrap();
        assert_eq!((header(&seen, "content-type"), &*seen.body), (content_type, body), "{media}");
    }
}

#[tokio::test]
async fn credentials_travel_as_their_scheme_says() {
    let components = json!({ "securitySchemes": {
        "head": { "type": "apiKey", "in": "header", "name": "X-Key" }, "query": { "type": "apiKey", "in": "query", "name": "key" },
        "crumb": { "type": "apiKey", "in": "cookie", "name": "sid" }, "token": { "type": "http", "scheme": "bearer" },
        "user": { "type": "http", "scheme": "basic" }, "oauth": { "type": "oauth2", "flows": {} },
        "oidc": { "type": "openIdConnect" } } });
    let all = ["head", "query", "crumb", "token", "user", "oauth", "oidc", "bearer"];
    let auth: Vec<(&str, &str)> = all.iter().map(|name| (*name, "u:p")).collect();
    for (scheme, name, value) in [
        ("head", "x-key", "u:p"),
        ("query", "", "/x?key=u%3Ap"),
        ("crumb", "cookie", "sid=u:p"),
        ("token", "authorization", "Bearer u:p"),
        ("user", "authorization", "Basic dTpw"),
        ("oauth", "authorization", "Bearer u:p"),
        ("oidc", "authorization", "Bearer u:p"),
    ] {
        let paths = json!({ "/x": { "get": { "security": [{ "absent": [] }, { scheme: [] }] } } });
        let auth: Vec<_> = auth.iter().copied().filter(|(name, _)| *name != "bearer").collect();
        let seen = sent(&paths, &components, &auth, json!({})).await.unwrap();
        let found = if name.is_empty() { seen.target.as_str() } else { header(&seen, name) };
        assert_eq!(found, value, "{scheme}");
        let others = ["x-key", "cookie", "authorization"].into_iter().filter(|other| *other != name);
        assert!(others.into_iter().all(|other| header(&seen, other).is_empty()), "{scheme} alone");
    }
    let open = json!({ "/x": { "get": { "security": [] } } });
    assert_eq!(header(&sent(&open, &components, &[("token", "t")], json!({})).await.unwrap(), "authorization"), "");
    let unsaid = json!({ "/x": { "get": {} } });
    let seen = sent(&unsaid, &json!({}), &[("bearer", "t")], json!({})).await.unwrap();
    assert_eq!(header(&seen, "authorization"), "Bearer t");
}

#[test]
fn a_parameter_that_the_configuration_sends_is_no_input() {
    let paths = json!({ "/x": { "get": { "security": [{ "k": [] }], "parameters": [
        { "name": "x-key", "in": "header", "required": true, "schema": {} } ] } } });
    let components = json!({ "securitySchemes": { "k": { "type": "apiKey", "in": "header", "name": "X-Key" } } });
    let document = document("3.1.0", &paths, &components);
    let operation = operation(&document, "GET /x");
    let spec = |auth: &[(String, Credential)]| {
        let builder = operation.builder("", Some("http://localhost"), auth).unwrap();
        builder.build(&HttpClient::direct()).unwrap().spec().input_schema
    };
    assert_eq!(spec(&[])["required"], json!(["x-key"]));
    let given = spec(&[("k".into(), "s3cret".into())]);
    assert_eq!((&given["required"], &given["properties"]), (&json!([]), &json!({})));
}

#[test]
fn schemas_of_3_0_become_json_schema_of_2020_12() {
    for (schema, made) in [
        (
            json!({ "type": "string", "nullable": true, "enum": ["a"] }),
            json!({ "type": ["string", "null"], "enum": ["a", null] }),
        ),
        (
            json!({ "allOf": [{ "type": "string" }], "nullable": true }),
            json!({ "anyOf": [{ "allOf": [{ "type": "string" }] }, { "type": "null" }] }),
        ),
        (
            json!({ "type": "number", "minimum": 1, "exclusiveMinimum": true }),
            json!({ "type": "number", "exclusiveMinimum": 1 }),
        ),
        (
            json!({ "type": "number", "maximum": 1, "exclusiveMaximum": false }),
            json!({ "type": "number", "maximum": 1 }),
        ),
        (
            json!({ "type": "string", "example": "x", "xml": {}, "x-own": 1 }),
            json!({ "type": "string", "examples": ["x"] }),
        ),
        (json!({ "type": "any", "required": true, "pattern": "(?<a" }), json!({})),
        (
            json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }] }),
            json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] }),
        ),
        (
            json!({ "type": "object", "required": ["id", "b"], "properties": { "id": { "readOnly": true }, "b": { "writeOnly": true } } }),
            json!({ "type": "object", "required": ["b"], "properties": { "b": {} } }),
        ),
        (json!({ "$ref": "#/components/schemas/T" }), json!({ "type": "integer" })),
        (
            json!({ "$ref": "#/components/schemas/Gone" }),
            json!({ "description": "(what the document refers to here is not in it)" }),
        ),
    ] {
        assert_eq!(field("3.0.3", &schema, &json!({ "T": { "type": "integer" } })), made, "{schema}");
    }
    let as_is = json!({ "type": ["string", "null"], "exclusiveMinimum": 1, "const": "a" });
    assert_eq!(
        field("3.1.0", &as_is, &json!({})),
        json!({ "type": ["null", "string"], "exclusiveMinimum": 1, "const": "a" })
    );
}

#[test]
fn a_schema_that_contains_itself_ends_with_a_note() {
    let node = json!({ "type": "object", "properties": { "next": { "$ref": "#/components/schemas/Node" } } });
    let made = field("3.0.3", &json!({ "$ref": "#/components/schemas/Node" }), &json!({ "Node": node }));
    let note = json!({ "type": "object", "description": "(not shown: it contains itself)" });
    assert_eq!(made, json!({ "type": "object", "properties": { "next": note } }));
    let circle = json!({ "A": { "$ref": "#/components/schemas/B" }, "B": { "$ref": "#/components/schemas/A" } });
    assert!(field("3.0.3", &json!({ "$ref": "#/components/schemas/A" }), &circle).get("description").is_some());
}

#[test]
fn a_schema_that_doubles_at_every_level_stays_bounded() {
    let level = |at: usize| {
        let next = json!({ "$ref": format!("#/components/schemas/L{}", at + 1) });
        json!({ "type": "object", "properties": { "left": next, "right": next } })
    };
    let schemas: serde_json::Map<String, Value> = (0..40).map(|at| (format!("L{at}"), level(at))).collect();
    let made = field("3.1.0", &json!({ "$ref": "#/components/schemas/L0" }), &Value::Object(schemas));
    let text = made.to_string();
    assert!(text.len() < 32 * 1024 && text.contains("deeper levels are not shown"), "{} bytes", text.len());
}

#[test]
fn a_document_may_lie_in_several_files_of_one_folder_and_in_no_other() {
    let main = "openapi: 3.0.3\npaths:\n  /x/{id}:\n    $ref: 'parts.yaml#/item'\n";
    let parts = "item:\n  get:\n    operationId: read\n    parameters:\n      - $ref: '#/id'\nid: { name: id, in: path, required: true, schema: { $ref: 'more.json' } }\n";
    let (_folder, document) = load(&[("a.yaml", main), ("parts.yaml", parts), ("more.json", r#"{"type":"integer"}"#)]);
    let read = operation(&document.unwrap(), "read");
    assert_eq!(read.input_schema()["properties"]["id"], json!({ "type": "integer" }));
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(folder.path().join("secret.json"), r#"{"get":{}}"#).unwrap();
    let main = folder.path().join("in/a.yaml");
    std::fs::write(&main, "openapi: 3.0.3\npaths: { /x: { $ref: '../secret.json' } }\n").unwrap();
    let error = Document::load(&main).unwrap_err().to_string();
    let message = "the document refers to ../secret.json, which is outside of the folder that the document lies in";
    assert_eq!(error, message);
}

#[test]
fn what_is_no_document_says_what_it_is() {
    for (text, said) in [
        (
            r#"{"swagger":"2.0"}"#,
            "/a is Swagger 2.0; convert it to OpenAPI 3 once: npx swagger2openapi /a --outfile openapi.json",
        ),
        ("openapi: 2.5\n", "/a is not an OpenAPI document of version 3.0 or 3.1: its `openapi` is `2.5`"),
        ("openapi: 3.10.0\n", "/a is not an OpenAPI document of version 3.0 or 3.1: its `openapi` is `3.10.0`"),
        ("{}", "/a is not an OpenAPI document of version 3.0 or 3.1: its `openapi` is absent"),
        ("{\"openapi\":", "/a is neither JSON nor YAML: EOF while parsing a value at line 1 column 11"),
    ] {
        assert_eq!(load(&[("a", text)]).1.unwrap_err(), said);
    }
}

#[test]
fn names_are_valid_unique_and_do_not_depend_on_the_order() {
    let get = |id: &str| json!({ "get": { "operationId": id } });
    let names = |paths: Value| {
        let operations = document("3.1.0", &paths, &json!({})).operations("s");
        let pairs = operations.into_iter().map(|outline| (outline.path, outline.tool.to_string()));
        pairs.collect::<std::collections::BTreeMap<_, _>>()
    };
    let one = names(json!({ "/a": get("x/y"), "/b": get("x y"), "/c": get("z"), "/d/{id}": { "get": {} } }));
    let other = names(json!({ "/d/{id}": { "get": {} }, "/c": get("z"), "/b": get("x y"), "/a": get("x/y") }));
    assert_eq!(one, other);
    assert_eq!((one["/c"].as_str(), one["/d/{id}"].as_str()), ("s__z", "s__get_d_id"));
    assert!(one["/a"].starts_with("s__x_y_") && one["/b"].starts_with("s__x_y_") && one["/a"] != one["/b"], "{one:?}");
}

#[test]
fn servers_are_the_nearest_with_the_defaults_of_their_variables() {
    let paths = json!({
        "/a": { "get": {} },
        "/b": { "servers": [{ "url": "https://b.example/" }], "get": {}, "post": { "servers": [{ "url": "/only/a/path" }] } },
    });
    let root = json!([{ "url": "https://{region}.example:{port}/v1/", "variables": { "region": { "default": "eu" }, "port": { "default": 8443 } } }]);
    let text = json!({ "openapi": "3.1.0", "paths": paths, "servers": root }).to_string();
    let document = load(&[("a.json", &text)]).1.unwrap();
    for (label, server) in
        [("GET /a", "https://eu.example:8443/v1"), ("GET /b", "https://b.example"), ("POST /b", "https://b.example")]
    {
        assert_eq!(operation(&document, label).server.as_deref(), Some(server), "{label}");
    }
}

#[test]
fn a_body_whose_fields_clash_with_parameters_or_that_is_one_of_several_stands_alone() {
    let of = |schema: Value| {
        let content = json!({ "application/json": { "schema": schema } });
        let parameter = json!({ "name": "id", "in": "query", "schema": {} });
        let paths = json!({ "/x": { "post": { "parameters": [parameter], "requestBody": { "required": true, "content": content } } } });
        let document = document("3.1.0", &paths, &json!({}));
        let schema = operation(&document, "POST /x").input_schema().clone();
        let names: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        (names.join(" "), schema["additionalProperties"].clone())
    };
    let fields = |names: &[&str]| json!({ "properties": names.iter().map(|name| ((*name).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>() });
    assert_eq!(of(fields(&["a", "b"])), ("a b id".into(), json!(false)));
    assert_eq!(of(fields(&["a", "id"])), ("body id".into(), json!(false)));
    assert_eq!(of(json!({ "allOf": [fields(&["a"]), fields(&["b"])] })), ("a b id".into(), json!(false)));
    assert_eq!(of(json!({ "oneOf": [fields(&["a"]), fields(&["b"])] })), ("body id".into(), json!(false)));
    assert_eq!(of(json!({ "properties": { "a": {} }, "additionalProperties": true })), ("a id".into(), json!(true)));
    assert_eq!(of(json!({ "type": "object" })), ("body id".into(), json!(false)));
}

#[tokio::test]
async fn the_end_users_token_is_sent_where_the_scheme_is_a_header() {
    let operation = json!({ "/x": { "get": { "security": [{ "k": [] }, { "q": [] }] } } });
    let components = json!({ "securitySchemes": {
        "k": { "type": "apiKey", "in": "header", "name": "X-Key" },
        "q": { "type": "apiKey", "in": "query", "name": "key" } } });
    let arrived = sent(&operation, &components, &[("k", "a-@-b"), ("bearer", "@")], json!({})).await.unwrap();
    assert_eq!((header(&arrived, "x-key"), header(&arrived, "authorization")), ("a-t0ken-b", "Bearer t0ken"));
    let document = document("3.0.3", &operation, &components);
    for scheme in ["q", "basic"] {
        let auth = [(scheme.to_owned(), Credential::around_token(["".into(), "".into()]))];
        let outline = &document.operations("s")[0];
        let error = document.describe(outline).unwrap().builder("", Some("http://a"), &auth).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`auth`: the scheme `{scheme}` is no header")), "{error}");
    }
}
