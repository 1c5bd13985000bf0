//! Keeping the whole state of a worktree as a commit, and removing the worktree after that.
//!
//! What is kept: everything git would see in the folder, untracked files too, also where a flag in the index hides a
//! change from `git status`; and, as further parents of that commit, what only the index or a reflog holds, and the
//! state that was kept before. What is not: what the project ignores, empty folders, pipes and sockets.

use std::path::{Path, PathBuf};

use domain::SessionId;
use sha2::{Digest, Sha256};

use crate::error::WorktreeError;
use crate::git::{Git, LIMIT_LONG};
use crate::inner::{check_inner_repositories, check_size};
use crate::preserved::{self, Why};
use crate::repository::{Worktree, commit_of};
use crate::unseen::{index_tree, reflog_tips};

/// How often the state is kept anew because files changed meanwhile, before a removal is given up.
const KEEP_ROUNDS_MAX: usize = 3;
/// Most paths given to one call of git as arguments; far below what a system takes.
const PATHS_PER_CALL: usize = 200;

/// Where the state of a worktree was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The ref: `refs/semo/preserved/<session>`.
    pub reference: String,
    /// The commit it points at; its tree is the whole worktree, its first parent the HEAD of that moment.
    pub commit: String,
}

/// Caller holds the repository's lock.
pub(crate) async fn preserve(worktree: &Worktree, session: SessionId) -> Result<Option<Kept>, WorktreeError> {
    worktree.check_place().await?;
    check_size(&worktree.path).await?;
    let snapshot = Snapshot::take(worktree).await?;
    keep(worktree, session, &snapshot, Why::SessionEnded).await
}

/// Caller holds the repository's lock.
pub(crate) async fn remove(worktree: &Worktree, session: SessionId) -> Result<Option<Kept>, WorktreeError> {
    worktree.check_place().await?;
    check_size(&worktree.path).await?;
    let mut snapshot = Snapshot::take(worktree).await?;
    let mut preserved = None;
    let mut submodules = false;
    for round in 0.. {
        submodules |= check_inner_repositories(&worktree.path, &snapshot.tree).await?;
        preserved = keep(worktree, session, &snapshot, Why::Removed)
            .await?
            .or(preserved);
        let again = Snapshot::take(worktree).await?;
        if again == snapshot {
            break;
        }
        if round + 1 >= KEEP_ROUNDS_MAX {
            return Err(WorktreeError::StillChanging {
                path: worktree.path.clone(),
            });
        }
        snapshot = again;
    }
    let mut call = Git::new(
        worktree.repository().root(),
        format!("remove the worktree {}", worktree.path.display()),
    )
    .limit(LIMIT_LONG)
    .args(["worktree", "remove"]);
    if !snapshot.is_plain() || submodules {
        // All of it has just been kept, or lies elsewhere too; without this git would refuse.
        call = call.arg("--force");
    }
    call.arg("--").arg(&worktree.path).text().await?;
    drop_empty_branch(worktree).await?;
    tracing::info!(
        worktree = %worktree.path.display(),
        kept = preserved.as_ref().map_or("", |kept: &Kept| &kept.reference),
        "removed a worktree"
    );
    Ok(preserved)
}

/// All that git would see in the folder, as a tree.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    head: Option<String>,
    tree: String,
    dirty: bool,
    /// The tree of the index, where it holds what neither the files nor HEAD do.
    index: Option<String>,
    /// Commits that only reflogs hold.
    tips: Vec<String>,
}

