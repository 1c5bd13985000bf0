//! Keeping the whole state of a worktree as a commit, and removing the worktree after that.

use std::path::{Path, PathBuf};

use domain::SessionId;

use crate::error::WorktreeError;
use crate::git::{Git, LIMIT_LONG};
use crate::repository::{Worktree, commit_of};

/// How often the state is kept anew because files changed meanwhile, before a removal is given up.
const KEEP_ROUNDS_MAX: usize = 3;

/// Where the state of a worktree was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preserved {
    /// The ref: `refs/semo/preserved/<session>`.
    pub reference: String,
    /// The commit it points at; its tree is the whole worktree, its parent the HEAD of that moment.
    pub commit: String,
}

/// Caller holds the repository's lock.
pub(crate) async fn preserve(
    worktree: &Worktree,
    session: SessionId,
) -> Result<Option<Preserved>, WorktreeError> {
    let snapshot = Snapshot::take(&worktree.path).await?;
    keep(worktree, session, &snapshot).await
}

/// Caller holds the repository's lock.
pub(crate) async fn remove(
    worktree: &Worktree,
    session: SessionId,
) -> Result<Option<Preserved>, WorktreeError> {
    worktree.repository().worktree(&worktree.path).await?;
    let mut snapshot = Snapshot::take(&worktree.path).await?;
    let mut preserved = None;
    for round in 0.. {
        refuse_inner_repositories(worktree, &snapshot).await?;
        preserved = keep(worktree, session, &snapshot).await?.or(preserved);
        let again = Snapshot::take(&worktree.path).await?;
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
    if snapshot.dirty {
        // All of it has just been kept; without this git would refuse.
        call = call.arg("--force");
    }
    call.arg(&worktree.path).text().await?;
    drop_empty_branch(worktree).await?;
    tracing::info!(
        worktree = %worktree.path.display(),
        kept = preserved.as_ref().map_or("", |kept: &Preserved| &kept.reference),
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
}

impl Snapshot {
    /// Writes objects only: it works on a copy of the index.
    async fn take(path: &Path) -> Result<Snapshot, WorktreeError> {
        let what = || format!("keep the state of {}", path.display());
        let index = git_path(path, "index").await?;
        let folder = index.parent().unwrap_or(path).to_owned();
        let copy = tempfile::Builder::new()
            .prefix("semo-index-")
            .tempfile_in(&folder)
            .map_err(WorktreeError::io("make a file in", &folder))?;
        // With the index comes what git knows of unchanged files, so that it need not read them all again. Where
        // there is none, git must not find an empty file in its place.
        let copy = copy.into_temp_path();
        if index.exists() {
            std::fs::copy(&index, &copy).map_err(WorktreeError::io("copy", &index))?;
        } else {
            std::fs::remove_file(&copy).map_err(WorktreeError::io("prepare", &copy))?;
        }
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
            head,
            tree,
        })
    }
}

async fn keep(
    worktree: &Worktree,
    session: SessionId,
    snapshot: &Snapshot,
) -> Result<Option<Preserved>, WorktreeError> {
    let path = &worktree.path;
    let reference = format!("refs/semo/preserved/{session}");
    let commit = match &snapshot.head {
        Some(head) if !snapshot.dirty => {
            if held_elsewhere(path, head, &reference).await? {
                return Ok(None);
            }
            head.clone()
        }
        head => {
            let mut call = Git::new(path, "commit the kept state").args([
                "commit-tree",
                "--no-gpg-sign",
                "-m",
                &format!("State of session {session} before its worktree was removed"),
            ]);
            if let Some(head) = head {
                call = call.args(["-p", head]);
            }
            call.arg(&snapshot.tree).text().await?
        }
    };
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
    Ok(Some(Preserved { reference, commit }))
}

/// Whether a branch, tag or remote branch holds the commit, so that it outlives the worktree's HEAD.
async fn held_elsewhere(path: &Path, commit: &str, reference: &str) -> Result<bool, WorktreeError> {
    let holders = Git::new(path, "look for branches that hold a commit")
        .limit(LIMIT_LONG)
        .args([
            "for-each-ref",
            "--count=1",
            "--format=%(refname)",
            "--contains",
            commit,
        ])
        .args(["refs/heads", "refs/tags", "refs/remotes", reference])
        .text()
        .await?;
    Ok(!holders.is_empty())
}

/// A repository inside is only a pointer in the kept tree: its commits and files would be lost.
async fn refuse_inner_repositories(worktree: &Worktree, snapshot: &Snapshot) -> Result<(), WorktreeError> {
    let entries = Git::new(&worktree.path, "look for inner repositories")
        .limit(LIMIT_LONG)
        .args(["ls-tree", "-r", "-z", "--full-tree", &snapshot.tree])
        .text()
        .await?;
    let inner: Vec<&str> = entries
        .split('\0')
        .filter(|entry| entry.starts_with("160000 "))
        .filter_map(|entry| entry.split_once('\t').map(|(_, name)| name))
        .filter(|name| worktree.path.join(name).join(".git").exists())
        .collect();
    if inner.is_empty() {
        return Ok(());
    }
    Err(WorktreeError::InnerRepository {
        path: worktree.path.clone(),
        inner: inner.join(", "),
    })
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

async fn git_path(dir: &Path, name: &str) -> Result<PathBuf, WorktreeError> {
    let text = Git::new(dir, "find the git folder")
        .args(["rev-parse", "--git-path", name])
        .text()
        .await?;
    Ok(dir.join(text))
}
