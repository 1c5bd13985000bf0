//! Bringing a worktree in which nothing has been done to where the repository stands now: for sessions that were made
//! ready ahead of need. A worktree in which anything has been done is never moved.

use crate::error::WorktreeError;
use crate::facts::facts;
use crate::git::{Git, LIMIT_LONG};
use crate::lock;
use crate::record::{self, Record};
use crate::repository::{Repository, Worktree};

/// What came of [`Worktree::catch_up`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatchUp {
    /// It stands there already.
    There,
    /// It was moved; this is what it is now.
    Moved(Worktree),
    /// Something has been done in it: it was left alone.
    Touched,
    /// A file that must not change under a running program would change: it was left alone.
    WouldChange(String),
}

impl Repository {
    /// The commit that is checked out in the user's own folder; `None` before the first one.
    pub async fn head(&self) -> Result<Option<String>, WorktreeError> {
        self.commit_of("HEAD").await
    }
}

impl Worktree {
    /// Moves the worktree and its branch to `commit`, if nothing has been done in it and none of the files that match
    /// `fixed` (patterns as git takes them) differ between where it stands and there.
    pub async fn catch_up(&self, commit: &str, fixed: &[&str]) -> Result<CatchUp, WorktreeError> {
        self.check_place().await?;
        let _lock = lock::take(self.repository().common_dir(), "move a worktree of").await?;
        let now = facts(&self.path, None).await?;
        let untouched = !now.dirty
            && now.head.is_some()
            && now.head == self.base
            && now.branch.as_deref() == Some(&*self.branch);
        let Some(from) = now.head.filter(|_| untouched) else {
            return Ok(CatchUp::Touched);
        };
        if from == commit {
            return Ok(CatchUp::There);
        }
        let changes = Git::new(&self.path, "compare two commits")
            .limit(LIMIT_LONG)
            .args([
                "diff",
                "--name-only",
                "--no-renames",
                "--no-ext-diff",
                "--end-of-options",
            ])
            .args([&*from, commit, "--"])
            .args(fixed)
            .text()
            .await?;
        if let Some(file) = changes.lines().next() {
            return Ok(CatchUp::WouldChange(file.to_owned()));
        }
        Git::new(&self.path, format!("move the worktree {}", self.path.display()))
            .limit(LIMIT_LONG)
            .args(["reset", "--quiet", "--keep", "--end-of-options", commit])
            .text()
            .await?;
        let record = Record {
            branch: self.branch.clone(),
            base: commit.to_owned(),
        };
        record::write(&self.path, &record).await?;
        Ok(CatchUp::Moved(Worktree {
            base: Some(record.base),
            ..self.clone()
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::{WorktreeSpec, sample_repository};

    const FIXED: &[&str] = &[":(glob)**/CLAUDE.md", ".mcp.json"];

    async fn place() -> (TempDir, Repository, Worktree) {
        let dir = tempfile::tempdir().unwrap();
        let repository = sample_repository(&dir.path().join("project")).await.unwrap();
        let spec = WorktreeSpec {
            root: dir.path().join("worktrees"),
            name: "warm".into(),
            branch: "semo/warm".into(),
            base: None,
        };
        let worktree = repository.create(&spec).await.unwrap();
        (dir, repository, worktree)
    }

    async fn git(dir: &Path, args: &[&str]) -> String {
        Git::new(dir, "test").args(args).text().await.unwrap()
    }

    async fn commit(dir: &Path, name: &str, text: &str) -> String {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        git(dir, &["add", "-A"]).await;
        git(dir, &["commit", "-qm", "more"]).await;
        git(dir, &["rev-parse", "HEAD"]).await
    }

    #[tokio::test]
    async fn an_untouched_worktree_follows_the_repository_and_remembers_where_it_stands() {
        let (_dir, repository, worktree) = place().await;
        let head = repository.head().await.unwrap().unwrap();
        assert_eq!(worktree.catch_up(&head, FIXED).await.unwrap(), CatchUp::There);
        let newer = commit(repository.root(), "new.txt", "new").await;
        let CatchUp::Moved(moved) = worktree.catch_up(&newer, FIXED).await.unwrap() else {
            panic!("it was not moved");
        };
        assert_eq!(fs::read_to_string(moved.path.join("new.txt")).unwrap(), "new");
        assert_eq!(git(&moved.path, &["branch", "--show-current"]).await, "semo/warm");
        assert_eq!(moved.base.as_deref(), Some(&*newer));
        assert_eq!(repository.worktree(&moved.path).await.unwrap(), moved);
        assert!(!moved.facts().await.unwrap().dirty);
    }

    #[tokio::test]
    async fn work_in_it_or_a_change_of_a_fixed_file_leaves_it_where_it_is() {
        let (_dir, repository, worktree) = place().await;
        let before = worktree.base.clone().unwrap();
        let instructions = commit(repository.root(), "ui/CLAUDE.md", "Be brief.").await;
        assert_eq!(
            worktree.catch_up(&instructions, FIXED).await.unwrap(),
            CatchUp::WouldChange("ui/CLAUDE.md".into())
        );
        fs::write(worktree.path.join("work.txt"), "work").unwrap();
        let newer = commit(repository.root(), "other.txt", "x").await;
        assert_eq!(worktree.catch_up(&newer, FIXED).await.unwrap(), CatchUp::Touched);
        commit(&worktree.path, "work.txt", "committed").await;
        assert_eq!(worktree.catch_up(&newer, FIXED).await.unwrap(), CatchUp::Touched);
        assert_eq!(git(&worktree.path, &["rev-parse", "HEAD~1"]).await, before);
    }
}
