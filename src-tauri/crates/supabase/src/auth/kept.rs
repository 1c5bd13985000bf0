//! Where the sign-in to a project is kept: in the operating system's keychain, or in a file that only its owner can
//! read. One place for all programs of a data folder: the file says which it is, and whoever opens the sign-in obeys.
//!
//! The file of a project holds either its tokens or the name of the keychain's entry that holds them. It is replaced as
//! a whole, so that there is never a doubt where the sign-in lies. The choice is made when a session begins
//! ([`TokenStore::begin`]); what is renewed stays where it lies, and looking moves nothing. Each sign-in gets an entry of
//! its own name: what comes into the keychain late, after a sign-out, is found by nobody.
//!
//! Called by [`super::Auth`] through [`TokenStore`], by `client` to open it, by the programs to say where it is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keychain::Keychain;
use super::store::{PrivateFile, StoreError, StoreLock, TokenStore, tokens_in};
use super::{Project, Tokens, is_same_place};

/// Characters of the random part of an entry's name.
const ENTRY_TAG_CHARS: usize = 12;

/// Where a sign-in is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokensAt {
    /// In the keychain of the operating system.
    Keychain,
    /// In a file that only its owner can read (0600).
    File,
}

/// Where a sign-in is kept, or would be, and why not in the keychain where nobody has said that it should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The place.
    pub at: TokensAt,
    /// What keeps the keychain from being used.
    pub why_not: Option<String>,
}

/// In the file, in place of the tokens.
#[derive(Serialize, Deserialize)]
struct Elsewhere {
    project: String,
    /// Name of the entry.
    keychain: String,
    /// The file that this was written into: in the copy of a data folder it is not true. Both would use up each other's
    /// refresh tokens.
    file: String,
    /// Signed out, while the keychain could not be told.
    #[serde(default)]
    over: bool,
}

/// What the file says.
enum Record {
    Nothing,
    Here(Tokens),
    Elsewhere(Elsewhere),
}

/// The sign-in to one project in one data folder.
pub struct KeptTokens {
    file: PrivateFile,
    project: String,
    wish: Option<TokensAt>,
    open_keychain: Box<dyn Fn() -> Arc<dyn Keychain> + Send + Sync>,
    keychain: OnceLock<Arc<dyn Keychain>>,
    /// Why the last session that began did not go into the keychain.
    why_not: Mutex<Option<String>>,
}

impl std::fmt::Debug for KeptTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptTokens")
            .field("file", &self.file)
            .field("wish", &self.wish)
            .finish_non_exhaustive()
    }
}

impl KeptTokens {
    /// `file`: of this project alone. `wish`: what the settings say of a session that begins; without one the keychain,
    /// where it is open. Asks neither of them yet.
    pub fn new(
        file: &Path,
        project: &Project,
        wish: Option<TokensAt>,
        keychain: impl Fn() -> Arc<dyn Keychain> + Send + Sync + 'static,
    ) -> KeptTokens {
        KeptTokens {
            file: PrivateFile::new(file),
            project: project.url.clone(),
            wish,
            open_keychain: Box::new(keychain),
            keychain: OnceLock::new(),
            why_not: Mutex::default(),
        }
    }

