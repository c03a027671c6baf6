//! A statement as its author wrote it, and the parameters in it.
//!
//! From the configuration: SQL with `:name` where an input goes. To `infer`, which reads what it touches, and to the
//! database, which is handed the values beside the text.
//!
//! Nothing is known here of what the SQL means; only what is text, name, comment and parameter in it.

use std::fmt;

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PostgreSQL's.
    Postgres,
    /// SQLite's.
    Sqlite,
}

/// One statement.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    dialect: Dialect,
    first_word: String,
    text: String,
    parameters: Vec<String>,
}

/// Why a text is no statement for a tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// There is nothing in it.
    #[error("the statement is empty")]
    Empty,
    /// There is more than one in it.
    #[error("there are two statements in one text; `statements = [\"…\", \"…\"]` runs them in one transaction")]
    Several,
    /// A quote or a comment has no end.
    #[error("{0} in the statement has no end")]
    Unclosed(&'static str),
    /// A parameter without a name.
    #[error("`{0}` in the statement is no named parameter; write `:name`, with the name of an input")]
    Unnamed(String),
    /// It would leave the transaction that every call runs in, or change the connection for the next one.
    #[error("`{0}` cannot be a tool: every call runs in a transaction of its own, and leaves its connection as it was")]
    NotInTransaction(String),
}

/// What begins a statement that ends the transaction, works only outside of one, or changes the connection.
const REFUSED: [&str; 25] = [
    "abort",
    "attach",
    "begin",
    "checkpoint",
    "cluster",
    "commit",
    "copy",
    "deallocate",
    "detach",
    "discard",
    "end",
    "execute",
    "listen",
    "load",
    "lock",
    "notify",
    "pragma",
    "prepare",
    "release",
    "reset",
    "rollback",
    "savepoint",
    "set",
    "start",
    "vacuum",
];

impl Statement {
    /// Reads a statement. A parameter is `:` and a name right behind it, outside of quotes and comments; `::type` is a cast.
    ///
    /// # Errors
    /// [`StatementError`] for what can be no statement of a tool, whatever the database.
    pub fn parse(dialect: Dialect, text: &str) -> Result<Self, StatementError> {
        let mut reader =
            Reader { dialect, text, at: 0, out: String::with_capacity(text.len()), parameters: Vec::new() };
        let end = reader.read()?;
        let (out, parameters) = (reader.out.trim(), reader.parameters);
        let first: String = end.first_word.to_ascii_lowercase();
        if end.is_empty {
            return Err(StatementError::Empty);
        }
        if REFUSED.contains(&first.as_str()) {
            return Err(StatementError::NotInTransaction(end.first_word));
        }
        Ok(Self { dialect, first_word: first, text: out.to_owned(), parameters })
    }

    /// Whose SQL it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The SQL, with `$1` (PostgreSQL) or `?1` (SQLite) in the place of the first parameter and so on.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The word that it begins with, in lower case.
    pub fn first_word(&self) -> &str {
        &self.first_word
    }

    /// Whether its first word says that it writes. Others may write too.
    pub fn plainly_writes(&self) -> bool {
        matches!(self.first_word(), "delete" | "insert" | "merge" | "replace" | "update")
    }

    /// The names of its parameters, each once, in the order of their numbers.
    pub fn parameters(&self) -> &[String] {
        &self.parameters
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    first_word: String,
    is_empty: bool,
}

struct Reader<'t> {
    dialect: Dialect,
    text: &'t str,
    at: usize,
    out: String,
    parameters: Vec<String>,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Copies so many bytes as they are.
    fn copy(&mut self, bytes: usize) {
        self.out.push_str(&self.text[self.at..self.at + bytes]);
        self.at += bytes;
    }

