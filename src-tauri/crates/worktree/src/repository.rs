//! A user's repository, and the worktrees of it that are ours.

use std::path::{Path, PathBuf};

use domain::SessionId;

use crate::error::WorktreeError;
use crate::facts::{GitFacts, facts};
use crate::git::{Git, LIMIT_LONG};
use crate::persona::PersonaBlock;
use crate::preserve::{self, Kept};
use crate::preserved::{self, Preserved, Restored};
use crate::record::{self, Record};
use crate::spec::WorktreeSpec;
use crate::{lock, persona};

/// An existing git repository of the user's. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    root: PathBuf,
    common_dir: PathBuf,
}

/// A worktree of ours, for one session. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worktree {
    /// Its folder, resolved.
    pub path: PathBuf,
    /// The branch that was made for it.
    pub branch: String,
    /// The commit it started from.
    pub base: Option<String>,
    pub(crate) repository: Repository,
}

impl Repository {
    /// Opens the repository whose top folder (or bare repository) is `path`.
    pub async fn open(path: &Path) -> Result<Repository, WorktreeError> {
        let real = match std::fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(WorktreeError::NotFound {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(WorktreeError::io("open the repository", path)(error)),
        };
        if !real.is_dir() {
            return Err(WorktreeError::NotGit { path: real });
        }
        let answer = Git::new(&real, format!("open the repository {}", real.display()))
            .args([
                "rev-parse",
                "--is-bare-repository",
                "--git-common-dir",
                "--show-cdup",
            ])
            .answer()
            .await?;
        if answer.stderr.contains("dubious ownership") {
            return Err(WorktreeError::ForeignOwner { path: real });
        }
        if answer.stderr.contains("not a git repository") {
            return Err(WorktreeError::NotGit { path: real });
        }
        let text = answer.success()?.text();
        let mut lines = text.lines();
        let bare = lines.next() == Some("true");
        // Git gives it relative to where it was asked; two ways to one repository must compare as equal.
        let common_dir = real.join(lines.next().unwrap_or_default());
        let common_dir = std::fs::canonicalize(&common_dir)
            .map_err(WorktreeError::io("find the git folder", &common_dir))?;
        if !bare {
            // The way up to the top: empty when we are there.
            let up = lines.next().unwrap_or_default();
            let top = real.join(up);
            let top = std::fs::canonicalize(&top).map_err(WorktreeError::io("open", &top))?;
            if top != real {
                return Err(WorktreeError::NotTop { path: real, top });
            }
        }
        Ok(Repository {
            root: real,
            common_dir,
        })
    }

    /// The repository's folder, resolved.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// The name of the branch that is checked out in the user's own folder; `None` when HEAD is detached.
    pub async fn head_branch(&self) -> Result<Option<String>, WorktreeError> {
        head_branch(&self.root).await
    }

    /// Makes a worktree on a new branch. On an error nothing is left behind. Let it run to its end: dropped half-way, it
    /// may leave a folder and a branch.
    pub async fn create(&self, spec: &WorktreeSpec) -> Result<Worktree, WorktreeError> {
        self.check_branch_name(&spec.branch).await?;
        std::fs::create_dir_all(&spec.root)
            .map_err(WorktreeError::io("make the folder of worktrees", &spec.root))?;
        let root = std::fs::canonicalize(&spec.root)
            .map_err(WorktreeError::io("find the folder of worktrees", &spec.root))?;
        let dir = spec.dir_in(&root)?;
        // Not `exists`: a link that leads nowhere, or elsewhere, is something too.
        if std::fs::symlink_metadata(&dir).is_ok() {
            return Err(WorktreeError::Occupied { dir });
        }

        let _lock = lock::take(&self.common_dir, "make a worktree of").await?;
        // Once more under the lock: another session may have taken the name meanwhile, and what fails below is undone.
        if std::fs::symlink_metadata(&dir).is_ok() {
            return Err(WorktreeError::Occupied { dir });
        }
        let base = self.resolve_base(spec.base.as_deref()).await?;
        if self
            .commit_of(&format!("refs/heads/{}", spec.branch))
            .await?
            .is_some()
        {
            return Err(WorktreeError::BranchTaken {
                path: self.root.clone(),
                branch: spec.branch.clone(),
            });
        }
        let record = Record {
            branch: spec.branch.clone(),
            base,
        };
        if let Err(error) = self.add(&dir, &record).await {
            self.undo_create(&dir, &record).await;
            return Err(error);
        }
        tracing::info!(worktree = %dir.display(), branch = %spec.branch, "made a worktree");
        Ok(self.worktree_of(dir, record))
    }

    /// Finds a worktree again that [`Repository::create`] has made, after a restart. Anything else is refused: the
    /// user's own folder, worktrees that the user has made, folders of other repositories.
    pub async fn worktree(&self, path: &Path) -> Result<Worktree, WorktreeError> {
        let wrong = || WorktreeError::WrongPlace {
            path: path.to_owned(),
            expected: format!("a worktree of {} that this program made", self.root.display()),
        };
        let real = std::fs::canonicalize(path).map_err(|_| wrong())?;
        let found = Repository::open(&real).await.map_err(|_| wrong())?;
        if found.common_dir != self.common_dir {
            return Err(wrong());
        }
        let record = record::read(&real).await?.ok_or_else(wrong)?;
        Ok(self.worktree_of(real, record))
    }

    fn worktree_of(&self, path: PathBuf, record: Record) -> Worktree {
        Worktree {
            path,
            branch: record.branch,
            base: Some(record.base),
            repository: self.clone(),
        }
    }

    async fn add(&self, dir: &Path, record: &Record) -> Result<(), WorktreeError> {
        Git::new(&self.root, format!("make the worktree {}", dir.display()))
            .limit(LIMIT_LONG)
            .args(["worktree", "add", "--quiet", "--no-track", "-b", &record.branch])
            .arg(dir)
            .arg(&record.base)
            .text()
            .await?;
        record::write(dir, record).await
    }

    /// The states of worktrees that were kept in this repository, newest first; at most
    /// [`PRESERVED_LISTED_MAX`](crate::PRESERVED_LISTED_MAX).
    pub async fn preserved(&self) -> Result<Vec<Preserved>, WorktreeError> {
        preserved::list(&self.root).await
    }

    /// Makes the new branch `to_branch` from the kept state `name`: all of its files, the untracked ones too, as one
    /// commit upon those the agent had made. Never touches an existing branch, a folder or the kept state itself.
    pub async fn restore(&self, name: &str, to_branch: &str) -> Result<Restored, WorktreeError> {
        self.check_branch_name(to_branch).await?;
        let _lock = lock::take(&self.common_dir, "restore work in").await?;
        preserved::restore(self, name, to_branch).await
    }

    /// Forgets worktrees whose folders somebody has deleted by hand. Their branches stay.
    pub async fn prune(&self) -> Result<(), WorktreeError> {
        let _lock = lock::take(&self.common_dir, "tidy up").await?;
        Git::new(&self.root, "forget deleted worktrees")
            .args(["worktree", "prune"])
            .text()
            .await?;
        Ok(())
    }

    /// The commit that a name stands for.
    pub(crate) async fn commit_of(&self, name: &str) -> Result<Option<String>, WorktreeError> {
        commit_of(&self.root, name).await
    }

    async fn resolve_base(&self, base: Option<&str>) -> Result<String, WorktreeError> {
        let found = self.commit_of(base.unwrap_or("HEAD")).await?;
        found.ok_or_else(|| match base {
            Some(base) => WorktreeError::UnknownBase {
                path: self.root.clone(),
                base: base.to_owned(),
            },
            None => WorktreeError::NoCommit {
                path: self.root.clone(),
            },
        })
    }

    async fn check_branch_name(&self, branch: &str) -> Result<(), WorktreeError> {
        let answer = Git::new(&self.root, "check the name of a branch")
            .args(["check-ref-format", "--branch", branch])
            .answer()
            .await?;
        // `--branch` also expands `@{-1}`: only a name that stays itself is one.
        if answer.ok() && answer.text() == branch {
            return Ok(());
        }
        Err(WorktreeError::BadName {
            what: "the name of a branch",
            name: branch.to_owned(),
        })
    }

    /// A check-out that failed half-way (disk full, time limit) leaves a folder, an entry and a branch: all are ours,
    /// made a moment ago under the lock. Errors here would hide the first one, so they are only logged.
    async fn undo_create(&self, dir: &Path, record: &Record) {
        let call = |args: &[&str]| {
            Git::new(&self.root, "undo a worktree")
                .limit(LIMIT_LONG)
                .args(args)
        };
        let branch = format!("refs/heads/{}", record.branch);
        let mut calls = Vec::new();
        if self.is_listed_as(dir, &branch).await {
            // Twice: git keeps a worktree locked while it is being made.
            calls.push(call(&["worktree", "remove", "--force", "--force", "--"]).arg(dir));
        }
        calls.push(call(&["worktree", "prune"]));
        calls.push(call(&["update-ref", "-d", &branch, &record.base]));
        for call in calls {
            if let Err(error) = call.text().await {
                tracing::debug!(%error, "while undoing a worktree that could not be made");
            }
        }
    }

    /// Whether git lists `dir` as a worktree on `branch`, or on nothing yet: as the one we began to make.
    async fn is_listed_as(&self, dir: &Path, branch: &str) -> bool {
        let listing = Git::new(&self.root, "list the worktrees")
            .args(["worktree", "list", "--porcelain", "-z"])
            .text()
            .await
            .unwrap_or_default();
        listing.split("\0\0").any(|entry| {
            let mut lines = entry.split('\0').filter(|line| !line.is_empty());
            let is_dir = lines.next().and_then(|line| line.strip_prefix("worktree ")) == dir.to_str();
            is_dir && lines.all(|line| line.strip_prefix("branch ").is_none_or(|its| its == branch))
        })
    }
}

impl Worktree {
    /// The repository it belongs to.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Writes the persona `block` (as [`domain::persona::Persona::render`] makes it) into the first of `candidates`
    /// (paths relative to the worktree) that the project does not track itself, beside whatever is there, and hides
    /// that file from the user's commits. Written again, the block replaces the earlier one. Returns the file written.
    pub async fn write_persona(&self, candidates: &[&str], block: &str) -> Result<PathBuf, WorktreeError> {
        self.check_place().await?;
        persona::write(self, candidates, block).await
    }

