//! Running the `git` program: the only place of this crate that starts a process.
//!
//! Every call has a time limit after which git and its children are killed, asks nothing at the terminal, speaks
//! English, runs no hook of the repository, and is not led elsewhere by `GIT_…` variables that we inherited.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::error::WorktreeError;

/// Limit for calls that look up or write single objects.
pub(crate) const LIMIT_SHORT: Duration = Duration::from_secs(60);
/// Limit for calls that touch every file of a worktree (check-out, add, remove); big repositories on slow disks.
pub(crate) const LIMIT_LONG: Duration = Duration::from_secs(600);
/// Most bytes of output that are kept; the list of all files of a very large repository fits. More is an error, never
/// a shorter list: removals are decided by such lists.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most git processes at once; a burst of sessions waits here instead of bringing the machine to its knees.
const AT_ONCE_MAX: usize = 16;

static AT_ONCE: Semaphore = Semaphore::const_new(AT_ONCE_MAX);
/// Most characters of git's complaint that go into an error.
const SAID_CHARS_MAX: usize = 600;

/// Variables that would lead git away from the repository that the call names.
const REMOVED_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_WORK_TREE",
];

/// One call of git, to be run.
pub(crate) struct Git {
    command: Command,
    what: String,
    limit: Duration,
}

/// How a call ended.
pub(crate) struct Answer {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Git {
    /// A call in the repository or worktree `dir`; `what` completes "could not …".
    pub(crate) fn new(dir: &Path, what: impl Into<String>) -> Git {
        let mut command = git_command();
        command
            .arg("-C")
            .arg(dir)
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"])
            .args([
                "-c",
                "user.name=SEMO Office",
                "-c",
                "user.email=office@semo.invalid",
            ])
            .args(["-c", "gc.auto=0", "-c", "advice.detachedHead=false"])
            // The repository's settings may name a program here; agents can write those settings.
            .args(["-c", "core.fsmonitor=false"])
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for variable in REMOVED_VARIABLES {
            command.env_remove(variable);
        }
        // A group of its own, so that filters and helpers that git starts end with it.
        #[cfg(unix)]
        command.process_group(0);
        Git {
            command,
            what: what.into(),
            limit: LIMIT_SHORT,
        }
    }

    pub(crate) fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Git {
        self.command.args(args);
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Git {
        self.command.arg(arg);
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Git {
        self.limit = limit;
        self
    }

    /// Uses another index than the worktree's own.
    pub(crate) fn index(mut self, file: &Path) -> Git {
        self.command.env("GIT_INDEX_FILE", file);
        self
    }

    /// Runs it and returns the answer, whatever the exit code.
    pub(crate) async fn answer(mut self) -> Result<Answer, WorktreeError> {
        // The semaphore is never closed.
        let _permit = AT_ONCE.acquire().await;
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(WorktreeError::GitMissing { what: self.what });
            }
            Err(source) => {
                return Err(WorktreeError::Io {
                    what: "start the program",
                    path: PathBuf::from("git"),
                    source,
                });
            }
        };
        let group = child.id();
        match tokio::time::timeout(self.limit, collect(&mut child)).await {
            Ok(Ok((code, stdout, stderr))) => Ok(Answer {
                what: self.what,
                code,
                stdout,
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            }),
            Ok(Err(source)) => Err(WorktreeError::Io {
                what: "read the output of the program",
                path: PathBuf::from("git"),
                source,
            }),
            Err(_) => {
                kill_group(group);
                // Reaped by tokio; that it is dead was seen to by KILL, so the wait is short.
                let _ = child.wait().await;
                Err(WorktreeError::TimedOut {
                    what: self.what,
                    limit_s: self.limit.as_secs(),
                })
            }
        }
    }

    /// Runs it; anything but exit code 0 is an error with git's words. Returns its output without line ends at the end.
    pub(crate) async fn text(self) -> Result<String, WorktreeError> {
        let answer = self.answer().await?.success()?;
        Ok(answer.text())
    }
}

impl Answer {
    pub(crate) fn ok(&self) -> bool {
        self.code == Some(0)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout)
            .trim_end_matches(['\n', '\r'])
            .to_owned()
    }

    /// The answer when the exit code is 0, else git's words.
    pub(crate) fn success(self) -> Result<Answer, WorktreeError> {
        if self.ok() {
            return Ok(self);
        }
        let said = self.said();
        Err(WorktreeError::Git {
            what: self.what,
            said,
        })
    }

    fn said(&self) -> String {
        let line = self.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = if line.is_empty() {
            match self.code {
                Some(code) => format!("nothing (exit code {code})"),
                None => "nothing (it was ended by a signal)".to_owned(),
            }
        } else {
            line
        };
        line.chars().take(SAID_CHARS_MAX).collect()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this crate is one of the three that start processes, and this is its only place"
)]
fn git_command() -> Command {
    Command::new("git")
}

async fn collect(child: &mut Child) -> std::io::Result<(Option<i32>, Vec<u8>, Vec<u8>)> {
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let (stdout, stderr, status) = tokio::join!(read(stdout), read(stderr), child.wait());
    Ok((status?.code(), stdout?, stderr?))
}

/// Reads to the end, whatever the length: git must not block on a full pipe, nor fill our memory.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let Some(mut pipe) = pipe else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut cut = false;
    loop {
        let count = pipe.read(&mut buffer).await?;
        if count == 0 && cut {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        if count == 0 {
            return Ok(kept);
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        cut |= count > room;
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

fn kill_group(group: Option<u32>) {
    #[cfg(unix)]
    if let Some(pid) = group
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw)
    {
        // Gone already is what is wanted.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    #[cfg(not(unix))]
    let _ = group;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_without_git_is_told_how_to_get_it() {
        let mut call = Git::new(Path::new("/"), "open the repository x").arg("version");
        call.command.env("PATH", "/nowhere");
        let error = call.text().await.unwrap_err();
        assert!(matches!(error, WorktreeError::GitMissing { .. }), "{error:?}");
        assert!(error.to_string().contains("apt install git"), "{error}");
    }

    #[tokio::test]
    async fn a_git_that_hangs_is_ended_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let alias = format!("alias.hang=!sleep 300 & echo $! > {}; wait", pid_file.display());
        let call = Git::new(folder.path(), "hang")
            .args(["-c", &alias, "hang"])
            .limit(Duration::from_secs(2));
        let ended = tokio::time::timeout(Duration::from_secs(30), call.text()).await;
        let error = ended.expect("nobody waits for the 300 seconds").unwrap_err();
        assert!(matches!(error, WorktreeError::TimedOut { .. }), "{error:?}");
        let pid = std::fs::read_to_string(&pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let gone = async {
            // A zombie still answers; its parent is gone, so the system's first process will reap it.
            while rustix::process::test_kill_process(pid).is_ok() && !is_zombie(pid) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("the sleeping child of git is ended too");
    }

    fn is_zombie(pid: rustix::process::Pid) -> bool {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    }

    #[tokio::test]
    async fn what_git_says_is_in_the_error_on_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let error = Git::new(folder.path(), "read the log")
            .arg("log")
            .text()
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("could not read the log: git says: fatal: not a git repository"),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }
}
