//! What a copy of the state cannot hold: other repositories inside a worktree, and more data than a repository is to
//! be filled with. Looked for before anything is kept or removed; finding it means that the folder stays.

use std::path::Path;

use crate::error::WorktreeError;
use crate::git::{Git, LIMIT_LONG};
use crate::repository::commit_of;

/// Most bytes of new and changed files that are copied into the repository for one state. Work fits; a dump or a
/// model that lies about does not, and would stay in the user's repository for good.
pub const NEW_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// Refuses when the files that would be copied are larger than [`NEW_BYTES_MAX`] together.
pub(crate) async fn check_size(worktree: &Path) -> Result<(), WorktreeError> {
    check_size_below(worktree, NEW_BYTES_MAX).await
}

/// The same with a limit of the caller's, in bytes.
pub(crate) async fn check_size_below(worktree: &Path, bytes_max: u64) -> Result<(), WorktreeError> {
    let listing = Git::new(worktree, "list new and changed files")
        .limit(LIMIT_LONG)
        .args(["ls-files", "-z", "--others", "--modified", "--exclude-standard"])
        .text()
        .await?;
    let size = |name: &str| std::fs::symlink_metadata(worktree.join(name)).map_or(0, |found| found.len());
    let bytes: u64 = listing
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(size)
        .sum();
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(WorktreeError::TooLarge {
        path: worktree.to_owned(),
        mib: bytes.div_ceil(MIB),
        max_mib: bytes_max / MIB,
    })
}

/// A repository inside is only a pointer in the kept tree: its commits and files would be lost. A submodule in which
/// nothing is but what its remote has may go; then the answer is `true`.
pub(crate) async fn check_inner_repositories(worktree: &Path, tree: &str) -> Result<bool, WorktreeError> {
    // A name that is no UTF-8 cannot be looked up by its text: taken as present, so that the folder stays.
    let present: Vec<String> = pointers(worktree, tree)
        .await?
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| {
            name.contains(char::REPLACEMENT_CHARACTER) || worktree.join(name).join(".git").exists()
        })
        .collect();
    if present.is_empty() {
        return Ok(false);
    }
    let committed = match commit_of(worktree, "HEAD").await? {
        Some(head) => pointers(worktree, &head).await?,
        None => Vec::new(),
    };
    let mut with_work = Vec::new();
    for name in present {
        let pointer = committed
            .iter()
            .find(|(_, its)| *its == name)
            .map(|(commit, _)| commit);
        let bare_copy = match pointer {
            Some(commit) => holds_only(&worktree.join(&name), commit).await?,
            None => false,
        };
        if !bare_copy {
            with_work.push(name);
        }
    }
    if with_work.is_empty() {
        return Ok(true);
    }
    Err(WorktreeError::InnerRepository {
        path: worktree.to_owned(),
        inner: with_work.join(", "),
    })
}

/// Commit and path of every repository that a tree points at.
async fn pointers(worktree: &Path, tree: &str) -> Result<Vec<(String, String)>, WorktreeError> {
    let entries = Git::new(worktree, "look for inner repositories")
        .limit(LIMIT_LONG)
        .args(["ls-tree", "-r", "-z", "--full-tree", tree])
        .text()
        .await?;
    Ok(entries
        .split('\0')
        .filter_map(|entry| entry.strip_prefix("160000 commit "))
        .filter_map(|entry| entry.split_once('\t'))
        .map(|(commit, name)| (commit.to_owned(), name.to_owned()))
        .collect())
}

/// Whether a submodule stands at `commit` with nothing changed, stashed, or committed that no remote branch has.
async fn holds_only(submodule: &Path, commit: &str) -> Result<bool, WorktreeError> {
    if commit_of(submodule, "HEAD").await?.as_deref() != Some(commit) {
        return Ok(false);
    }
    let say = |args: &'static [&'static str]| {
        Git::new(submodule, "look into a submodule")
            .limit(LIMIT_LONG)
            .args(args)
            .text()
    };
    let status = say(&["status", "--porcelain=v1", "--untracked-files=all"]).await?;
    let own = say(&["rev-list", "--max-count=1", "--all", "HEAD", "--not", "--remotes"]).await?;
    // A stash is a ref of its own, so `--all` above covers it.
    Ok(status.is_empty() && own.is_empty())
}
