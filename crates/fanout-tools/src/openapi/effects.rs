//! Finer effects for an operation, proposed for a person to review.
//!
//! From the template of its path, with the input's own field names. To `check`, which prints the line.
//!
//! `/orders/{id}` and all below it is `orders/{id}/*`, and `/orders` is `orders/*`: an element and its collection must meet at
//! one key, so what follows the last field is left out, and a path without a field is all below its first word. Nobody acts
//! on a proposal: what an operation really touches, only its author knows.

/// The key of what a path names; `None` where it names nothing.
pub(super) fn proposed_key(path: &str) -> Option<String> {
    let mut segments: Vec<&str> =
        path.split(['?', '#']).next()?.split('/').filter(|segment| !segment.is_empty()).collect();
    while segments.first().is_some_and(|first| is_prefix(first)) {
        segments.remove(0);
    }
    let kept = segments.iter().rposition(|segment| segment.contains('{')).map_or(1, |last| last + 1);
    segments.truncate(kept);
    if segments.is_empty() {
        return None;
    }
    let key = |segment: &&str| match (segment.find('{'), segment.find('}')) {
        (Some(open), Some(close)) if open < close => segment[open..=close].to_owned(),
        _ => segment.replace(['{', '}', '*'], "_"),
    };
    let mut keys: Vec<String> = segments.iter().map(key).collect();
    keys.push("*".to_owned());
    Some(keys.join("/"))
}

/// Whether a segment is about the API as a whole: `api`, `v1`, `2.0`.
fn is_prefix(segment: &str) -> bool {
    let number = segment.strip_prefix(['v', 'V']).unwrap_or(segment);
    segment == "api" || (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_and_its_collection_meet_at_one_key() {
        for (path, key) in [
            ("/orders", Some("orders/*")),
            ("/orders/search", Some("orders/*")),
            ("/orders/{id}", Some("orders/{id}/*")),
            ("/orders/{id}/items", Some("orders/{id}/*")),
            ("/orders/{id}/items/{item}/move", Some("orders/{id}/items/{item}/*")),
            ("/v1/orders/{id}.json", Some("orders/{id}/*")),
            ("/api/v2.1/orders?x={x}", Some("orders/*")),
            ("/{id}", Some("{id}/*")),
            ("/v1", None),
            ("/", None),
        ] {
            assert_eq!(proposed_key(path).as_deref(), key, "{path}");
        }
    }
}
