//! What git says about a worktree: evidence that we checked ourselves.

use std::path::Path;

use serde::Serialize;

use crate::error::WorktreeError;
use crate::git::{Git, LIMIT_LONG};
use crate::repository::{commit_of, head_branch};

/// The state of a worktree at one moment: totals, whoever made them and whenever. What one turn has made of it is told
/// by [`crate::changes`]. Ours are not counted: the persona file is hidden from git.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct GitFacts {
    /// The commit that is checked out; absent in a repository without one.
    pub head: Option<String>,
    /// The branch; absent when HEAD is detached.
    pub branch: Option<String>,
    /// Whether anything in the whole worktree is not committed, untracked files included.
    pub dirty: bool,
    /// How many files of the whole worktree git does not track (whole new folders are counted by their files).
    pub untracked: u32,
    /// Files that differ from the commit that was compared with (HEAD when none was named), untracked ones included.
    pub files_changed: u32,
    /// Lines added in tracked files.
    pub insertions: u64,
    /// Lines removed in tracked files.
    pub deletions: u64,
    /// Commits between the commit that was compared with and HEAD.
    pub commits: u32,
    /// The newest of them, newest first; at most [`COMMITS_MAX`].
    pub new_commits: Vec<CommitFact>,
    /// All commits of HEAD that are on no remote-tracking branch, older ones too; absent where there is no remote to compare with.
    pub unpushed: Option<u32>,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitFact {
    /// Its full id.
    pub sha: String,
    /// The first line of its message, clipped.
    pub subject: String,
}

/// Commits that are named; all are counted.
pub const COMMITS_MAX: usize = 50;
/// Characters kept of a commit's subject.
const SUBJECT_CHARS_MAX: usize = 200;

/// Reads the facts about the worktree `path`, compared with the commit `since`. Takes no lock and writes nothing, so it
/// may run while the agent works.
pub async fn facts(path: &Path, since: Option<&str>) -> Result<GitFacts, WorktreeError> {
    let head = commit_of(path, "HEAD").await?;
    let branch = head_branch(path).await?;
    let (changed, untracked) = status(path).await?;
    let mut facts = GitFacts {
        head,
        branch,
        dirty: changed + untracked > 0,
        untracked,
        files_changed: untracked,
        ..GitFacts::default()
    };
    let Some(head) = facts.head.clone() else {
        return Ok(facts);
    };
    let since = since.unwrap_or(&head);
    let lines = Git::new(path, "compare the files")
        .limit(LIMIT_LONG)
        .args([
            "diff",
            "--numstat",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
        ])
        .args(["--end-of-options", since, "--"])
        .text()
        .await?;
    for line in lines.lines() {
        let mut columns = line.split('\t');
        facts.files_changed += 1;
        // Binary files show `-`: changed, with no lines to count.
        facts.insertions += columns.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        facts.deletions += columns.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    let range = format!("{since}..{head}");
    facts.commits = count(path, &[&range]).await?.unwrap_or(0);
    if facts.commits > 0 {
        facts.new_commits = commits(path, &range).await?;
    }
    let remotes = Git::new(path, "list the remote branches")
        .args(["for-each-ref", "--count=1", "--format=%(refname)", "refs/remotes"])
        .text()
        .await?;
    if !remotes.is_empty() {
        facts.unpushed = count(path, &[&head, "--not", "--remotes"]).await?;
    }
    Ok(facts)
}

/// How many tracked files are changed, and how many are untracked.
async fn status(path: &Path) -> Result<(u32, u32), WorktreeError> {
    let listing = Git::new(path, "read the state of the files")
        .limit(LIMIT_LONG)
        .args([
            "status",
            "--porcelain=v1",
            "--untracked-files=all",
            "--no-renames",
        ])
        .text()
        .await?;
    let untracked = listing.lines().filter(|line| line.starts_with("??")).count();
    let all = listing.lines().count();
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok((size(all - untracked), size(untracked)))
}

/// The newest commits of a range.
async fn commits(path: &Path, range: &str) -> Result<Vec<CommitFact>, WorktreeError> {
    let listing = Git::new(path, "list the commits")
        .args(["log", "--no-show-signature", "--no-color", "--format=%H %s"])
        .args([
            &format!("--max-count={COMMITS_MAX}"),
            "--end-of-options",
            range,
            "--",
        ])
        .text()
        .await?;
    let one = |line: &str| {
        let (sha, subject) = line.split_once(' ').unwrap_or((line, ""));
        CommitFact {
            sha: sha.to_owned(),
            subject: subject.chars().take(SUBJECT_CHARS_MAX).collect(),
        }
    };
    Ok(listing.lines().map(one).collect())
}

async fn count(path: &Path, range: &[&str]) -> Result<Option<u32>, WorktreeError> {
    let answer = Git::new(path, "count the commits")
        .args(["rev-list", "--count"])
        .args(range)
        .answer()
        .await?;
    Ok(answer.ok().then(|| answer.text().parse().ok()).flatten())
}