    /// The persona block that stands in one of `candidates` now; `None` when there is none. Reads only.
    pub fn persona(&self, candidates: &[&str]) -> Result<Option<PersonaBlock>, WorktreeError> {
        persona::read(&self.path, candidates)
    }

    /// Takes our block out of `candidates` again. What else is in such a file stays to the byte; a file in which
    /// nothing else is goes. Returns the files that were changed.
    pub async fn remove_persona(&self, candidates: &[&str]) -> Result<Vec<PathBuf>, WorktreeError> {
        self.check_place().await?;
        persona::remove(&self.path, candidates)
    }

    /// That the folder is still the very worktree it was made as: not moved, not replaced by a link, not made anew by
    /// somebody else. Everything that writes asks this first.
    pub(crate) async fn check_place(&self) -> Result<(), WorktreeError> {
        let wrong = || WorktreeError::WrongPlace {
            path: self.path.clone(),
            expected: format!(
                "the worktree of {} that was made there",
                self.repository.root.display()
            ),
        };
        let plain = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir());
        if !plain {
            return Err(wrong());
        }
        // Where it started from may have moved on since this value was made.
        let found = self.repository.worktree(&self.path).await?;
        if found.path != self.path || found.branch != self.branch {
            return Err(wrong());
        }
        Ok(())
    }

