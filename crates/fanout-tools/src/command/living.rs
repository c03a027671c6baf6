//! Whether anybody of a process group is alive.
//!
//! From `group`: a group that is still there after its leader ended. To it: whether the dead alone are left, who do nothing
//! more. Their parent may be slow to bury them, or never do it: the first process of many containers does not.
//!
//! Only Linux tells. Elsewhere the dead count as alive.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Whether a process of the group is alive, as far as that can be told. `turns` bounds how many look at once.
pub(super) async fn any(turns: &Arc<Semaphore>, group: u32) -> bool {
    let turn = Arc::clone(turns).acquire_owned().await;
    let look = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        look(group)
    });
    look.await.unwrap_or(true)
}

#[cfg(target_os = "linux")]
fn look(group: u32) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return true };
    let mut seen = false;
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // One that ended meanwhile is not alive.
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        match state(&stat) {
            Some((_, of)) if of != group => {}
            Some(('Z' | 'X', _)) => seen = true,
            Some(_) => return true,
            None => {}
        }
    }
    // Where not even the dead are seen, the system hides processes, and nothing is known.
    !seen
}

#[cfg(not(target_os = "linux"))]
fn look(_: u32) -> bool {
    true
}

/// The state of a process and its group: the first and the third field after its name, which stands in parentheses and may hold
/// any character (`proc(5)`).
#[cfg(target_os = "linux")]
fn state(stat: &[u8]) -> Option<(char, u32)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.nth(1)?.parse().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(state(b"4267 (sleep) Z 1 4263 4263 0 -1"), Some(('Z', 4263)));
        assert_eq!(state(b"7 (a) S (\xff b)) R 1 9 9 0"), Some(('R', 9)));
        assert_eq!(state(b"7"), None);
    }

    #[test]
    fn whoever_asks_is_alive() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(look(u32::try_from(own).unwrap()));
    }
}
