//! A template: the text that makes keys from an input.
//!
//! `orders/{id}` is one key, `orders/{order.id}` looks inside an object, `inventory/{skus}` over an array is one key per
//! element, `file/{path...}` splits a path into segments, `orders/*` is everything below. Where the input has no scalar
//! for a field, the key ends there and covers all below: an unknown value can only make a call wait longer.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::key::{Key, escape};
use super::row::{Canonical, Cell};

/// More keys than this from one call are cut at their arrays: one call cannot flood the index, which keeps every key of
/// every call that runs. The number is the design's.
pub const KEYS_MAX: usize = 1_000;

/// Most keys are shorter than this, so that making one allocates its buffer once.
const KEY_BYTES: usize = 64;

/// How paths of the input become keys.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The folder that relative paths start from; paths inside it become relative to it. `None`: paths are taken as
    /// they are written.
    pub root: Option<String>,
}

/// What arrays in the input do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrays {
    /// One key per element.
    Each,
    /// The key ends there and covers all below.
    Cut,
}

/// A parsed template. [`fmt::Display`] prints its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    segments: Vec<Segment>,
    subtree: bool,
    /// Its one key, where it looks up no field.
    fixed: Option<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Already escaped.
    Literal(String),
    /// Pieces that together are one segment.
    Pieces(Vec<Piece>),
    /// A field whose path becomes any number of segments.
    Path(Field),
    /// A field that holds a value of a primary key, or with `each` an array of them.
    Cell { field: Field, form: Canonical, each: bool },
}

impl Segment {
    fn fields(&self) -> impl Iterator<Item = &Field> {
        let (path, pieces) = match self {
            Self::Literal(_) => (None, [].as_slice()),
            Self::Pieces(pieces) => (None, pieces.as_slice()),
            Self::Path(field) | Self::Cell { field, .. } => (Some(field), [].as_slice()),
        };
        let in_pieces = pieces.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field),
            Piece::Literal(_) => None,
        });
        path.into_iter().chain(in_pieces)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(Field),
}

type Field = Vec<String>;

