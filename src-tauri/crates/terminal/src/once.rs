//! Running a small program for its output: `--version` and the like.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::error::TerminalError;

/// Most bytes kept of each of the two outputs; the rest is dropped.
pub const ONCE_OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// What a program that was run once has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceOutput {
    /// Its exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output, at most [`ONCE_OUTPUT_BYTES_MAX`] bytes.
    pub stdout: String,
    /// Its standard error, at most as much.
    pub stderr: String,
}

/// Runs `program` with exactly the environment `env` and no input; kills it after `limit`.
#[allow(
    clippy::disallowed_methods,
    reason = "this crate is where programs are started"
)]
pub async fn run_once(
    program: &Path,
    args: &[&str],
    env: &[(String, String)],
    limit: Duration,
) -> Result<OnceOutput, TerminalError> {
    let output_failed = |source| TerminalError::Output {
        program: program.to_owned(),
        source,
    };
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| TerminalError::Spawn {
            program: program.to_owned(),
            cwd: std::path::PathBuf::from("."),
            reason: error.to_string(),
        })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(output_failed(std::io::Error::other("its outputs are not piped")));
    };
    let whole = async {
        let (stdout, stderr) = tokio::try_join!(read_bounded(stdout), read_bounded(stderr))?;
        let status = child.wait().await?;
        Ok(OnceOutput {
            code: status.code(),
            stdout,
            stderr,
        })
    };
    match tokio::time::timeout(limit, whole).await {
        Ok(result) => result.map_err(output_failed),
        // Dropping the child kills it.
        Err(_) => Err(TerminalError::TimedOut {
            program: program.to_owned(),
            limit,
        }),
    }
}

async fn read_bounded(mut from: impl tokio::io::AsyncRead + Unpin) -> std::io::Result<String> {
    let mut kept = Vec::new();
    (&mut from)
        .take(ONCE_OUTPUT_BYTES_MAX)
        .read_to_end(&mut kept)
        .await?;
    // The rest is read and dropped, so that the program does not block on a full pipe.
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}
