//! What can go wrong between us and a git repository, in words for the person at the workstation.

use std::path::PathBuf;

/// Why something could not be done with a repository or a worktree. Nothing was changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum WorktreeError {
    /// `git` is not installed.
    #[error(
        "could not {what}: the program `git` was not found; install it (Debian, Ubuntu: `sudo apt install git`; \
         macOS: `xcode-select --install`)"
    )]
    GitMissing {
        /// What was attempted.
        what: String,
    },
    /// The repository's folder does not exist.
    #[error(
        "could not open the repository {path}: there is no such folder; clone it there or correct the settings"
    )]
    NotFound {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is no git repository.
    #[error(
        "could not open the repository {path}: it is not a git repository; run `git init` there and make a first \
         commit, or correct the settings"
    )]
    NotGit {
        /// The folder.
        path: PathBuf,
    },
    /// The folder lies within a repository, but is not its top.
    #[error("could not open the repository {path}: it is only a part of the repository {top}; name that one")]
    NotTop {
        /// The folder.
        path: PathBuf,
        /// The repository around it.
        top: PathBuf,
    },
    /// Git does not trust the folder, because it belongs to somebody else.
    #[error(
        "could not open the repository {path}: it belongs to another user, so git refuses it; if you trust it, run \
         `git config --global --add safe.directory {path}`"
    )]
    ForeignOwner {
        /// The folder.
        path: PathBuf,
    },
    /// There is no commit that a worktree could start from.
    #[error("could not make a worktree of {path}: the repository has no commit yet; make a first one")]
    NoCommit {
        /// The repository.
        path: PathBuf,
    },
    /// The base is no commit of the repository.
    #[error(
        "could not make a worktree of {path}: `{base}` is no branch, tag or commit there; fetch or correct it"
    )]
    UnknownBase {
        /// The repository.
        path: PathBuf,
        /// What was asked for.
        base: String,
    },
    /// A name that cannot be used as a branch or as a folder.
    #[error("could not make a worktree: `{name}` cannot be used as {what}")]
    BadName {
        /// As what it was to be used.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The branch exists already.
    #[error(
        "could not make the branch `{branch}` in {path}: it exists already; nothing was changed, name another"
    )]
    BranchTaken {
        /// The repository.
        path: PathBuf,
        /// The branch.
        branch: String,
    },
    /// Something lies where the worktree should be.
    #[error("could not make a worktree in {dir}: something is there already; move it away")]
    Occupied {
        /// The folder.
        dir: PathBuf,
    },
    /// The path is not a worktree of this repository, or not inside the folder it must be in.
    #[error("refused to work in {path}: it is not {expected}")]
    WrongPlace {
        /// The path.
        path: PathBuf,
        /// What it should have been.
        expected: String,
    },
    /// Another program of ours holds the repository.
    #[error(
        "could not {what} {path}: another session is changing the repository; tried for {waited_s} s, try again"
    )]
    Locked {
        /// What was attempted.
        what: &'static str,
        /// The repository.
        path: PathBuf,
        /// How long we waited, in seconds.
        waited_s: u64,
    },
    /// Every file that could take the persona is part of the project.
    #[error(
        "could not write the persona in {path}: the project itself tracks {files}, which is not ours to change; \
         stop tracking one of them"
    )]
    PersonaPlace {
        /// The worktree.
        path: PathBuf,
        /// The files that were considered.
        files: String,
    },
    /// Files kept changing while the state was being kept; the worktree is still there.
    #[error("did not remove {path}: its files are still being changed; stop what writes there and try again")]
    StillChanging {
        /// The worktree.
        path: PathBuf,
    },
    /// A repository or submodule inside, whose own history a removal would lose; the worktree is still there.
    #[error(
        "did not remove {path}: it holds other git repositories ({inner}), whose history would be lost; move them \
         away or remove the worktree by hand"
    )]
    InnerRepository {
        /// The worktree.
        path: PathBuf,
        /// The paths inside.
        inner: String,
    },
    /// More new data than is copied into the repository; the worktree is still there.
    #[error(
        "did not keep the state of {path}: its new and changed files are {mib} MiB, more than the {max_mib} MiB that are \
         copied into the repository; the folder stays; move the large files away or let git ignore them"
    )]
    TooLarge {
        /// The worktree.
        path: PathBuf,
        /// The size of what would be kept, in MiB.
        mib: u64,
        /// The limit, in MiB.
        max_mib: u64,
    },
    /// No kept state of that name.
    #[error("could not restore `{name}` in {path}: no state of that name is kept there")]
    NotPreserved {
        /// The repository.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Git took too long and was ended.
    #[error(
        "could not {what}: git did not finish within {limit_s} s and was stopped; is the disk or network stuck?"
    )]
    TimedOut {
        /// What was attempted.
        what: String,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// Git refused.
    #[error("could not {what}: git says: {said}")]
    Git {
        /// What was attempted.
        what: String,
        /// Git's words, cut to a sane length.
        said: String,
    },
    /// The file system refused.
    #[error("could not {what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's report.
        source: std::io::Error,
    },
}

impl WorktreeError {
    pub(crate) fn io(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> WorktreeError {
        let path = path.to_owned();
        move |source| WorktreeError::Io { what, path, source }
    }
}