    /// Where the present sign-in is kept; `None` when there is none.
    pub fn kept(&self) -> Result<Option<Kept>, StoreError> {
        let why_not = || {
            self.why_not
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        Ok(match self.record()? {
            Record::Nothing => None,
            Record::Here(_) => Some(Kept {
                at: TokensAt::File,
                why_not: why_not(),
            }),
            Record::Elsewhere(its) if its.over => None,
            Record::Elsewhere(_) => Some(Kept {
                at: TokensAt::Keychain,
                why_not: None,
            }),
        })
    }

    /// Where a session that begins now would be kept. Asks the keychain, unless the file is wished.
    pub fn would_keep(&self) -> Result<Kept, StoreError> {
        let file = |why_not| Kept {
            at: TokensAt::File,
            why_not,
        };
        let keychain = Kept {
            at: TokensAt::Keychain,
            why_not: None,
        };
        match self.wish {
            Some(TokensAt::File) => Ok(file(None)),
            Some(TokensAt::Keychain) => match self.keychain().is_open() {
                Ok(()) => Ok(keychain),
                Err(reason) => Err(refused("keep")(reason)),
            },
            None => Ok(match self.keychain().is_open() {
                Ok(()) => keychain,
                Err(reason) => file(Some(reason)),
            }),
        }
    }

    fn keychain(&self) -> &Arc<dyn Keychain> {
        self.keychain.get_or_init(|| (self.open_keychain)())
    }

    fn record(&self) -> Result<Record, StoreError> {
        let Some(content) = self.file.read()? else {
            return Ok(Record::Nothing);
        };
        if content.get("keychain").is_none() {
            let tokens = tokens_in(content, &self.file, &self.project)?;
            return Ok(tokens.map_or(Record::Nothing, Record::Here));
        }
        let its: Elsewhere = serde_json::from_value(content)
            .map_err(|_| self.file.damaged("it names no entry of the keychain".to_owned()))?;
        let is_ours = is_same_place(&its.project, &self.project) && its.file == self.shown();
        Ok(if is_ours {
            Record::Elsewhere(its)
        } else {
            Record::Nothing
        })
    }

    /// The file's place by whichever way it was named: links in it are followed as far as it exists.
    fn shown(&self) -> String {
        let path = self.file.path();
        let known = path.ancestors().find_map(|part| {
            let real = std::fs::canonicalize(part).ok()?;
            Some(real.join(path.strip_prefix(part).ok()?))
        });
        // Joined with nothing, a path ends in a separator: by its parts it is the same again.
        let place = known.unwrap_or_else(|| path.to_owned());
        place.components().collect::<PathBuf>().display().to_string()
    }

    fn elsewhere(&self, entry: String, over: bool) -> Elsewhere {
        Elsewhere {
            project: self.project.clone(),
            keychain: entry,
            file: self.shown(),
            over,
        }
    }

    fn write_entry(&self, entry: &str, tokens: &Tokens) -> Result<(), StoreError> {
        let secret = serde_json::to_vec(tokens).map_err(|error| refused("keep")(error.to_string()))?;
        self.keychain().write(entry, &secret).map_err(refused("keep"))
    }

    /// Of a sign-in that is over. Only a doubt remains when that fails: nothing names it any more.
    fn forget(&self, entry: Option<String>) {
        if let Some(entry) = entry
            && let Err(reason) = self.keychain().remove(&entry)
        {
            tracing::warn!(reason, "an old sign-in is left in the keychain");
        }
    }

    /// The entry that the file names, also of a sign-in that is over.
    fn entry(&self) -> Option<String> {
        match self.record() {
            Ok(Record::Elsewhere(its)) => Some(its.keychain),
            Ok(Record::Nothing | Record::Here(_)) | Err(_) => None,
        }
    }

    fn begin_in_keychain(&self, tokens: &Tokens) -> Result<(), StoreError> {
        let tag = Uuid::new_v4().simple().to_string();
        let tag = tag.get(..ENTRY_TAG_CHARS).unwrap_or_default();
        let entry = format!("{} as {} ({}, {tag})", self.project, tokens.email, self.shown());
        if let Err(error) = self.write_entry(&entry, tokens) {
            // It may still come into a keychain that took too long. Nothing names it then: whether it could be taken out
            // is no news.
            let _ = self.keychain().remove(&entry);
            return Err(error);
        }
        let before = self.entry();
        if let Err(error) = self.file.write(&self.elsewhere(entry.clone(), false)) {
            self.forget(Some(entry));
            return Err(error);
        }
        self.forget(before);
        Ok(())
    }

    fn begin_in_file(&self, tokens: &Tokens) -> Result<(), StoreError> {
        let before = self.entry();
        self.file.write(tokens)?;
        self.forget(before);
        Ok(())
    }
}

fn refused(attempted: &'static str) -> impl FnOnce(String) -> StoreError {
    move |reason| StoreError::Keychain { attempted, reason }
}

impl TokenStore for KeptTokens {
    fn load(&self) -> Result<Option<Tokens>, StoreError> {
        let its = match self.record()? {
            Record::Nothing => return Ok(None),
            Record::Here(tokens) => return Ok(Some(tokens)),
            Record::Elsewhere(its) if its.over => return Ok(None),
            Record::Elsewhere(its) => its,
        };
        let Some(secret) = self.keychain().read(&its.keychain).map_err(refused("read"))? else {
            return Ok(None);
        };
        let tokens: Tokens = serde_json::from_slice(&secret).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            refused("understand")(format!(
                "it is damaged (line {line}, column {column}), sign in again"
            ))
        })?;
        Ok(tokens.are_of(&self.project).then_some(tokens))
    }

    fn save(&self, tokens: &Tokens) -> Result<(), StoreError> {
        match self.record() {
            Ok(Record::Elsewhere(its)) if !its.over => self.write_entry(&its.keychain, tokens),
            // A damaged one is replaced.
            Ok(Record::Nothing | Record::Here(_) | Record::Elsewhere(_))
            | Err(StoreError::Damaged { .. }) => self.file.write(tokens),
            // It may lie in the keychain: what was meant for that does not come into a file.
            Err(error @ (StoreError::File { .. } | StoreError::Keychain { .. })) => Err(error),
        }
    }

    fn begin(&self, tokens: &Tokens) -> Result<(), StoreError> {
        let kept = self.would_keep()?;
        let begun = match kept.at {
            TokensAt::File => self.begin_in_file(tokens),
            TokensAt::Keychain => self.begin_in_keychain(tokens),
        };
        let why_not = match begun {
            Ok(()) => kept.why_not,
            // It was open a moment ago, and nobody has insisted on it.
            Err(StoreError::Keychain { reason, .. }) if self.wish.is_none() => {
                self.begin_in_file(tokens)?;
                Some(reason)
            }
            Err(error) => return Err(error),
        };
        *self.why_not.lock().unwrap_or_else(PoisonError::into_inner) = why_not;
        Ok(())
    }

    fn clear(&self) -> Result<(), StoreError> {
        let entry = match self.record() {
            Ok(Record::Nothing) => return Ok(()),
            // What is damaged goes: nobody can use it any more.
            Ok(Record::Here(_)) | Err(_) => return self.file.remove(),
            Ok(Record::Elsewhere(its)) => its.keychain,
        };
        match self.keychain().remove(&entry) {
            Ok(()) => self.file.remove(),
            Err(reason) => {
                // Signed out all the same; the next one takes it out of the keychain.
                self.file.write(&self.elsewhere(entry, true))?;
                Err(refused("remove")(reason))
            }
        }
    }

    fn try_lock(&self) -> Result<Option<StoreLock>, StoreError> {
        self.file.try_lock()
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
