//! `[[notify]]`: who is told what happened.
//!
//! From the page. To [`notify`](crate::notify), which tells them. Nothing is sent here, and no secret is read.

use super::field::Field;
use super::keys::Kind;
use super::page::{Section, Spot};
use super::setting::Setting;
use crate::notify::NoticeKind;

/// One address.
#[derive(Clone, Debug)]
pub struct NotifyConfig {
    /// Where notices are sent.
    pub url: Setting,
    /// What they are signed with.
    pub secret: Setting,
    /// What is told; never empty.
    pub kinds: Vec<NoticeKind>,
}

impl NotifyConfig {
    /// Whether another one says the same, wherever it stands.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.url.is_like(&other.url) && self.secret.is_like(&other.secret) && self.kinds == other.kinds
    }
}

/// Reads every `[[notify]]`; those with mistakes that leave nothing to go on with are left out.
pub(super) fn read_all(top: &Section<'_>) -> Vec<NotifyConfig> {
    let tables = top.get("notify").map(|field| field.tables()).unwrap_or_default();
    (1..).zip(&tables).filter_map(|(number, field)| read(number, field)).collect()
}

fn read(number: usize, field: &Field<'_>) -> Option<NotifyConfig> {
    let section = field.section(format!("[[notify]] number {number}"), Kind::Notify)?;
    let url = section.get("url").and_then(|field| {
        let url = field.setting()?;
        let is_address = url.literal().is_none_or(|text| text.starts_with("https://") || text.starts_with("http://"));
        if !is_address {
            // What stands there may be a secret, so it is not shown.
            field.mistake("`url` must be an address such as \"https://example.com/hook\"");
        }
        is_address.then_some(url)
    });
    let secret = section.get("secret").and_then(|field| {
        let secret = field.setting()?;
        let is_empty = secret.literal().is_some_and(|text| text.trim().is_empty());
        if is_empty {
            field.mistake("`secret` is empty: anybody could sign with it");
        }
        (!is_empty).then_some(secret)
    });
    let kinds = match section.get("events") {
        Some(field) => kinds(&field)?,
        None => NoticeKind::ALL.to_vec(),
    };
    section.finish();
    for key in ["url", "secret"] {
        if section.spot_of(key).is_none() {
            field.mistake(format!("{} needs a `{key}`", section.name));
        }
    }
    Some(NotifyConfig { url: url?, secret: secret?, kinds })
}

fn kinds(field: &Field<'_>) -> Option<Vec<NoticeKind>> {
    let kind = |(text, spot): (&str, Spot)| {
        let kind = NoticeKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        if kind.is_none() {
            let all = NoticeKind::ALL.map(|kind| format!("\"{}\"", kind.as_str())).join(", ");
            field.page.mistake(&spot, format!("`events` takes {all}, not \"{text}\""));
        }
        kind
    };
    let listed = field.strings()?;
    if listed.is_empty() {
        field.mistake("`events` is empty, so nobody would be told anything; take the [[notify]] away");
    }
    Some(listed.into_iter().filter_map(kind).collect())
}