/// Why a text is not a template. Each names the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing is in it.
    #[error("an effect must name a resource, as in `orders/{{id}}`")]
    Empty,
    /// A brace without its partner, or `{}`.
    #[error("`{0}`: a `{{` needs a field name and a `}}`, as in `orders/{{id}}`")]
    Brace(String),
    /// A `*` that is not the last segment.
    #[error("`{0}`: `*` can only be the last segment, as in `orders/*`")]
    Star(String),
    /// Something follows `{path...}`, or stands beside it.
    #[error("`{0}`: a `{{path...}}` must be a segment of its own, and the last but for `/*`")]
    PathNotLast(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Says which part of the text cannot be read, and how it would be right.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut parts: Vec<&str> = text.split('/').collect();
        let subtree = parts.last() == Some(&"*");
        if subtree {
            parts.pop();
        }
        if parts.contains(&"*") {
            return Err(TemplateError::Star(text.to_owned()));
        }
        let last = parts.len().saturating_sub(1);
        let mut segments = Vec::with_capacity(parts.len());
        for (at, part) in parts.into_iter().enumerate() {
            let segment = parse_segment(part).ok_or_else(|| TemplateError::Brace(text.to_owned()))?;
            let splits = matches!(&segment, Segment::Pieces(_)) && part.contains("...}");
            if splits || (matches!(segment, Segment::Path(_)) && at != last) {
                return Err(TemplateError::PathNotLast(text.to_owned()));
            }
            segments.push(segment);
        }
        Ok(Self::new(text.to_owned(), segments, subtree))
    }

    /// The template that always makes this key.
    pub fn of_key(key: &Key) -> Self {
        let segments = key.segments().map(|segment| Segment::Literal(segment.to_owned())).collect();
        Self::new(key.to_string(), segments, key.is_subtree())
    }

    /// The template of rows: the path of their table, then one segment per column of the primary key. No cells: all of it.
    ///
    /// A value that names a row in a way that is not its column's only one ([`Canonical`]) cuts the key there, and so does an
    /// array where [`Cell::One`] stands, and anything else where [`Cell::Each`] does.
    pub fn row(table: &[&str], cells: &[Cell<'_>]) -> Self {
        let subtree = cells.is_empty();
        let table = table.iter().map(|part| Segment::Literal(escape(part).into_owned()));
        let cells = cells.iter().map(|cell| match *cell {
            Cell::Value(text) => Segment::Literal(escape(text).into_owned()),
            Cell::One { field, form } => Segment::Cell { field: vec![field.to_owned()], form, each: false },
            Cell::Each { field, form } => Segment::Cell { field: vec![field.to_owned()], form, each: true },
        });
        let segments: Vec<Segment> = table.chain(cells).collect();
        let shown = |segment: &Segment| match segment {
            Segment::Literal(text) => text.clone(),
            other => other.fields().map(|field| format!("{{{}}}", field.join("."))).collect(),
        };
        let mut shown: Vec<String> = segments.iter().map(shown).collect();
        shown.extend(subtree.then(|| "*".to_owned()));
        Self::new(shown.join("/"), segments, subtree)
    }

    fn new(text: String, segments: Vec<Segment>, subtree: bool) -> Self {
        let mut template = Self { text, segments, subtree, fixed: None };
        let mut only = None;
        if template.fields().next().is_none() {
            template.render(&Value::Null, &Paths::default(), Arrays::Cut, &mut |key| {
                only = Some(key);
                true
            });
        }
        template.fixed = only;
        template
    }

    /// The first segment of every field that the template looks up, for checking it against a schema.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().flat_map(Segment::fields).filter_map(|field| field.first()).map(String::as_str)
    }

    /// Hands every key that the input makes to `emit`, until it answers `false`.
    pub(super) fn render(&self, input: &Value, paths: &Paths, arrays: Arrays, emit: &mut dyn FnMut(Key) -> bool) {
        if let Some(key) = &self.fixed {
            emit(key.clone());
            return;
        }
        let mut prefix = String::with_capacity(KEY_BYTES);
        Rendering { template: self, input, paths, arrays, emit }.segment(0, &mut prefix);
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_segment(part: &str) -> Option<Segment> {
    if !part.contains(['{', '}']) {
        return Some(Segment::Literal(escape(part).into_owned()));
    }
    if let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix("...}"))
        && !name.contains(['{', '}'])
    {
        return parse_field(name).map(Segment::Path);
    }
    let mut pieces = Vec::new();
    let mut rest = part;
    while !rest.is_empty() {
        let open = rest.find('{').unwrap_or(rest.len());
        let (literal, field) = rest.split_at(open);
        if literal.contains('}') {
            return None;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(escape(literal).into_owned()));
        }
        if field.is_empty() {
            break;
        }
        let close = field.find('}')?;
        pieces.push(Piece::Field(parse_field(field[1..close].trim_end_matches("..."))?));
        rest = &field[close + 1..];
    }
    Some(Segment::Pieces(pieces))
}

fn parse_field(name: &str) -> Option<Field> {
    let field: Field = name.split('.').map(str::to_owned).collect();
    field.iter().all(|part| !part.is_empty() && !part.contains('{')).then_some(field)
}

/// One walk over the segments; arrays branch it.
struct Rendering<'a> {
    template: &'a Template,
    input: &'a Value,
    paths: &'a Paths,
    arrays: Arrays,
    emit: &'a mut dyn FnMut(Key) -> bool,
}

