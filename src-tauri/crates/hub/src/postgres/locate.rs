//! Finds `postgres` and `initdb`: the setting, `pg_config` and the PATH, then where distributions put them.
//!
//! Never downloads anything. Called by [`crate::Hub::start`].

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::error::HubError;

/// How long `pg_config --bindir` may take.
const PG_CONFIG_TIMEOUT: Duration = Duration::from_secs(5);
/// Oldest Postgres the schema and the bootstrap work with.
pub(crate) const MAJOR_MIN: u32 = 15;

/// Folders that hold one folder per version, each with a `bin`.
const VERSIONED: [&str; 3] = [
    "/usr/lib/postgresql",
    "/usr/local/lib/postgresql",
    "/Library/PostgreSQL",
];
/// Folders that may hold the programs themselves.
const PLAIN: [&str; 6] = [
    "/opt/homebrew/opt/postgresql@18/bin",
    "/opt/homebrew/opt/postgresql@17/bin",
    "/opt/homebrew/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
];

/// The programs the hub runs.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub postgres: PathBuf,
    pub initdb: PathBuf,
}

/// Looks in `setting` only when it is given, else everywhere a Postgres is usually found. `made_by`: the major
/// version that made the cluster, which no other version can open; it is preferred where several are installed.
pub(crate) async fn locate(setting: Option<&Path>, made_by: Option<u32>) -> Result<Binaries, HubError> {
    if let Some(folder) = setting {
        return in_folder(folder).ok_or_else(|| HubError::NoPostgres {
            searched: format!("the setting, {}", folder.display()),
        });
    }
    if let Some(found) = made_by.and_then(of_version) {
        return Ok(found);
    }
    if let Some(found) = pg_config_folder().await.and_then(|folder| in_folder(&folder)) {
        return Ok(found);
    }
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for root in VERSIONED {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let major = entry
                .file_name()
                .to_str()
                .and_then(|name| name.split('.').next()?.parse().ok());
            if let Some(major) = major.filter(|major| *major >= MAJOR_MIN) {
                versioned.push((major, entry.path().join("bin")));
            }
        }
    }
    versioned.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    versioned
        .iter()
        .map(|(_, folder)| folder.as_path())
        .chain(PLAIN.iter().map(Path::new))
        .find_map(in_folder)
        .ok_or_else(|| HubError::NoPostgres {
            searched: format!("pg_config, {}, {}", VERSIONED.join(", "), PLAIN.join(", ")),
        })
}

fn of_version(major: u32) -> Option<Binaries> {
    VERSIONED
        .iter()
        .map(|root| PathBuf::from(format!("{root}/{major}/bin")))
        .chain([PathBuf::from(format!("/opt/homebrew/opt/postgresql@{major}/bin"))])
        .find_map(|folder| in_folder(&folder))
}

fn in_folder(folder: &Path) -> Option<Binaries> {
    let found = Binaries {
        postgres: folder.join("postgres"),
        initdb: folder.join("initdb"),
    };
    (found.postgres.is_file() && found.initdb.is_file()).then_some(found)
}

/// What `pg_config` of the PATH says. Debian's names a folder that may hold no server: the caller checks.
#[allow(
    clippy::disallowed_methods,
    reason = "the hub may start Postgres's own programs"
)]
async fn pg_config_folder() -> Option<PathBuf> {
    let asked = tokio::process::Command::new("pg_config")
        .arg("--bindir")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PG_CONFIG_TIMEOUT, asked).await.ok()?.ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let new_enough = folder
        .components()
        .filter_map(|part| part.as_os_str().to_str()?.parse::<u32>().ok())
        .all(|major| major >= MAJOR_MIN);
    (output.status.success() && folder.is_absolute() && new_enough).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_postgres_the_error_says_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let error = locate(Some(empty.path()), None).await.unwrap_err().to_string();
        assert!(
            error.contains("apt-get install postgresql") && error.contains("brew install"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_setting_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for program in ["postgres", "initdb"] {
            std::fs::write(folder.path().join(program), "").unwrap();
        }
        let found = locate(Some(folder.path()), None).await.unwrap();
        assert_eq!(found.initdb, folder.path().join("initdb"));
    }
}
