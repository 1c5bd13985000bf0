//! The real `claude` program for tests, in a home of its own that speaks to the stub and to nobody else.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

/// The version that the stories are written against; `scripts/setup.sh` installs it.
pub const VERSION: &str = "2.1.197";

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the workspace").to_owned()
}

/// The program: `$SEMO_TEST_CLAUDE`, else the one that `make test` installs in `.tools/`.
pub fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("SEMO_TEST_CLAUDE") {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "SEMO_TEST_CLAUDE names {}, which is not there",
            named.display()
        );
        return named;
    }
    let installed = workspace().join(".tools/node_modules/.bin/claude");
    assert!(
        installed.is_file(),
        "the claude program for tests is not installed: run `make test` once (or `scripts/setup.sh test`)"
    );
    installed
}

/// A home folder with a `claude` that is past its first-start questions. Gone when it is dropped.
#[derive(Debug)]
pub struct ClaudeHome {
    dir: TempDir,
}

impl ClaudeHome {
    /// A home in which no folder is trusted yet.
    pub fn new() -> ClaudeHome {
        ClaudeHome::trusting(&[])
    }

    /// A home in which the given folders, and all below them, need no trust dialog.
    pub fn trusting(folders: &[&Path]) -> ClaudeHome {
        let home = ClaudeHome::fresh();
        let projects: serde_json::Map<String, serde_json::Value> = folders
            .iter()
            .map(|folder| {
                let folder = std::fs::canonicalize(folder).expect("a trusted folder exists");
                (
                    folder.display().to_string(),
                    json!({ "hasTrustDialogAccepted": true }),
                )
            })
            .collect();
        let state = json!({ "hasCompletedOnboarding": true, "projects": projects });
        std::fs::write(home.path().join(".claude.json"), state.to_string()).expect("the home is writable");
        home
    }

    /// An empty home, as on a machine where nobody has ever started `claude`.
    pub fn fresh() -> ClaudeHome {
        let dir = tempfile::Builder::new()
            .prefix("semo-home-")
            .tempdir()
            .expect("the temporary folder is writable");
        ClaudeHome { dir }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where `claude` keeps transcripts and status files: `$HOME/.claude`.
    pub fn config_dir(&self) -> PathBuf {
        self.path().join(".claude")
    }

    /// The whole environment for a `claude` that is signed in, as far as it can tell, and whose API is `url`.
    pub fn env(&self, url: &str) -> Vec<(String, String)> {
        let mut env = self.env_signed_out(url);
        env.push((
            "ANTHROPIC_AUTH_TOKEN".to_owned(),
            "a-token-for-the-stub".to_owned(),
        ));
        env
    }

    /// The same without a sign-in.
    pub fn env_signed_out(&self, url: &str) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let home = self.path().display().to_string();
        [
            ("PATH", path.as_str()),
            ("HOME", home.as_str()),
            ("LANG", "C.UTF-8"),
            ("TERM", "xterm-256color"),
            ("ANTHROPIC_BASE_URL", url),
            // Without these two it reaches for the outside at every start.
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL", "1"),
            // Ten retries take three minutes; one shows the same end in a second or two.
            ("CLAUDE_CODE_MAX_RETRIES", "1"),
            ("NO_PROXY", "127.0.0.1,localhost"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }
}

impl Default for ClaudeHome {
    fn default() -> ClaudeHome {
        ClaudeHome::new()
    }
}
