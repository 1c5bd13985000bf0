//! The mark of our own worktrees: a small file in the worktree's part of the git folder (never among the user's
//! files), which says what the worktree was made as. Only a worktree that has it is ever taken up again or removed.

use std::path::{Path, PathBuf};

use crate::error::WorktreeError;
use crate::git::Git;

/// Name of the file.
const FILE: &str = "semo-worktree";

/// What a worktree was made as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) branch: String,
    pub(crate) base: String,
}

pub(crate) async fn write(worktree: &Path, record: &Record) -> Result<(), WorktreeError> {
    let file = place(worktree).await?;
    std::fs::write(&file, format!("{}\n{}\n", record.branch, record.base))
        .map_err(WorktreeError::io("write", &file))
}

/// `None` when the worktree is not one of ours.
pub(crate) async fn read(worktree: &Path) -> Result<Option<Record>, WorktreeError> {
    let file = place(worktree).await?;
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WorktreeError::io("read", &file)(error)),
    };
    let mut lines = text.lines();
    Ok(match (lines.next(), lines.next()) {
        (Some(branch), Some(base)) => Some(Record {
            branch: branch.to_owned(),
            base: base.to_owned(),
        }),
        _ => None,
    })
}

async fn place(worktree: &Path) -> Result<PathBuf, WorktreeError> {
    let folder = Git::new(worktree, "find the git folder")
        .args(["rev-parse", "--absolute-git-dir"])
        .text()
        .await?;
    Ok(PathBuf::from(folder).join(FILE))
}