    fn read(&mut self) -> Result<Seen, StatementError> {
        let mut seen = Seen { is_empty: true, ..Seen::default() };
        while let Some(next) = self.rest().chars().next() {
            if self.comment()? || self.quoted()? {
                continue;
            }
            if next == ';' {
                return self.only_space_follows().map(|()| seen);
            }
            if !next.is_whitespace() {
                seen.is_empty = false;
            }
            if is_start(next) {
                let word = self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len());
                if seen.first_word.is_empty() {
                    seen.first_word = self.rest()[..word].to_owned();
                }
                // `E'…'`, `x'…'`: what comes next is a quote with a prefix.
                self.copy(word);
            } else if next.is_ascii_digit() {
                // A number goes on as a name does, so that `1e5` holds no word.
                let number = self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len());
                self.copy(number);
            } else {
                self.other(next)?;
            }
        }
        Ok(seen)
    }

    /// A parameter, or a character that means nothing here.
    fn other(&mut self, next: char) -> Result<(), StatementError> {
        let rest = self.rest();
        if rest.starts_with("::") {
            self.copy(2);
            return Ok(());
        }
        let after = &rest[next.len_utf8()..];
        let name = after.find(|c| !is_part(c)).map_or(after, |end| &after[..end]);
        let sqlite = self.dialect == Dialect::Sqlite;
        if next == ':' && name.starts_with(is_start) {
            self.at += 1 + name.len();
            let known = self.parameters.iter().position(|known| known == name);
            let number = known.unwrap_or_else(|| {
                self.parameters.push(name.to_owned());
                self.parameters.len() - 1
            });
            self.out.push_str(&format!("{}{}", if sqlite { '?' } else { '$' }, number + 1));
            return Ok(());
        }
        let numbered = name.starts_with(|c: char| c.is_ascii_digit());
        let is_parameter = match next {
            // In PostgreSQL `?` is an operator of jsonb.
            '?' | '@' => sqlite,
            '$' => numbered || sqlite && !name.is_empty(),
            ':' => numbered && sqlite,
            _ => false,
        };
        if is_parameter {
            return Err(StatementError::Unnamed(format!("{next}{name}")));
        }
        self.copy(next.len_utf8());
        Ok(())
    }

    /// A comment is left out; a space stands in its place.
    fn comment(&mut self) -> Result<bool, StatementError> {
        let rest = self.rest();
        if rest.starts_with("--") {
            self.at += rest.find('\n').unwrap_or(rest.len());
            return Ok(true);
        }
        if !rest.starts_with("/*") {
            return Ok(false);
        }
        let (mut depth, mut at) = (1_usize, 2);
        while depth > 0 {
            let left = &rest[at..];
            let end = left.find("*/").ok_or(StatementError::Unclosed("a comment"))?;
            // Only PostgreSQL's comments hold comments.
            match left.find("/*").filter(|begin| *begin < end && self.dialect == Dialect::Postgres) {
                Some(begin) => (depth, at) = (depth + 1, at + begin + 2),
                None => (depth, at) = (depth - 1, at + end + 2),
            }
        }
        self.at += at;
        self.out.push(' ');
        Ok(true)
    }

    /// A text or a quoted name is copied, whatever stands in it.
    fn quoted(&mut self) -> Result<bool, StatementError> {
        let rest = self.rest();
        let sqlite = self.dialect == Dialect::Sqlite;
        let (end, what) = match rest.as_bytes().first() {
            Some(b'\'') => {
                let escapes = !sqlite && self.follows_escape_prefix();
                (closing(rest, b'\'', escapes), "a text")
            }
            Some(b'"') => (closing(rest, b'"', false), "a quoted name"),
            Some(b'`') if sqlite => (closing(rest, b'`', false), "a quoted name"),
            Some(b'[') if sqlite => (rest.find(']').map(|end| end + 1), "a quoted name"),
            Some(b'$') if !sqlite => {
                let Some(tag) = dollar_tag(rest) else { return Ok(false) };
                (rest[tag..].find(&rest[..tag]).map(|end| tag + end + tag), "a text")
            }
            _ => return Ok(false),
        };
        self.copy(end.ok_or(StatementError::Unclosed(what))?);
        Ok(true)
    }

    /// Whether an `E` stands right before, alone: then a backslash keeps a quote from ending the text.
    fn follows_escape_prefix(&self) -> bool {
        let mut before = self.text[..self.at].chars().rev();
        matches!(before.next(), Some('e' | 'E')) && !before.next().is_some_and(is_part)
    }

    fn only_space_follows(&mut self) -> Result<(), StatementError> {
        self.at += 1;
        while let Some(next) = self.rest().chars().next() {
            if self.comment()? {
                continue;
            }
            if !next.is_whitespace() && next != ';' {
                return Err(StatementError::Several);
            }
            self.at += next.len_utf8();
        }
        Ok(())
    }
}