impl Rendering<'_> {
    /// Renders from segment `at` on, after `prefix`. Answers `false` once `emit` wants no more.
    fn segment(&mut self, at: usize, prefix: &mut String) -> bool {
        let template = self.template;
        let Some(segment) = template.segments.get(at) else {
            return if template.subtree { self.cut(prefix) } else { (self.emit)(Key::from_text(prefix)) };
        };
        let length = prefix.len();
        if at > 0 {
            prefix.push('/');
        }
        let go_on = match segment {
            Segment::Literal(text) => {
                prefix.push_str(text);
                self.segment(at + 1, prefix)
            }
            Segment::Pieces(pieces) => self.pieces(at, pieces, length, prefix),
            Segment::Path(field) => self.values(field, length, prefix, &mut |this, prefix, text| {
                if push_path(prefix, text, this.paths) == 0 {
                    prefix.truncate(length);
                }
                let go_on = this.segment(at + 1, prefix);
                prefix.truncate(length);
                if at > 0 {
                    prefix.push('/');
                }
                go_on
            }),
            Segment::Cell { field, form, each } => self.cells(field, (*form, *each), length, prefix, at),
        };
        prefix.truncate(length);
        go_on
    }

    /// The rows that a field names. A value that is not the one way to write it cuts the key where its segment began.
    fn cells(
        &mut self,
        field: &[String],
        (form, each): (Canonical, bool),
        start: usize,
        prefix: &mut String,
        at: usize,
    ) -> bool {
        let value = field.iter().try_fold(self.input, |value, name| value.get(name.as_str()));
        let elements = match value {
            Some(Value::Array(elements)) if each && self.arrays == Arrays::Each => elements.as_slice(),
            Some(value) if !each => std::slice::from_ref(value),
            _ => return self.cut_at(start, prefix),
        };
        for element in elements {
            let before = prefix.len();
            let go_on = match form.text_of(element) {
                Some(text) => {
                    prefix.push_str(&escape(&text));
                    self.segment(at + 1, prefix)
                }
                None => self.cut_at(start, prefix),
            };
            prefix.truncate(before);
            if !go_on {
                return false;
            }
        }
        true
    }

    fn pieces(&mut self, at: usize, pieces: &[Piece], start: usize, prefix: &mut String) -> bool {
        let Some((first, rest)) = pieces.split_first() else {
            return self.segment(at + 1, prefix);
        };
        let before = prefix.len();
        match first {
            Piece::Literal(text) => {
                prefix.push_str(text);
                let go_on = self.pieces(at, rest, start, prefix);
                prefix.truncate(before);
                go_on
            }
            Piece::Field(field) => self.values(field, start, prefix, &mut |this, prefix, text| {
                let before = prefix.len();
                // Alone in its segment a `*` is a value like any other; beside other text it needs no care.
                prefix.push_str(&escape(text));
                let go_on = this.pieces(at, rest, start, prefix);
                prefix.truncate(before);
                go_on
            }),
        }
    }

    /// Calls `then` with the text of the field's value, or of each element of it. Without a value the key is cut where
    /// its segment began.
    fn values(
        &mut self,
        field: &[String],
        start: usize,
        prefix: &mut String,
        then: &mut dyn FnMut(&mut Self, &mut String, &str) -> bool,
    ) -> bool {
        let value = field.iter().try_fold(self.input, |value, name| value.get(name.as_str()));
        let elements = match value {
            Some(Value::Array(elements)) if self.arrays == Arrays::Each => elements.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => return self.cut_at(start, prefix),
        };
        for element in elements {
            let go_on = match scalar_text(element) {
                Some(text) => then(self, prefix, &text),
                None => self.cut_at(start, prefix),
            };
            if !go_on {
                return false;
            }
        }
        true
    }

    fn cut_at(&mut self, start: usize, prefix: &mut String) -> bool {
        let tail = prefix.split_off(start);
        let go_on = self.cut(prefix);
        prefix.push_str(&tail);
        go_on
    }

    fn cut(&mut self, prefix: &str) -> bool {
        let text = if prefix.is_empty() { Cow::Borrowed("*") } else { Cow::Owned(format!("{prefix}/*")) };
        (self.emit)(Key::from_text(&text))
    }
}

