//! Changing the profile in the settings file: what its owner has written beside it, comments too, stays as it is.
//!
//! Never writes a password or a token, and nothing that [`Settings`] would not read. Called by [`crate::sign_in`], the loop
//! and `semo logout`.

use std::path::{Path, PathBuf};

use supabase::Project;
use toml_edit::{DocumentMut, Item, TableLike, value};

use crate::earlier::EarlierSignIn;
use crate::identity::{IdentityError, write_private};
use crate::settings::{Profile, Settings};

/// The profile to write, and to serve.
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

impl Chosen {
    /// What these settings have chosen; `None` when they lack something that a project needs.
    pub fn of(settings: &Settings) -> Option<Chosen> {
        match settings.profile {
            Profile::ThisMachine => Some(Chosen::ThisMachine),
            Profile::Supabase => Chosen::project_of(settings),
        }
    }

    /// The project that these settings know, whichever profile they name; `None` when something of it is missing.
    pub fn project_of(settings: &Settings) -> Option<Chosen> {
        let known = &settings.supabase;
        let is_whole = ![&known.url, &known.publishable_key, &known.email]
            .iter()
            .any(|text| text.is_empty());
        is_whole.then(|| Chosen::Project {
            // However it is written in the file.
            url: Project::address(&known.url).unwrap_or_else(|_| known.url.clone()),
            publishable_key: known.publishable_key.clone(),
            email: known.email.clone(),
        })
    }

    /// The same settings with this profile. An office of the one is none of the other.
    #[must_use]
    pub fn applied_to(&self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        if Chosen::of(&settings).as_ref() != Some(self) {
            settings.office.id = None;
        }
        match self {
            Chosen::ThisMachine => settings.profile = Profile::ThisMachine,
            Chosen::Project {
                url,
                publishable_key,
                email,
            } => {
                settings.profile = Profile::Supabase;
                settings.supabase.url.clone_from(url);
                settings.supabase.publishable_key.clone_from(publishable_key);
                settings.supabase.email.clone_from(email);
            }
        }
        settings
    }
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
    /// It was not there before, and cannot be removed again.
    #[error("could not remove the settings file {}: {source}; remove it, it names an office that was not reached", path.display())]
    Remove {
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
    /// What is there now; `None`: no file.
    old: Option<String>,
    text: String,
}

/// What a settings file was before it was written: a choice that leads nowhere leaves it as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    path: PathBuf,
    old: Option<String>,
    new: String,
}

/// A profile that was chosen and is written down.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The profile.
    pub chosen: Chosen,
    /// The file before.
    pub before: Before,
    /// The sign-in of before, to be ended when what was chosen is served and not sooner.
    pub earlier: Option<EarlierSignIn>,
}

impl Before {
    /// Puts the file back byte by byte. False, and nothing done, when somebody has changed it since.
    pub fn restore(&self) -> Result<bool, SettingsFileError> {
        if content(&self.path)?.as_deref() != Some(self.new.as_str()) {
            return Ok(false);
        }
        match &self.old {
            Some(old) if *old == self.new => {}
            Some(old) => write_private(&self.path, old.as_bytes())?,
            None => std::fs::remove_file(&self.path).map_err(|source| SettingsFileError::Remove {
                path: self.path.clone(),
                source,
            })?,
        }
        Ok(true)
    }

    /// As [`Before::restore`]. A file that named the choice already (`semo login` writes it beside a running core), or
    /// that somebody has changed since, gets profile and office of `settings`, and keeps the rest.
    pub fn bring_back(&self, settings: &Settings) -> Result<(), SettingsFileError> {
        let named_it_already = self.old.as_ref() == Some(&self.new);
        if !named_it_already && self.restore()? {
            return Ok(());
        }
        let Some(chosen) = Chosen::of(settings) else {
            return Ok(());
        };
        let mut changed = Changed::of(&self.path, &chosen)?;
        if let Some(office) = settings.office.id {
            changed.text = with_office(&changed.text, &office.to_string()).map_err(|reason| {
                SettingsFileError::Unusable {
                    path: self.path.clone(),
                    reason,
                }
            })?;
        }
        changed.write().map(drop)
    }
}

