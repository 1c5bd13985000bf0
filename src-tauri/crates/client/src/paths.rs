//! Where things lie on this machine. Nothing else builds a path of ours.

use std::path::{Path, PathBuf};

use domain::SessionId;
use supabase::Project;

/// The folders of one installation, chosen by the program (platform default, environment or flag).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Holds `settings.toml`.
    pub config_dir: PathBuf,
    /// Holds everything the program writes.
    pub data_dir: PathBuf,
}

/// Name of our folder inside the platform's folders.
const FOLDER: &str = "semo-office";

impl Paths {
    /// The platform's folders (crate `dirs`), each replaced where the caller names another.
    ///
    /// `None` when the platform has no such folder (no home directory) and none was named.
    pub fn choose(config_dir: Option<PathBuf>, data_dir: Option<PathBuf>) -> Option<Paths> {
        let config_dir = config_dir.or_else(|| dirs::config_dir().map(|dir| dir.join(FOLDER)))?;
        let data_dir = data_dir.or_else(|| dirs::data_dir().map(|dir| dir.join(FOLDER)))?;
        Some(Paths {
            config_dir: absolute(config_dir),
            data_dir: absolute(data_dir),
        })
    }

    /// The one settings file.
    pub fn settings(&self) -> PathBuf {
        self.config_dir.join("settings.toml")
    }

    /// The local journal.
    pub fn journal(&self) -> PathBuf {
        self.data_dir.join("journal.sqlite")
    }

    /// The owner's own detectors: `*.toml`, read when they change.
    pub fn detectors(&self) -> PathBuf {
        self.data_dir.join("detectors")
    }

    /// The hub's folder (Postgres cluster, keys).
    pub fn hub(&self) -> PathBuf {
        self.data_dir.join("hub")
    }

    /// Identity of this client (id, made once).
    pub fn identity(&self) -> PathBuf {
        self.data_dir.join("client.json")
    }

    /// The account of the profile "This machine" (made once, 0600).
    pub fn local_account(&self) -> PathBuf {
        self.data_dir.join("account.json")
    }

    /// Tokens of that account (0600).
    pub fn local_tokens(&self) -> PathBuf {
        self.data_dir.join("account-tokens.json")
    }

    /// The sign-ins to projects, one file each (0600).
    pub fn sign_ins(&self) -> PathBuf {
        self.data_dir.join("sign-ins")
    }

    /// Tokens of whoever is signed in to a project (0600), or where in the keychain they are.
    pub fn tokens(&self, project: &Project) -> PathBuf {
        self.sign_ins().join(format!("{}.json", project.file_name()))
    }

    /// Where those of the one project lay before each had a file.
    pub fn tokens_of_before(&self) -> PathBuf {
        self.data_dir.join("tokens.json")
    }

    /// Where a running core tells other programs of the same user how to reach it (0600).
    pub fn running(&self) -> PathBuf {
        self.data_dir.join("running.json")
    }

    /// The port that the local API had last: hooks of agents that outlive a core go there.
    pub fn api_port(&self) -> PathBuf {
        self.data_dir.join("api-port")
    }

    /// The key of the local API, the same over restarts (0600).
    pub fn api_key(&self) -> PathBuf {
        self.data_dir.join("api-key.json")
    }

    /// Held while a core runs on this data folder.
    pub fn lock(&self) -> PathBuf {
        self.data_dir.join("core.lock")
    }

    /// The holders of running agents, one folder each (0700).
    pub fn holders(&self) -> PathBuf {
        self.data_dir.join("holders")
    }

    /// All worktrees of all sessions.
    pub fn worktrees(&self) -> PathBuf {
        self.data_dir.join("worktrees")
    }

    /// Start-up files of one session.
    pub fn session(&self, session: SessionId) -> PathBuf {
        self.data_dir.join("sessions").join(session.to_string())
    }

    /// The sample repository of the profile "This machine".
    pub fn sample_repository(&self) -> PathBuf {
        self.data_dir.join("sample")
    }

    /// Log file of the programs.
    pub fn log(&self) -> PathBuf {
        self.data_dir.join("semo.log")
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(Path::new(&path)).unwrap_or(path)
}
