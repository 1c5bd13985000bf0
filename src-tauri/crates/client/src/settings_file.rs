//! Changing the profile in the settings file: what its owner has written beside it, comments too, stays as it is.
//!
//! Never writes a password or a token, and nothing that [`Settings`] would not read. Called by `semo login` and
//! `semo logout`.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, TableLike, value};

use crate::identity::{IdentityError, write_private};
use crate::settings::{Profile, Settings};

/// The profile to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// The embedded hub; what is known of a project stays in the file.
    ThisMachine,
    /// A project and its account.
    Project {
        /// Its address.
        url: String,
        /// The publishable key.
        publishable_key: String,
        /// Who signs in.
        email: String,
    },
}

/// Why the file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsFileError {
    /// It is there but cannot be read.
    #[error("could not read the settings file {}: {source}; check its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it would be afterwards cannot be used.
    #[error("could not change the settings file {}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        reason: String,
    },
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] IdentityError),
}

/// A settings file with another profile, not yet written.
#[derive(Debug)]
pub struct Changed {
    path: PathBuf,
    text: String,
}

impl Changed {
    /// Reads `file` (none is fine) and puts the profile into it.
    pub fn of(file: &Path, chosen: &Chosen) -> Result<Changed, SettingsFileError> {
        // A link to where somebody keeps such files stays one.
        let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let old = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|source| SettingsFileError::Read {
                path: path.clone(),
                source,
            })?,
        };
        let text = with_profile(&old, chosen).map_err(|reason| SettingsFileError::Unusable {
            path: path.clone(),
            reason,
        })?;
        Ok(Changed { path, text })
    }

    /// Writes it as a whole, readable for its owner only.
    pub fn write(self) -> Result<(), SettingsFileError> {
        write_private(&self.path, self.text.as_bytes())?;
        Ok(())
    }
}

fn with_profile(text: &str, chosen: &Chosen) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
    let profile = match chosen {
        Chosen::ThisMachine => "this-machine",
        Chosen::Project { .. } => "supabase",
    };
    put(document.as_table_mut(), "profile", profile);
    if let Chosen::Project {
        url,
        publishable_key,
        email,
    } = chosen
    {
        let project = document.entry("supabase").or_insert_with(toml_edit::table);
        let project = project.as_table_like_mut().ok_or("`supabase` is not a table")?;
        put(project, "url", url);
        put(project, "publishable_key", publishable_key);
        put(project, "email", email);
    }
    let text = document.to_string();
    let read: Settings = toml::from_str(&text).map_err(|error| error.to_string())?;
    let wanted = match chosen {
        Chosen::ThisMachine => Profile::ThisMachine,
        Chosen::Project { .. } => Profile::Supabase,
    };
    if read.profile != wanted {
        return Err("the profile cannot be set".to_owned());
    }
    Ok(text)
}

/// Replaces a text; the comment behind it stays.
fn put(table: &mut dyn TableLike, key: &str, text: &str) {
    let mut item = value(text);
    if let (Some(old), Some(new)) = (table.get(key).and_then(Item::as_value), item.as_value_mut()) {
        *new.decor_mut() = old.decor().clone();
    }
    match table.get_mut(key) {
        Some(place) => *place = item,
        None => {
            table.insert(key, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> Chosen {
        Chosen::Project {
            url: "https://abc.supabase.co".to_owned(),
            publishable_key: "sb_publishable_1".to_owned(),
            email: "a@b.c".to_owned(),
        }
    }

    #[test]
    fn a_profile_is_put_into_a_file_whose_comments_stay() {
        let old = "# mine\nprofile = \"this-machine\" # for now\n\n[limits] # few\nsessions_max = 3\n\n[supabase]\nurl = \"https://old.example\" # the old one\ntokens = \"file\"\n";
        let new = with_profile(old, &project()).unwrap();
        for kept in [
            "# mine\nprofile = \"supabase\" # for now\n",
            "[limits] # few\nsessions_max = 3",
            "url = \"https://abc.supabase.co\" # the old one",
            "tokens = \"file\"",
        ] {
            assert!(new.contains(kept), "`{kept}` is missing in:\n{new}");
        }
        let read: Settings = toml::from_str(&new).unwrap();
        assert_eq!(read.supabase.email, "a@b.c");
        let back = with_profile(&new, &Chosen::ThisMachine).unwrap();
        assert!(
            back.contains("profile = \"this-machine\" # for now") && back.contains("a@b.c"),
            "{back}"
        );
    }

    #[test]
    fn a_file_is_made_where_there_is_none_and_one_with_a_fault_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config/settings.toml");
        Changed::of(&file, &project()).unwrap().write().unwrap();
        let read = Settings::load(&file, &crate::settings::Overrides::default()).unwrap();
        assert_eq!(
            (read.profile, read.supabase.url.as_str()),
            (Profile::Supabase, "https://abc.supabase.co")
        );
        std::fs::write(&file, "[limits]\nsessions = 3\n").unwrap();
        let error = Changed::of(&file, &project()).unwrap_err().to_string();
        assert!(
            error.contains("settings.toml") && error.contains("sessions"),
            "{error}"
        );
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "[limits]\nsessions = 3\n"
        );
    }
}
