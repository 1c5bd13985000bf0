//! What was changed between two moments, committed or not: the files of a worktree as a tree, before and after.
//!
//! A commit alone cannot tell that: what lay uncommitted before would be counted as new. Writes objects only, through a
//! copy of the index. Called by `session` around every turn.

use std::path::Path;

use crate::error::WorktreeError;
use crate::git::{Git, LIMIT_LONG};
use crate::inner::check_size_below;
use crate::preserve::{copy_of, git_path, show_hidden_changes};
use crate::repository::commit_of;

/// Most bytes of new and changed files that are read and stored only to tell what a turn has changed.
pub const FACT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What lies between two states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Files that were added, changed or removed.
    pub files: u32,
    /// Lines added; binary files have none.
    pub insertions: u64,
    /// Lines removed.
    pub deletions: u64,
}

/// The commit that is checked out in the worktree `path`; none in a repository without one.
pub async fn head(path: &Path) -> Result<Option<String>, WorktreeError> {
    commit_of(path, "HEAD").await
}

/// All that git sees in the worktree `path` now, untracked files too, as the id of a tree. An error where more than
/// [`FACT_BYTES_MAX`] are new. May be dropped at any time and leaves nothing behind then.
pub async fn tree(path: &Path) -> Result<String, WorktreeError> {
    let what = || format!("read the state of {}", path.display());
    check_size_below(path, FACT_BYTES_MAX).await?;
    let index = git_path(path, "index").await?;
    let beside = index.parent().unwrap_or(path);
    // A folder of its own: with it goes the lock of a git that was ended.
    let folder = tempfile::Builder::new()
        .prefix("semo-index-")
        .tempdir_in(beside)
        .map_err(WorktreeError::io("make a folder in", beside))?;
    let copy = copy_of(&index, folder.path())?;
    show_hidden_changes(path, &copy).await?;
    let quiet = ["-c", "advice.addEmbeddedRepo=false", "-c", "core.safecrlf=false"];
    Git::new(path, what())
        .limit(LIMIT_LONG)
        .index(&copy)
        .args(quiet)
        .args(["add", "--all", "--", "."])
        .text()
        .await?;
    Git::new(path, what()).index(&copy).arg("write-tree").text().await
}

/// What lies between two such trees.
pub async fn changes(path: &Path, before: &str, after: &str) -> Result<Changes, WorktreeError> {
    if before == after {
        return Ok(Changes::default());
    }
    let lines = Git::new(path, "compare two states of the files")
        .limit(LIMIT_LONG)
        .args(["diff-tree", "-r", "--numstat", "--no-renames"])
        .args(["--no-ext-diff", "--no-textconv", "--end-of-options"])
        .args([before, after])
        .text()
        .await?;
    let mut changes = Changes::default();
    for line in lines.lines() {
        let mut columns = line.split('\t');
        let mut count = || columns.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        changes.files += 1;
        changes.insertions += count();
        changes.deletions += count();
    }
    Ok(changes)
}