impl Snapshot {
    /// Writes objects only: it works on a copy of the index.
    async fn take(worktree: &Worktree) -> Result<Snapshot, WorktreeError> {
        let path = worktree.path.as_path();
        let what = || format!("keep the state of {}", path.display());
        let index = git_path(path, "index").await?;
        let folder = index.parent().unwrap_or(path).to_owned();
        let staged = {
            let copy = copy_of(&index, &folder)?;
            index_tree(path, &copy).await?
        };
        let copy = copy_of(&index, &folder)?;
        show_hidden_changes(path, &copy).await?;
        Git::new(path, what())
            .limit(LIMIT_LONG)
            .index(&copy)
            .args([
                "-c",
                "advice.addEmbeddedRepo=false",
                "-c",
                "core.safecrlf=false",
                "add",
                "--all",
                "--",
                ".",
            ])
            .text()
            .await?;
        let tree = Git::new(path, what())
            .index(&copy)
            .arg("write-tree")
            .text()
            .await?;
        let head = commit_of(path, "HEAD").await?;
        let committed = match &head {
            Some(head) => {
                Git::new(path, what())
                    .args(["rev-parse", &format!("{head}^{{tree}}")])
                    .text()
                    .await?
            }
            None => String::new(),
        };
        Ok(Snapshot {
            dirty: committed != tree,
            index: Some(staged).filter(|staged| *staged != committed && *staged != tree),
            tips: reflog_tips(path, &worktree.branch).await?,
            head,
            tree,
        })
    }

    /// Whether the files are as HEAD has them and nothing else is to be kept beside it.
    fn is_plain(&self) -> bool {
        !self.dirty && self.index.is_none() && self.tips.is_empty()
    }

