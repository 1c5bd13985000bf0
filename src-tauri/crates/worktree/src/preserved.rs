//! The list of kept states, and how one becomes a branch again.
//!
//! A kept state is a commit under `refs/semo/preserved/<session>`; what is known about it stands in its message, so
//! that one call of git lists them all and a clone made with these refs loses nothing.

use std::path::Path;

use domain::SessionId;

use crate::error::WorktreeError;
use crate::git::{Git, LIMIT_LONG};
use crate::repository::{Repository, Worktree, commit_of};

/// Below this the states are kept.
const FOLDER: &str = "refs/semo/preserved/";
/// Most states that are listed.
pub const PRESERVED_LISTED_MAX: usize = 500;
const BRANCH: &str = "Semo-Branch: ";
const WHY: &str = "Semo-Why: ";
const FILES: &str = "Semo-Files-Changed: ";
const STATE: &str = "Semo-State: ";

/// A state of a worktree that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preserved {
    /// Under which it is restored: the id of its session.
    pub name: String,
    /// The branch of its worktree.
    pub branch: Option<String>,
    /// The commit: its tree is the whole worktree, its first parent the HEAD of that moment.
    pub commit: String,
    /// When it was kept, in seconds since 1970.
    pub kept_at: i64,
    /// Files that differ from the commit the worktree started from.
    pub files_changed: u32,
    /// Why it was kept, in words.
    pub why: String,
}

/// A kept state that is a branch again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The branch that was made.
    pub branch: String,
    /// The commit it points at.
    pub commit: String,
}

/// What the state was kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    SessionEnded,
    Removed,
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Why::SessionEnded => "its session ended with work that is not committed",
            Why::Removed => "its worktree was removed",
        }
    }
}

pub(crate) fn reference(name: &str) -> String {
    format!("{FOLDER}{name}")
}

/// The message of the commit that keeps a state.
pub(crate) async fn message(
    worktree: &Worktree,
    session: SessionId,
    tree: &str,
    why: Why,
    mark: &str,
) -> Result<String, WorktreeError> {
    let mut text = format!("State of session {session}\n\n");
    if !worktree.branch.is_empty() {
        text.push_str(&format!("{BRANCH}{}\n", worktree.branch));
    }
    text.push_str(&format!("{WHY}{}\n{STATE}{mark}\n", why.words()));
    if let Some(base) = &worktree.base {
        let names = Git::new(&worktree.path, "count the files that changed")
            .limit(LIMIT_LONG)
            .args([
                "diff-tree",
                "-r",
                "--name-only",
                "--no-renames",
                "-z",
                "--end-of-options",
            ])
            .args([base, tree])
            .text()
            .await?;
        let count = names.split('\0').filter(|name| !name.is_empty()).count();
        text.push_str(&format!("{FILES}{count}\n"));
    }
    Ok(text)
}

/// The mark under which a state was kept; none in what an earlier version has kept.
pub(crate) async fn mark_of(path: &Path, commit: &str) -> Result<Option<String>, WorktreeError> {
    let message = Git::new(path, "look at a kept state")
        .args([
            "log",
            "-1",
            "--no-show-signature",
            "--format=%B",
            "--end-of-options",
            commit,
        ])
        .text()
        .await?;
    let mark = message.lines().find_map(|line| line.strip_prefix(STATE));
    Ok(mark.map(|mark| mark.trim().to_owned()))
}

pub(crate) async fn list(root: &Path) -> Result<Vec<Preserved>, WorktreeError> {
    // Records end with a byte that no message can hold.
    let listing = Git::new(root, "list the states that were kept")
        .limit(LIMIT_LONG)
        .args(["for-each-ref", "--sort=-committerdate"])
        .arg(format!("--count={PRESERVED_LISTED_MAX}"))
        .arg("--format=%(refname)%00%(objectname)%00%(committerdate:unix)%00%(contents)%00")
        .arg(FOLDER)
        .text()
        .await?;
    let fields: Vec<&str> = listing.split('\0').collect();
    Ok(fields.chunks_exact(4).filter_map(parse).collect())
}

fn parse(record: &[&str]) -> Option<Preserved> {
    let [refname, commit, kept_at, message] = record else {
        return None;
    };
    let value = |label: &str| {
        message
            .lines()
            .find_map(|line| line.strip_prefix(label))
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    Some(Preserved {
        name: refname.trim_start().strip_prefix(FOLDER)?.to_owned(),
        branch: value(BRANCH),
        commit: (*commit).to_owned(),
        kept_at: kept_at.parse().unwrap_or(0),
        files_changed: value(FILES).and_then(|count| count.parse().ok()).unwrap_or(0),
        why: value(WHY).unwrap_or_else(|| message.lines().next().unwrap_or_default().to_owned()),
    })
}

/// Caller holds the repository's lock and has checked the branch's name.
pub(crate) async fn restore(
    repository: &Repository,
    name: &str,
    to_branch: &str,
) -> Result<Restored, WorktreeError> {
    let root = repository.root();
    let missing = || WorktreeError::NotPreserved {
        path: root.to_owned(),
        name: name.to_owned(),
    };
    // One plain component: a name from outside must not reach other refs.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(missing());
    }
    let commit = commit_of(root, &reference(name)).await?.ok_or_else(missing)?;
    let branch = format!("refs/heads/{to_branch}");
    if commit_of(root, &branch).await?.is_some() {
        return Err(WorktreeError::BranchTaken {
            path: root.to_owned(),
            branch: to_branch.to_owned(),
        });
    }
    // The empty old value makes it a creation only, also against programs that do not know our lock.
    Git::new(root, format!("make the branch {to_branch}"))
        .args(["update-ref", "-m", "semo: restore", &branch, &commit, ""])
        .text()
        .await?;
    Ok(Restored {
        branch: to_branch.to_owned(),
        commit,
    })
}