impl Changed {
    /// Reads `file` (none is fine) and puts the profile into it.
    pub fn of(file: &Path, chosen: &Chosen) -> Result<Changed, SettingsFileError> {
        // A link to where somebody keeps such files stays one.
        let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let old = content(&path)?;
        let text = with_profile(old.as_deref().unwrap_or_default(), chosen).map_err(|reason| {
            SettingsFileError::Unusable {
                path: path.clone(),
                reason,
            }
        })?;
        Ok(Changed { path, old, text })
    }

    /// Writes it as a whole, readable for its owner only.
    pub fn write(self) -> Result<Before, SettingsFileError> {
        write_private(&self.path, self.text.as_bytes())?;
        Ok(Before {
            path: self.path,
            old: self.old,
            new: self.text,
        })
    }
}

/// `None` when there is no file.
fn content(path: &Path) -> Result<Option<String>, SettingsFileError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|source| SettingsFileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn with_office(text: &str, id: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
    let office = document.entry("office").or_insert_with(toml_edit::table);
    let office = office.as_table_like_mut().ok_or("`office` is not a table")?;
    put(office, "id", id);
    Ok(document.to_string())
}

fn with_profile(text: &str, chosen: &Chosen) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
    let profile = match chosen {
        Chosen::ThisMachine => "this-machine",
        Chosen::Project { .. } => "supabase",
    };
    put(document.as_table_mut(), "profile", profile);
    if is_another(text, chosen) {
        // An office of the one is none of the other.
        let office = document.get_mut("office").and_then(Item::as_table_like_mut);
        office.and_then(|office| office.remove("id"));
    }
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

/// Is what is chosen another place, or another account there, than the file names?
fn is_another(text: &str, chosen: &Chosen) -> bool {
    let Ok(before) = toml::from_str::<Settings>(text) else {
        return false;
    };
    Chosen::of(&before).as_ref() != Some(chosen)
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
    fn an_office_that_was_picked_is_forgotten_with_its_project_and_not_before() {
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let old = format!("[office] # mine\nid = \"{id}\"\n");
        let team = with_profile(&old, &project()).unwrap();
        assert!(!team.contains(id) && team.contains("[office] # mine"), "{team}");
        let picked = team.replace("[office] # mine\n", &format!("[office] # mine\nid = \"{id}\"\n"));
        assert!(with_profile(&picked, &project()).unwrap().contains(id));
        let typed = picked.replace("https://abc.supabase.co", "https://ABC.supabase.co/");
        assert!(
            with_profile(&typed, &project()).unwrap().contains(id),
            "it is the same place"
        );
        let settings: Settings = toml::from_str(&picked).unwrap();
        assert_eq!(project().applied_to(&settings), settings);
        let alone = Chosen::ThisMachine.applied_to(&settings);
        assert_eq!((alone.profile, alone.office.id), (Profile::ThisMachine, None));
        assert_eq!(
            Chosen::project_of(&alone),
            Some(project()),
            "what is known of it stays"
        );
    }

    #[test]
    fn a_choice_that_leads_nowhere_leaves_the_file_as_it_was_byte_by_byte() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let old = format!("# mine\n[office] # picked\nid = \"{id}\"\n");
        std::fs::write(&file, &old).unwrap();
        let before = Changed::of(&file, &project()).unwrap().write().unwrap();
        assert!(!std::fs::read_to_string(&file).unwrap().contains(id));
        assert!(before.restore().unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), old);
        // What somebody has written since is theirs.
        let before = Changed::of(&file, &project()).unwrap().write().unwrap();
        let theirs = "[limits]\nsessions_max = 3\n";
        std::fs::write(&file, theirs).unwrap();
        assert!(!before.restore().unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), theirs);
        std::fs::remove_file(&file).unwrap();
        let before = Changed::of(&file, &project()).unwrap().write().unwrap();
        assert!(before.restore().unwrap() && !file.exists(), "there was none");
    }

    #[test]
    fn a_file_that_named_the_choice_already_gets_the_profile_and_the_office_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let settings: Settings = toml::from_str(&format!("[office]\nid = \"{id}\"\n")).unwrap();
        Changed::of(&file, &project()).unwrap().write().unwrap();
        let before = Changed::of(&file, &project()).unwrap().write().unwrap();
        before.bring_back(&settings).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let read: Settings = toml::from_str(&text).unwrap();
        assert_eq!(
            (read.profile, read.office.id),
            (Profile::ThisMachine, settings.office.id)
        );
        assert_eq!(
            Chosen::project_of(&read),
            Some(project()),
            "what is known of it stays"
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