/// A scalar as the text of a segment: `7` and `"7"` are one resource, and so is `7.0`, which JSON Schema calls an integer.
pub(super) fn scalar_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT_FLOAT_MAX => {
                Cow::Owned(format!("{float:.0}"))
            }
            _ => Cow::Owned(number.to_string()),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Below this a float holds every integer exactly (2^53).
const EXACT_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// Appends a path as segments, `.` and `..` resolved, relative to the root where it lies inside; answers how many.
/// An absolute path starts with an empty segment.
fn push_path(prefix: &mut String, path: &str, paths: &Paths) -> usize {
    let root: Vec<&str> = paths.root.iter().flat_map(|root| root.split('/')).filter(|part| !part.is_empty()).collect();
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = if absolute { Vec::new() } else { root.clone() };
    let rooted = absolute || paths.root.is_some();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let inside = paths.root.is_some() && parts.starts_with(&root);
    let shown = if inside { &parts[root.len()..] } else { &parts[..] };
    let lead = if rooted && !inside { Some("") } else { None };
    let mut depth = 0;
    for part in lead.into_iter().chain(shown.iter().copied()) {
        if depth > 0 {
            prefix.push('/');
        }
        prefix.push_str(&escape(part));
        depth += 1;
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str, input: &Value, root: Option<&str>) -> String {
        let template = Template::parse(template).unwrap();
        let mut keys = Vec::new();
        let paths = Paths { root: root.map(str::to_owned) };
        template.render(input, &paths, Arrays::Each, &mut |key| {
            keys.push(key.to_string());
            true
        });
        keys.join(" ")
    }

    #[track_caller]
    fn check(template: &str, input: Value, keys: &str) {
        assert_eq!(render(template, &input, None), keys);
    }

    #[test]
    fn a_field_becomes_one_segment() {
        check("orders/{id}", json!({"id": "7"}), "orders/7");
        check("orders/{id}", json!({"id": 7}), "orders/7");
        check("orders/{id}", json!({"id": 7.0}), "orders/7");
        check("orders/{id}", json!({"id": 7.5}), "orders/7.5");
        check("orders/{id}", json!({"id": true}), "orders/true");
        check("orders/{id}", json!({"id": "a/b"}), "orders/a%2Fb");
        check("orders/{id}", json!({"id": "*"}), "orders/%2A");
        check("orders/{order.id}/items", json!({"order": {"id": 7}}), "orders/7/items");
        check("users/u-{id}", json!({"id": 7}), "users/u-7");
        check("{a}-{b}", json!({"a": 1, "b": 2}), "1-2");
    }

    #[test]
    fn an_unknown_value_cuts_the_key_there() {
        check("orders/{id}/items", json!({}), "orders/*");
        check("orders/{id}/items", json!({"id": null}), "orders/*");
        check("orders/{id}/items", json!({"id": {"$ref": "a#/id"}}), "orders/*");
        check("users/u-{id}", json!({}), "users/*");
        check("{id}/x", json!({}), "*");
        check("a/{x}/{y}", json!({"x": 1}), "a/1/*");
    }

    #[test]
    fn an_array_makes_one_key_per_element() {
        check("orders/{ids}", json!({"ids": [1, "2"]}), "orders/1 orders/2");
        check("orders/{ids}", json!({"ids": []}), "");
        check("orders/{ids}", json!({"ids": [1, {"$ref": "a#/id"}]}), "orders/1 orders/*");
        check("a/{x}/{y}", json!({"x": [1, 2], "y": [3, 4]}), "a/1/3 a/1/4 a/2/3 a/2/4");
    }

    #[test]
    fn a_path_becomes_segments_relative_to_the_root() {
        check("file/{path...}", json!({"path": "./src/../src//a.rs"}), "file/src/a.rs");
        check("file/{path...}", json!({"path": "/etc/passwd"}), "file//etc/passwd");
        check("file/{path...}", json!({"path": "../x"}), "file/../x");
        check("file/{path...}", json!({}), "file/*");
        check("file/{path...}", json!({"path": "."}), "file");
        check("file/{path...}/*", json!({"path": "src"}), "file/src/*");
        let rooted = |path: &str| render("file/{path...}", &json!({ "path": path }), Some("/w/repo"));
        assert_eq!(rooted("src/a.rs"), "file/src/a.rs");
        assert_eq!(rooted("/w/repo/src/a.rs"), "file/src/a.rs");
        assert_eq!(rooted("../other/a.rs"), "file//w/other/a.rs");
        assert_eq!(rooted("/etc/passwd"), "file//etc/passwd");
        assert_eq!(rooted("../../../../etc"), "file//etc");
    }

    #[test]
    fn a_subtree_is_written_with_a_star() {
        check("orders/*", json!({}), "orders/*");
        check("*", json!({}), "*");
        check("orders/{id}/*", json!({"id": 7}), "orders/7/*");
    }

    #[test]
    fn a_row_is_named_by_the_one_way_to_write_its_key_and_by_nothing_else() {
        let one = |form| Cell::One { field: "id", form };
        let each = |form| Cell::Each { field: "id", form };
        let check = |cell: Cell<'_>, id: Value, keys: &str| {
            let mut made = Vec::new();
            let template = Template::row(&["sql", "shop", "a/b"], &[Cell::Value("*"), cell]);
            template.render(&json!({ "id": id }), &Paths::default(), Arrays::Each, &mut |key| {
                made.push(key.to_string());
                true
            });
            let expected: Vec<String> =
                keys.split_whitespace().map(|key| format!("sql/shop/a%2Fb/%2A/{key}")).collect();
            assert_eq!(made, expected, "{cell:?} {id}");
        };
        check(one(Canonical::Text), json!("x/y"), "x%2Fy");
        check(one(Canonical::Text), json!(7), "*");
        check(one(Canonical::Text), json!(["a"]), "*");
        check(one(Canonical::Text), json!(null), "*");
        check(one(Canonical::Integer), json!({"$ref": "a#/id"}), "*");
        check(each(Canonical::Integer), json!([1, "2", "02"]), "1 2 *");
        check(each(Canonical::Integer), json!("{1,2}"), "*");
        check(each(Canonical::Text), json!([]), "");
        let template = Template::row(&["sql", "shop", "t"], &[one(Canonical::Integer), Cell::Value("7")]);
        assert_eq!(template.to_string(), "sql/shop/t/{id}/7");
        assert_eq!(template.fields().collect::<Vec<_>>(), ["id"]);
        let all = Template::row(&["sql", "shop", "a/b"], &[]);
        assert_eq!(all, Template::of_key(&Key::from_text("sql/shop/a%2Fb/*")));
        let fixed = Template::row(&["sql", "shop", "t"], &[Cell::Value("7")]);
        assert_eq!(fixed, Template::of_key(&Key::exact(["sql", "shop", "t", "7"])));
    }

    #[test]
    fn a_mistake_is_named() {
        let error = |text: &str| Template::parse(text).unwrap_err();
        assert_eq!(error(""), TemplateError::Empty);
        assert_eq!(error("a/{x"), TemplateError::Brace("a/{x".into()));
        assert_eq!(error("a/}"), TemplateError::Brace("a/}".into()));
        assert_eq!(error("a/{}"), TemplateError::Brace("a/{}".into()));
        assert_eq!(error("a/{x..y}"), TemplateError::Brace("a/{x..y}".into()));
        assert_eq!(error("*/a"), TemplateError::Star("*/a".into()));
        assert_eq!(error("{p...}/a"), TemplateError::PathNotLast("{p...}/a".into()));
        assert_eq!(error("a-{p...}"), TemplateError::PathNotLast("a-{p...}".into()));
    }
}
