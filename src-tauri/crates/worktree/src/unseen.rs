//! Work in a worktree that is neither in its files nor on a branch: what stands in the index only (staged and then
//! changed or deleted, both sides of a conflict), and commits that only a reflog still holds. Read before a worktree
//! goes, so that it can be kept; the user's index is never written. Called by `preserve`.

use std::collections::HashSet;
use std::path::Path;

use crate::error::WorktreeError;
use crate::git::{Git, LIMIT_LONG};

/// Newest entries of a reflog that are looked at.
const REFLOG_ENTRIES_MAX: usize = 500;
/// Commits that are kept for the sake of a reflog, the newest first.
pub(crate) const TIPS_MAX: usize = 20;
/// Most paths given to one call of git as arguments.
const PATHS_PER_CALL: usize = 200;

/// The tree of the index, with the sides of a conflict as files of their own beside the file: `x~base`, `x~ours`,
/// `x~theirs`. `copy` is a copy of the worktree's index and is changed.
pub(crate) async fn index_tree(path: &Path, copy: &Path) -> Result<String, WorktreeError> {
    let what = || format!("keep the index of {}", path.display());
    let listing = Git::new(path, what())
        .limit(LIMIT_LONG)
        .index(copy)
        .args(["ls-files", "--unmerged", "-z"])
        .text()
        .await?;
    let mut names = Vec::new();
    let mut sides = Vec::new();
    for entry in listing.split('\0') {
        let Some((about, name)) = entry.split_once('\t') else {
            continue;
        };
        let mut words = about.split_whitespace();
        let (Some(mode), Some(object), Some(stage)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let side = match stage {
            "1" => "base",
            "2" => "ours",
            _ => "theirs",
        };
        if names.last() != Some(&name) {
            names.push(name);
        }
        sides.push(format!("{mode},{object},{name}~{side}"));
    }
    for some in names.chunks(PATHS_PER_CALL) {
        let call = Git::new(path, what()).index(copy);
        let call = call.args(["update-index", "--force-remove", "--"]);
        call.args(some).text().await?;
    }
    for some in sides.chunks(PATHS_PER_CALL) {
        let call = Git::new(path, what()).index(copy).args(["update-index", "--add"]);
        let pairs = some.iter().flat_map(|side| ["--cacheinfo", side]);
        call.args(pairs).text().await?;
    }
    Git::new(path, what())
        .limit(LIMIT_LONG)
        .index(copy)
        .arg("write-tree")
        .text()
        .await
}

/// The commits that the reflogs of HEAD and of the branch hold and no branch or tag does: the last one of each line of
/// them, at most [`TIPS_MAX`].
pub(crate) async fn reflog_tips(path: &Path, branch: &str) -> Result<Vec<String>, WorktreeError> {
    let what = "look for commits that only a reflog holds";
    let mut known: Vec<String> = Vec::new();
    let branch = (!branch.is_empty()).then(|| format!("refs/heads/{branch}"));
    for name in std::iter::once("HEAD").chain(branch.as_deref()) {
        let entries = Git::new(path, what)
            .args(["log", "--walk-reflogs", "--no-show-signature", "--format=%H"])
            .arg(format!("--max-count={REFLOG_ENTRIES_MAX}"))
            .args([name, "--"])
            .answer()
            .await?;
        // Without the name, or with nothing committed yet, there is no log of it.
        if !entries.ok() {
            continue;
        }
        for commit in entries.text().lines() {
            if !known.iter().any(|its| its == commit) {
                known.push(commit.to_owned());
            }
        }
    }
    if known.is_empty() {
        return Ok(known);
    }
    let lost = Git::new(path, what)
        .limit(LIMIT_LONG)
        .args(["rev-list", "--parents", "--ignore-missing"])
        .args(&known)
        .args(["--not", "--branches", "--tags", "--remotes", "HEAD"])
        .text()
        .await?;
    let (mut commits, mut parents) = (HashSet::new(), HashSet::new());
    for line in lost.lines() {
        let mut words = line.split_whitespace();
        commits.extend(words.next());
        parents.extend(words);
    }
    let mut tips = known;
    tips.retain(|tip| commits.contains(tip.as_str()) && !parents.contains(tip.as_str()));
    if tips.len() > TIPS_MAX {
        tracing::warn!(worktree = %path.display(), found = tips.len(), "not all commits of the reflogs are kept");
        tips.truncate(TIPS_MAX);
    }
    Ok(tips)
}