    /// The same for the same state.
    fn mark(&self) -> String {
        let parts = [
            self.head.as_deref().unwrap_or("-"),
            &self.tree,
            self.index.as_deref().unwrap_or("-"),
            &self.tips.join(" "),
        ];
        let hash = Sha256::digest(parts.join("\n").as_bytes());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A copy of an index. With it comes what git knows of unchanged files, so that it need not read them all again. Where
/// there is none, git must not find an empty file in its place.
pub(crate) fn copy_of(index: &Path, folder: &Path) -> Result<tempfile::TempPath, WorktreeError> {
    let copy = tempfile::Builder::new()
        .prefix("semo-index-")
        .tempfile_in(folder)
        .map_err(WorktreeError::io("make a file in", folder))?;
    let copy = copy.into_temp_path();
    if index.exists() {
        std::fs::copy(index, &copy).map_err(WorktreeError::io("copy", index))?;
    } else {
        std::fs::remove_file(&copy).map_err(WorktreeError::io("prepare", &copy))?;
    }
    Ok(copy)
}

/// Takes the flags "assume unchanged" and "skip worktree" from files that are there: an agent may have set them to keep
/// a change out of its commits, and `git add` would pass over that change.
pub(crate) async fn show_hidden_changes(path: &Path, index: &Path) -> Result<(), WorktreeError> {
    let what = || format!("look for hidden changes in {}", path.display());
    let listing = Git::new(path, what())
        .limit(LIMIT_LONG)
        .index(index)
        .args(["ls-files", "-v", "-z"])
        .text()
        .await?;
    let mut assumed = Vec::new();
    let mut skipped = Vec::new();
    for entry in listing.split('\0') {
        let Some((tag, name)) = entry.split_once(' ') else {
            continue;
        };
        if tag.starts_with(|tag: char| tag.is_ascii_lowercase()) {
            assumed.push(name);
        }
        // One that is not there is left out by a sparse check-out: it must not look deleted.
        // (A name that is no UTF-8 makes the call below fail: then the folder stays.)
        let odd = name.contains(char::REPLACEMENT_CHARACTER);
        if tag.eq_ignore_ascii_case("s") && (odd || std::fs::symlink_metadata(path.join(name)).is_ok()) {
            skipped.push(name);
        }
    }
    for (flag, names) in [
        ("--no-assume-unchanged", assumed),
        ("--no-skip-worktree", skipped),
    ] {
        for some in names.chunks(PATHS_PER_CALL) {
            Git::new(path, what())
                .index(index)
                .args(["update-index", flag, "--"])
                .args(some)
                .text()
                .await?;
        }
    }
    Ok(())
}

async fn keep(
    worktree: &Worktree,
    session: SessionId,
    snapshot: &Snapshot,
    why: Why,
) -> Result<Option<Kept>, WorktreeError> {
    let path = &worktree.path;
    let reference = preserved::reference(&session.to_string());
    if let Some(head) = &snapshot.head
        && snapshot.is_plain()
        && held_elsewhere(path, head).await?
    {
        return Ok(None);
    }
    let earlier = commit_of(path, &reference).await?;
    let mark = snapshot.mark();
    // The same state, kept before: nothing to add.
    if let Some(commit) = &earlier
        && preserved::mark_of(path, commit).await?.as_deref() == Some(&mark)
    {
        let commit = commit.clone();
        return Ok(Some(Kept { reference, commit }));
    }
    let mut parents: Vec<String> = snapshot.head.iter().cloned().collect();
    if let Some(index) = &snapshot.index {
        parents.push(commit_tree(path, "The index", &parents, index).await?);
    }
    parents.extend(snapshot.tips.iter().cloned());
    // What was kept before stays in reach.
    parents.extend(earlier);
    let message = preserved::message(worktree, session, &snapshot.tree, why, &mark).await?;
    let commit = commit_tree(path, &message, &parents, &snapshot.tree).await?;
    Git::new(path, format!("write {reference}"))
        .args([
            "update-ref",
            "--create-reflog",
            "-m",
            "semo: preserve",
            &reference,
            &commit,
        ])
        .text()
        .await?;
    Ok(Some(Kept { reference, commit }))
}

async fn commit_tree(
    path: &Path,
    message: &str,
    parents: &[String],
    tree: &str,
) -> Result<String, WorktreeError> {
    Git::new(path, "commit the kept state")
        .args(["commit-tree", "--no-gpg-sign", "-m", message])
        .args(parents.iter().flat_map(|parent| ["-p", parent]))
        .arg(tree)
        .text()
        .await
}

/// Whether a branch, tag or remote branch holds the commit, so that it outlives the worktree's HEAD.
async fn held_elsewhere(path: &Path, commit: &str) -> Result<bool, WorktreeError> {
    let holders = Git::new(path, "look for branches that hold a commit")
        .limit(LIMIT_LONG)
        .args([
            "for-each-ref",
            "--count=1",
            "--format=%(refname)",
            "--contains",
            commit,
        ])
        .args(["refs/heads", "refs/tags", "refs/remotes"])
        .text()
        .await?;
    Ok(!holders.is_empty())
}

/// Our branch goes with the worktree when another local branch holds all of it, as `git branch -d` would judge. A
/// branch with work of its own stays, as does one that moved or was never ours.
async fn drop_empty_branch(worktree: &Worktree) -> Result<(), WorktreeError> {
    let root = worktree.repository().root();
    let own = format!("refs/heads/{}", worktree.branch);
    if worktree.branch.is_empty() {
        return Ok(());
    }
    let Some(tip) = commit_of(root, &own).await? else {
        return Ok(());
    };
    let holders = Git::new(root, "look for branches that hold a commit")
        .limit(LIMIT_LONG)
        .args([
            "for-each-ref",
            "--format=%(refname)",
            "--contains",
            &tip,
            "refs/heads",
        ])
        .text()
        .await?;
    if !holders.lines().any(|holder| holder != own) {
        return Ok(());
    }
    Git::new(root, format!("delete the branch {}", worktree.branch))
        .args(["update-ref", "-d", &own, &tip])
        .text()
        .await?;
    Ok(())
}

pub(crate) async fn git_path(dir: &Path, name: &str) -> Result<PathBuf, WorktreeError> {
    let text = Git::new(dir, "find the git folder")
        .args(["rev-parse", "--git-path", name])
        .text()
        .await?;
    Ok(dir.join(text))
}
