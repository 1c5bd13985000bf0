//! Postgres's own programs for dumps: run with the address in the environment, where `ps` does not show a password.
//!
//! Never puts anything of a client on a command line. Called by [`crate::backup`].

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::Binaries;
use crate::error::HubError;

/// How much of a program's complaints goes into an error, in bytes.
const COMPLAINT_MAX: usize = 1500;

/// A program of the Postgres distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Dump,
    Restore,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Dump => "pg_dump",
            Tool::Restore => "pg_restore",
        }
    }
}

/// Runs `tool` against the database of `config` and waits for its end.
pub(crate) async fn run(
    tool: Tool,
    binaries: &Binaries,
    config: &Config,
    arguments: &[&std::ffi::OsStr],
) -> Result<(), HubError> {
    let program = binaries.postgres.with_file_name(tool.name());
    let fault = |reason: String| HubError::Backup {
        attempt: format!("run {}", program.display()),
        reason,
    };
    if !program.is_file() {
        return Err(fault(
            "it is not there; install the client programs of PostgreSQL (Debian/Ubuntu: `apt-get install \
             postgresql-client`)"
                .to_owned(),
        ));
    }
    let output = command(&program, config)
        .args(arguments)
        .output()
        .await
        .map_err(|error| fault(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.chars().take(COMPLAINT_MAX).collect();
    Err(fault(format!("it ended with {}: {}", output.status, said.trim())))
}

/// The certificates that this system trusts, as the hub's own connections do; libpq 16 knows its way by itself.
fn trusted() -> PathBuf {
    let found = openssl_probe::probe().cert_file;
    found.unwrap_or_else(|| PathBuf::from("system"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "the hub may start Postgres's own programs"
)]
fn command(program: &Path, config: &Config) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match config.get_hosts().first() {
        Some(Host::Tcp(name)) => command.env("PGHOST", name),
        #[cfg(unix)]
        Some(Host::Unix(path)) => command.env("PGHOST", path),
        None => &mut command,
    };
    if let Some(port) = config.get_ports().first() {
        command.env("PGPORT", port.to_string());
    }
    if let Some(user) = config.get_user() {
        command.env("PGUSER", user);
    }
    if let Some(password) = config.get_password() {
        command.env("PGPASSWORD", String::from_utf8_lossy(password).as_ref());
    }
    if let Some(database) = config.get_dbname() {
        command.env("PGDATABASE", database);
    }
    match config.get_ssl_mode() {
        SslMode::Disable => command.env("PGSSLMODE", "disable"),
        // As strict as the hub's own connections: libpq would take any certificate.
        SslMode::Require => command
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", trusted()),
        _ => command.env("PGSSLMODE", "prefer"),
    };
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_verified_by_the_tools_as_by_the_hub() {
        let variable = |url: &str, name: &str| {
            let config = crate::elsewhere::parse(url).unwrap();
            let command = command(Path::new("/bin/true"), &config);
            let mut set = command.as_std().get_envs();
            let found = set.find(|(key, _)| *key == name).and_then(|(_, value)| value);
            found.map(|value| value.to_string_lossy().into_owned())
        };
        let away = "postgresql://semo:x@db.example/semo?sslmode=require";
        assert_eq!(variable(away, "PGSSLMODE").as_deref(), Some("verify-full"));
        assert!(variable(away, "PGSSLROOTCERT").is_some());
        let here = "postgresql://semo:x@127.0.0.1/semo";
        assert_eq!(variable(here, "PGSSLMODE").as_deref(), Some("prefer"));
    }
}
