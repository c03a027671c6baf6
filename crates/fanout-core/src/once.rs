//! The row that keeps a call from being carried out twice.
//!
//! From the program: in which database the journal is. To tools whose own database that is: texts that they run in the very
//! transaction that does their work, so that a call and its outcome are kept together or not at all. A second attempt at the
//! call, after a crash say, finds the row and answers with it.
//!
//! Nothing is connected to and nothing is run here: these are texts, and the JSON of outputs.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::outcome::{Content, Output};

/// Where outcomes are kept, and the words for it. The journal makes the table (`fanout.outcome`, in SQLite `fanout_outcome`:
/// `run`, `call`, `output`, all text, the first two its primary key). Each text is one statement whose parameters are texts, by number (`$1`, or `?1` for SQLite).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The journal's database, as [`ToolSpec::database`](crate::tool::ToolSpec::database) names it.
    pub database: Arc<str>,
    /// Puts an empty row for `$1`, the run, and `$2`, the call: the first thing of a transaction. One row of one text is
    /// its place; none is there if the call was carried out already. Waits for whoever is at it.
    pub claim: &'static str,
    /// Fills the row at the place `$1` with `$2`, the outcome: the last thing of the transaction.
    pub keep: &'static str,
    /// The outcome of `$1`, the run, and `$2`, the call: one row of one text, or none.
    pub find: &'static str,
}

impl Once {
    /// Outcomes in a SQLite of that name. A number is `?1` there: `$1` would be a name, counted by where it stands first.
    pub fn sqlite(database: impl Into<Arc<str>>) -> Self {
        Self {
            database: database.into(),
            claim: "insert into fanout_outcome (run, call, output) values (?1, ?2, '') \
                    on conflict do nothing returning json_array(run, call)",
            keep: "update fanout_outcome set output = ?2 where run = ?1 ->> 0 and call = ?1 ->> 1",
            find: "select output from fanout_outcome where run = ?1 and call = ?2",
        }
    }

    /// Outcomes in a PostgreSQL of that name.
    pub fn postgres(database: impl Into<Arc<str>>) -> Self {
        Self {
            database: database.into(),
            claim: "insert into fanout.outcome (run, call, output) values ($1, $2, '') \
                    on conflict do nothing returning ctid::text",
            // By its place and not by its key: a serializable transaction that looks into the index would clash with each
            // that puts a row beside it.
            keep: "update fanout.outcome set output = $2 where ctid = $1::tid",
            find: "select output from fanout.outcome where run = $1 and call = $2",
        }
    }

    /// Whether calls of a tool of this database are carried out once.
    pub fn holds_for(&self, database: Option<&str>) -> bool {
        database == Some(&*self.database)
    }
}

/// Outputs as the text of a row: what a call came to, or each call of an atomic plan in its order.
pub fn to_text(outputs: &[Output]) -> String {
    let content = |content: &Content| match content {
        Content::Text(text) => json!({ "text": &**text }),
        Content::Image { media_type, data } => json!({ "media_type": media_type, "data": &**data }),
    };
    let output = |output: &Output| {
        let mut all = Map::new();
        all.insert("content".to_owned(), output.content.iter().map(content).collect());
        all.extend(output.structured.clone().map(|structured| ("structured".to_owned(), structured)));
        all.insert("is_error".to_owned(), output.is_error.into());
        Value::Object(all)
    };
    Value::from_iter(outputs.iter().map(output)).to_string()
}

/// The outputs of a row's text; `None` if it is none of ours.
pub fn from_text(text: &str) -> Option<Vec<Output>> {
    let content = |content: &Value| {
        let field = |name: &str| content.get(name).and_then(Value::as_str);
        Some(match field("text") {
            Some(text) => Content::Text(text.into()),
            None => Content::Image { media_type: field("media_type")?.to_owned(), data: field("data")?.into() },
        })
    };
    let output = |output: &Value| {
        Some(Output {
            content: output.get("content")?.as_array()?.iter().map(content).collect::<Option<_>>()?,
            structured: output.get("structured").cloned(),
            is_error: output.get("is_error")?.as_bool()?,
        })
    };
    serde_json::from_str::<Value>(text).ok()?.as_array()?.iter().map(output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_the_same_after_its_time_in_a_row() {
        let picture = Content::Image { media_type: "image/png".to_owned(), data: "iVBOR".into() };
        let outputs = [
            Output::text(r#"{"z":1,"a":1.10}"#),
            Output { structured: Some(Value::Null), ..Output::text("null \u{0} \u{1f600}") },
            Output { content: vec![picture, Content::Text("".into())], structured: None, is_error: true },
            Output::json(json!({"rows": [{"id": 9_007_199_254_740_993_u64}], "count": 1})),
        ];
        assert_eq!(from_text(&to_text(&outputs)), Some(outputs.to_vec()));
        assert!(!to_text(&outputs).contains('\0'), "PostgreSQL has no such character");
        assert_eq!(from_text(&to_text(&[])), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_row_of_ours_is_no_output() {
        for text in ["", "{}", "[1]", r#"[{"content":[{"data":"x"}],"is_error":false}]"#, r#"[{"content":[]}]"#] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
