//! The key of the local API: the same over the starts of one data folder, so that a page that was open over a restart
//! comes back by itself.
//!
//! It is a file that only the user can read, as what a running core says of itself is. It is made anew where that costs
//! nobody anything or is asked for: on another port (a page knows the address of before only), after
//! [`KEY_DAYS_MAX`], and behind an end at once (`semo down --now`). A page sends it to nobody who has not proven to know
//! it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use api::Token;
use client::identity::write_private;
use client::paths::Paths;
use domain::Timestamp;
use domain::fault::chain;
use rand::RngCore;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// How long one key holds, if a core is started at all meanwhile.
const KEY_DAYS_MAX: i64 = 30;
/// Milliseconds in a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    port: u16,
    made_at: Timestamp,
}

/// The key for a core that listens on `port`: the one of before, or a new one.
pub fn of(paths: &Paths, port: u16, now: Timestamp) -> Token {
    if let Some(token) = kept(paths, port, now) {
        return token;
    }
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let token = Token::new(random);
    let kept = Kept {
        key: token.reveal().to_owned(),
        port,
        made_at: now,
    };
    let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    if let Err(error) = write_private(&paths.api_key(), &text) {
        tracing::warn!(error = %chain(&error), "the key of the local API is not kept: pages must be opened anew after the next start");
    }
    token
}

fn kept(paths: &Paths, port: u16, now: Timestamp) -> Option<Token> {
    let kept: Kept = serde_json::from_slice(&read_ours(&paths.api_key())?).ok()?;
    let age = now.0.saturating_sub(kept.made_at.0);
    let holds = kept.port == port && (0..KEY_DAYS_MAX * DAY_MS).contains(&age);
    holds.then(|| Token::parse(&kept.key)).flatten()
}

/// What only the user could have written and can read; a key that somebody else has put there or could see is none.
fn read_ours(file: &Path) -> Option<Vec<u8>> {
    let mut open = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(file)
        .ok()?;
    let about = open.metadata().ok()?;
    let is_ours = about.uid() == rustix::process::geteuid().as_raw();
    if !(about.is_file() && is_ours && about.mode() & 0o777 == 0o600) {
        tracing::warn!(file = %file.display(), "the key of the local API is made anew: others could read or have written it");
        return None;
    }
    let mut text = Vec::new();
    open.read_to_end(&mut text).ok()?;
    Some(text)
}

/// Lets nobody in with the key of now once the core has ended.
pub fn forget(paths: &Paths) {
    match std::fs::remove_file(paths.api_key()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the key of the local API could not be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_over_starts_and_is_new_where_it_should_be() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            config_dir: dir.path().join("config"),
            data_dir: dir.path().join("data"),
        };
        let now = Timestamp(1_767_225_661_500);
        let days = |days: i64| Timestamp(now.0 + days * DAY_MS);
        let first = of(&paths, 4100, now);
        let mode = std::fs::metadata(paths.api_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(of(&paths, 4100, days(KEY_DAYS_MAX - 1)) == first);
        let aged = of(&paths, 4100, days(KEY_DAYS_MAX));
        assert!(aged != first);
        let set_back = of(&paths, 4100, now);
        assert!(
            set_back != aged,
            "of a time that is still to come nothing is believed"
        );
        let elsewhere = of(&paths, 4101, now);
        assert!(elsewhere != set_back);
        forget(&paths);
        assert!(of(&paths, 4101, now) != elsewhere);
        std::fs::write(paths.api_key(), "{\"key\": 7}").unwrap();
        let last = of(&paths, 4101, now);
        assert!(last != elsewhere);
        let open_to_all = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(paths.api_key(), open_to_all).unwrap();
        let fresh = of(&paths, 4101, now);
        assert!(fresh != last, "others may have read it");
        let mode = std::fs::metadata(paths.api_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(of(&paths, 4101, now) == fresh);
    }
}