/// The length of a quoted text with its quotes; a doubled quote is one of its characters.
fn closing(text: &str, quote: u8, escapes: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if escapes && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return Some(at + 1);
        }
    }
    None
}

/// The length of `$$` or `$tag$` that a text begins with.
fn dollar_tag(text: &str) -> Option<usize> {
    let tag = text.strip_prefix('$')?;
    let end = tag.find('$')?;
    let name = &tag[..end];
    let fits = name.is_empty() || name.starts_with(is_start) && name.chars().all(|c| is_part(c) && c != '$');
    fits.then_some(end + 2)
}

fn is_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dialect: Dialect, text: &str, read: &str, names: &[&str]) {
        let statement = Statement::parse(dialect, text).expect("it can be read");
        assert_eq!(statement.text(), read);
        assert_eq!(statement.parameters(), names);
    }

    #[test]
    fn a_name_behind_a_colon_is_a_parameter_and_counts_once() {
        for (text, read, names) in [
            ("select :a", "select $1", &["a"][..]),
            ("select :a, :b, :a;", "select $1, $2, $1", &["a", "b"]),
            ("select :a::int, x::text[]", "select $1::int, x::text[]", &["a"]),
            ("select a[1:2], a[i : j]", "select a[1:2], a[i : j]", &[]),
            ("select (:größe)", "select ($1)", &["größe"]),
            ("select x:=:y", "select x:=$1", &["y"]),
            ("select '{\"a\": 1}'::jsonb ? 'a'", "select '{\"a\": 1}'::jsonb ? 'a'", &[]),
        ] {
            check(Dialect::Postgres, text, read, names);
        }
        check(Dialect::Sqlite, "select :b, :a, :b", "select ?1, ?2, ?1", &["b", "a"]);
    }

    #[test]
    fn quotes_and_comments_hold_no_parameters() {
        for text in [
            "select ':a', 'it''s :b'",
            "select \":a\", \"x\"\":b\"",
            r"select E'\':a', e'\\', 1",
            "select $$:a$$, $x$ :b $$ $x$",
            "select nonE':a'",
        ] {
            check(Dialect::Postgres, text, text, &[]);
        }
        for text in ["select [:a], `:b`", r"select '\', 1"] {
            check(Dialect::Sqlite, text, text, &[]);
        }
        check(Dialect::Postgres, "select 1 -- :a\n, /* :b /* :c */ :d */ :e", "select 1 \n,   $1", &["e"]);
        check(Dialect::Sqlite, "select /* /* :a */ :b", "select   ?1", &["b"]);
    }

    #[test]
    fn what_can_be_no_tool_is_refused_with_the_reason() {
        use StatementError::{Empty, NotInTransaction, Several, Unclosed, Unnamed};
        for (dialect, text, error) in [
            (Dialect::Postgres, " -- nothing\n ; ", Empty),
            (Dialect::Postgres, "", Empty),
            (Dialect::Postgres, "select 1; select 2", Several),
            (Dialect::Postgres, "select 'a", Unclosed("a text")),
            (Dialect::Postgres, "select $x$ a $y$", Unclosed("a text")),
            (Dialect::Postgres, "select 1 /* /* */", Unclosed("a comment")),
            (Dialect::Postgres, "select \"a", Unclosed("a quoted name")),
            (Dialect::Postgres, "select $1", Unnamed("$1".to_owned())),
            (Dialect::Sqlite, "select ?", Unnamed("?".to_owned())),
            (Dialect::Sqlite, "select @a", Unnamed("@a".to_owned())),
            (Dialect::Sqlite, "select $a", Unnamed("$a".to_owned())),
            (Dialect::Sqlite, "select :1", Unnamed(":1".to_owned())),
            (Dialect::Postgres, "/* x */ Commit", NotInTransaction("Commit".to_owned())),
            (Dialect::Postgres, "set role admin", NotInTransaction("set".to_owned())),
            (Dialect::Sqlite, "pragma user_version", NotInTransaction("pragma".to_owned())),
        ] {
            assert_eq!(Statement::parse(dialect, text), Err(error), "{text}");
        }
        check(Dialect::Postgres, "select 1; -- done\n;", "select 1", &[]);
    }
}
