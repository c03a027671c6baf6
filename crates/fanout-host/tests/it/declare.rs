//! Declarations, added to texts as people write them.

use fanout_host::advice::Declaration;
use fanout_host::declare::{Addition, Home, declare};

fn of_tool(name: &str, declaration: Declaration) -> Addition {
    Addition { home: Home::Tool(name.to_owned()), declaration }
}

fn of_source(kind: &'static str, name: &str, tool: &str, declaration: Declaration) -> Addition {
    Addition { home: Home::Source { kind, name: name.to_owned(), tool: tool.to_owned() }, declaration }
}

fn writes(key: &str) -> Declaration {
    Declaration { reads: None, writes: Some(vec![key.to_owned()]) }
}

fn reads(key: &str) -> Declaration {
    Declaration { reads: Some(vec![key.to_owned()]), writes: Some(Vec::new()) }
}

#[track_caller]
fn check(text: &str, additions: &[Addition], written: &str) {
    let new = declare(text, additions).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(new, written);
    assert_eq!(declare(&new, additions).unwrap(), new, "a second time there is nothing to add");
}

#[test]
fn a_tool_gets_its_lines_where_it_stands() {
    let text = "# the shop\n[[tool]]\n  name   = 'get_order' # by id\n  http   = { method = \"GET\",   url = \"http://a\" }\n\n\
                # notes\n[[tool]]\nname = \"add_note\"\n[tool.http]\nmethod = \"POST\"\nurl = \"http://a\" # the end";
    check(
        text,
        &[of_tool("get_order", reads("order/{id}")), of_tool("add_note", writes("note/{id}"))],
        "# the shop\n[[tool]]\n  name   = 'get_order' # by id\n  http   = { method = \"GET\",   url = \"http://a\" }\n\
         # proposed by fanout check: review\nreads = [\"order/{id}\"]\nwrites = []\n\n\
         # notes\n[[tool]]\nname = \"add_note\"\n# proposed by fanout check: review\nwrites = [\"note/{id}\"]\n\
         [tool.http]\nmethod = \"POST\"\nurl = \"http://a\" # the end\n",
    );
}

#[test]
fn a_source_gets_its_lines_however_it_is_written() {
    let order = || [of_source("openapi", "shop", "orders/create", writes("orders/*"))];
    let line = "# proposed by fanout check: review\ntools.\"orders/create\" = { writes = [\"orders/*\"] }\n";
    check(
        "[openapi.shop]\nspec = \"x\" # y\n\n[run]\n",
        &order(),
        &format!("[openapi.shop]\nspec = \"x\" # y\n{line}\n[run]\n"),
    );
    let said = "[openapi.shop]\n# why\ntools.\"a\" = { timeout = \"1s\" } # slow\n";
    check(said, &order(), &format!("{said}{line}"));
    check(
        "[openapi.shop]\n# why\ntools.\"orders/create\" = { timeout = \"1s\" } # slow\nspec = \"x\"\n",
        &order(),
        "[openapi.shop]\n# why\n# proposed by fanout check: review\n\
         tools.\"orders/create\" = { timeout = \"1s\", writes = [\"orders/*\"] } # slow\nspec = \"x\"\n",
    );
    check(
        "[openapi.shop.tools.\"orders/create\"]\ntimeout = \"1s\"\n[openapi.shop]\nspec = \"x\"\n",
        &order(),
        "[openapi.shop.tools.\"orders/create\"]\ntimeout = \"1s\"\n# proposed by fanout check: review\nwrites = [\"orders/*\"]\n[openapi.shop]\nspec = \"x\"\n",
    );
    check(
        "[openapi]\nshop = { spec = \"x\" } # inline\n",
        &order(),
        "[openapi]\n# proposed by fanout check: review\nshop = { spec = \"x\", tools = { \"orders/create\" = { writes = [\"orders/*\"] } } } # inline\n",
    );
    check(
        "mcp_config = \".mcp.json\"\n\n[run]\nmax_turns = 3\n",
        &[of_source("mcp_servers", "my files", "write", writes("write/*"))],
        "mcp_config = \".mcp.json\"\n\n[run]\nmax_turns = 3\n\n[mcp_servers.\"my files\"]\n\
         # proposed by fanout check: review\ntools.write = { writes = [\"write/*\"] }\n",
    );
}

#[test]
fn tools_inside_of_braces_get_theirs_too() {
    check(
        "tool = [{ name = \"a\", command = { program = \"x\" } }, { name = \"b\", command = { program = \"y\" } }]\n",
        &[of_tool("b", writes("b/*"))],
        "# proposed by fanout check: review\n\
         tool = [{ name = \"a\", command = { program = \"x\" } }, { name = \"b\", command = { program = \"y\" }, writes = [\"b/*\"] }]\n",
    );
}

#[test]
fn line_ends_and_a_byte_order_mark_stay() {
    check(
        "\u{feff}[[tool]]\r\nname = \"a\"\r\n# end\r\n",
        &[of_tool("a", writes("a/*"))],
        "\u{feff}[[tool]]\r\nname = \"a\"\r\n# proposed by fanout check: review\r\nwrites = [\"a/*\"]\r\n# end\r\n",
    );
    let mixed = declare("[[tool]]\r\nname = \"a\"\n", &[of_tool("a", writes("a/*"))]).unwrap_err();
    assert!(mixed.to_string().contains("make them the same"), "{mixed}");
}

#[test]
fn what_was_said_stays_and_what_is_not_there_is_refused() {
    let said = "[[tool]]\nname = \"a\"\nreads = [\"mine\"]\n";
    check(said, &[of_tool("a", reads("x"))], &format!("{said}# proposed by fanout check: review\nwrites = []\n"));
    for (text, additions) in [
        ("", of_tool("a", writes("a"))),
        ("[[tool]]\nname = \"b\"\n", of_tool("a", writes("a"))),
        ("openapi = 3\n", of_source("openapi", "shop", "f", writes("a"))),
    ] {
        let error = declare(text, &[additions]).unwrap_err().to_string();
        assert!(error.contains("add it by hand"), "{error}");
    }
    assert!(declare("a = ", &[]).unwrap_err().to_string().starts_with("the file is not TOML"));
}