    /// Keeps the whole state (untracked files too, ignored ones not) as a commit under
    /// `refs/semo/preserved/<session>`, without touching worktree, index or branch. `None` when everything is in
    /// commits that a branch or tag holds anyway.
    pub async fn preserve(&self, session: SessionId) -> Result<Option<Kept>, WorktreeError> {
        let _lock = lock::take(self.repository.common_dir(), "keep the state of").await?;
        preserve::preserve(self, session).await
    }

    /// Keeps the state like [`Worktree::preserve`], then removes the worktree, and its branch when that holds no
    /// commit of its own. Nothing must be running in it any more.
    pub async fn remove(&self, session: SessionId) -> Result<Option<Kept>, WorktreeError> {
        let _lock = lock::take(self.repository.common_dir(), "remove a worktree of").await?;
        preserve::remove(self, session).await
    }

    /// What git says about it now, compared with the commit it started from.
    pub async fn facts(&self) -> Result<GitFacts, WorktreeError> {
        facts(&self.path, self.base.as_deref()).await
    }
}

/// The commit that a name stands for; `None` when it stands for none.
pub(crate) async fn commit_of(dir: &Path, name: &str) -> Result<Option<String>, WorktreeError> {
    let answer = Git::new(dir, "look up a commit")
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
        .arg(format!("{name}^{{commit}}"))
        .answer()
        .await?;
    Ok(answer.ok().then(|| answer.text()))
}

pub(crate) async fn head_branch(dir: &Path) -> Result<Option<String>, WorktreeError> {
    let answer = Git::new(dir, "read the name of the branch")
        .args(["symbolic-ref", "--quiet", "--short", "HEAD"])
        .answer()
        .await?;
    Ok(answer.ok().then(|| answer.text()))
}
