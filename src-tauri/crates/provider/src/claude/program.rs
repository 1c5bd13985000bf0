//! Finding the program on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use terminal::run_once;

use crate::error::ProviderError;
use crate::version::Version;

/// Name of the program.
pub const PROGRAM: &str = "claude";
/// How a user gets it.
pub const INSTALL_HINT: &str =
    "install it with `npm install -g @anthropic-ai/claude-code`, or name its path in the settings";
/// What is wrong when nobody is signed in, and what the user does: one sentence, for where nothing else is said.
pub const SIGN_IN_HINT: &str =
    "Claude Code is not signed in: run `claude` once in a terminal of this machine, sign in, then try again";
/// What the user does to sign in; for behind words that say what is wrong.
pub const SIGN_IN_STEPS: &str = "run `claude` once in a terminal of this machine, sign in, then try again";
/// What the user does when the account is signed in and not allowed.
pub const NO_PERMISSION_STEPS: &str = "the account that Claude Code is signed in with has no permission for this: \
     check its plan, its organization and the model, or sign in with another account";
/// How long `--version` may take; a cold start of the 245 MB binary takes about a second.
const VERSION_WAIT_MAX: Duration = Duration::from_secs(20);

/// The program: `setting` when the user named one (a path, or a name on the search path), else `claude` on
/// `path_env`, the user's `PATH`.
pub fn find_program(path_env: &str, setting: Option<&Path>) -> Result<PathBuf, ProviderError> {
    let not_installed = |program: &Path, searched: String| ProviderError::NotInstalled {
        program: program.display().to_string(),
        searched,
        hint: INSTALL_HINT.to_owned(),
    };
    let wanted = setting.unwrap_or(Path::new(PROGRAM));
    if wanted.components().count() > 1 {
        let found = std::path::absolute(wanted)
            .ok()
            .filter(|path| is_executable(path));
        return found.ok_or_else(|| not_installed(wanted, "there is no program at this path".to_owned()));
    }
    std::env::split_paths(path_env)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(wanted))
        .find(|path| is_executable(path))
        .ok_or_else(|| not_installed(wanted, format!("searched PATH: {path_env}")))
}

/// Asks the program for its version. `env` is the whole environment it gets.
pub async fn version(program: &Path, env: &[(String, String)]) -> Result<Version, ProviderError> {
    let output = run_once(program, &["--version"], env, VERSION_WAIT_MAX)
        .await
        .map_err(|source| ProviderError::Version {
            program: program.to_owned(),
            source,
        })?;
    Version::parse(&output.stdout).ok_or_else(|| ProviderError::Broken {
        program: program.to_owned(),
        reason: format!(
            "`--version` ended with code {} and printed: {}{}",
            output.code.map_or("none".to_owned(), |code| code.to_string()),
            output.stdout.trim(),
            output.stderr.trim()
        ),
        hint: INSTALL_HINT.to_owned(),
    })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_an_error_that_says_how_to_get_it() {
        let error = find_program("/nonexistent-folder", None).unwrap_err().to_string();
        assert!(
            error.contains("npm install -g @anthropic-ai/claude-code"),
            "{error}"
        );
        let error = find_program("/bin", Some(Path::new("/nonexistent/claude")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/claude"), "{error}");
    }

    #[test]
    fn a_program_is_found_by_path_and_by_setting() {
        assert_eq!(
            find_program("relative:/bin", Some(Path::new("sh"))).unwrap(),
            Path::new("/bin/sh")
        );
        assert_eq!(
            find_program("", Some(Path::new("/bin/sh"))).unwrap(),
            Path::new("/bin/sh")
        );
        assert!(
            find_program("/", Some(Path::new("/bin"))).is_err(),
            "a folder is no program"
        );
    }
}
