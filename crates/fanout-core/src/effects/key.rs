//! A resource key: a path of segments, kept as one text.
//!
//! `orders/7` is one resource, `orders/*` it and all below `orders`, `*` everything. Within a segment `/` is written
//! `%2F` and `%` is `%25`, and a segment that is `*` itself is `%2A`, so the text reads back as the same path.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The mark that a key stands for everything below it.
const SUBTREE: &str = "*";

/// One resource, or one and all below it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of exactly this path. Segments are values: whatever characters they hold, each stays one segment.
    pub fn exact<'a>(segments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = String::new();
        for (depth, segment) in segments.into_iter().enumerate() {
            if depth > 0 {
                text.push('/');
            }
            text.push_str(&escape(segment));
        }
        Self(text.into())
    }

    /// The key from its own text, as [`fmt::Display`] prints it.
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether it covers everything below its path.
    pub fn is_subtree(&self) -> bool {
        &*self.0 == SUBTREE || self.0.ends_with("/*")
    }

    /// The escaped segments of its path, without the mark of a subtree.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        let path = self.path();
        // `split` gives one empty segment for an empty path, which is how the key of everything is told apart.
        path.split('/').take(if path.is_empty() && self.is_subtree() { 0 } else { usize::MAX })
    }

    /// Whether the two can be the same resource: equal, or one covers the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether everything that `other` can be is also this.
    pub fn covers(&self, other: &Self) -> bool {
        if !self.is_subtree() {
            return self.0 == other.0;
        }
        let (above, below) = (self.path(), other.path());
        above.is_empty() || above == below || below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The key of all that stands beside what this is: `orders/*` for `orders/7`, and for `orders/*` everything.
    #[must_use]
    pub(crate) fn widened(&self) -> Self {
        let path = self.path();
        match path.rsplit_once('/') {
            Some((above, _)) => Self::from_text(&format!("{above}/*")),
            None => Self::from_text(SUBTREE),
        }
    }

    /// The key that [`Key::as_str`] printed.
    pub fn printed(text: &str) -> Self {
        Self(text.into())
    }

    /// The key as text: what people see, and what a declaration would say.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn path(&self) -> &str {
        if !self.is_subtree() {
            return &self.0;
        }
        let end = self.0.len() - SUBTREE.len();
        self.0[..end].strip_suffix('/').unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value as one segment of a key's text.
pub(super) fn escape(segment: &str) -> Cow<'_, str> {
    if segment == SUBTREE {
        return Cow::Borrowed("%2A");
    }
    if !segment.contains(['/', '%']) {
        return Cow::Borrowed(segment);
    }
    Cow::Owned(segment.replace('%', "%25").replace('/', "%2F"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, overlap: bool) {
        let (a, b) = (Key::from_text(a), Key::from_text(b));
        assert_eq!(a.overlaps(&b), overlap, "{a} and {b}");
        assert_eq!(b.overlaps(&a), overlap, "{b} and {a}");
    }

    #[test]
    fn keys_overlap_when_equal_or_when_one_is_a_subtree_above_the_other() {
        check("orders/7", "orders/7", true);
        check("orders/7", "orders/8", false);
        check("orders/*", "orders/7", true);
        check("orders/*", "orders", true);
        check("orders/*", "orders/7/items", true);
        check("orders/*", "orders2/7", false);
        check("orders/*", "orders/7/*", true);
        check("orders/7/*", "orders/8/*", false);
        check("orders", "orders/7", false);
        check("*", "anything", true);
        check("*", "", true);
        check("*", "*", true);
    }

    #[test]
    fn a_value_is_one_segment_whatever_it_holds() {
        let key = Key::exact(["orders", "a/b*%"]);
        assert_eq!(key.as_str(), "orders/a%2Fb*%25");
        assert_eq!(key.segments().count(), 2);
        assert!(!Key::exact(["orders", "*"]).is_subtree());
        check(Key::exact(["orders", "*"]).as_str(), "orders/7", false);
    }

    #[test]
    fn the_key_of_everything_has_no_segments() {
        assert_eq!(Key::from_text("*").segments().count(), 0);
        assert_eq!(Key::from_text("").segments().count(), 1);
        assert_eq!(Key::from_text("orders/*").segments().collect::<Vec<_>>(), ["orders"]);
    }
}
