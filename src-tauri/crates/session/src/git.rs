//! What git says around a turn: the state before it, and what the turn has made of it. Checked by us, so it is the best
//! evidence there is; what cannot be known is left out, and decides nothing. Called by the actor.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use domain::evidence::{Evidence, Tier};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use worktree::{Changes, CommitFact, GitFacts, WorktreeError};

/// How long git may take to say what has changed.
const GIT_WAIT_MAX: Duration = Duration::from_secs(15);
/// How much later than the prompt was taken the state before it may be known: no model uses a tool within that.
const BEFORE_LATE_MAX: Duration = Duration::from_millis(200);

/// A worktree when a turn began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    head: Option<String>,
    /// All its files; `None` where they were too many to be read in time.
    tree: Option<String>,
}

/// What is known of that state while it is being read.
#[derive(Debug, Clone, Default)]
pub(crate) struct BeforeRead {
    /// The commit; the inner one is absent where there is none yet.
    head: Option<Option<String>>,
    tree: Option<String>,
}

impl BeforeRead {
    /// The state, as soon as its commit is known.
    pub(crate) fn known(&self) -> Option<Before> {
        let tree = self.tree.clone();
        self.head.clone().map(|head| Before { head, tree })
    }
}

/// A worktree when a turn has ended.
pub(crate) struct GitTold {
    before: Option<Before>,
    now: GitFacts,
    /// What this turn has changed, committed or not.
    changes: Option<Changes>,
}

/// Reads the state while `submission` brings the prompt to the agent: in most cases that is long enough. Files that are
/// read later may be the turn's own. `read` shows what is known meanwhile.
pub(crate) async fn git_before<T>(
    worktree: &Path,
    read: &watch::Sender<BeforeRead>,
    submission: impl Future<Output = T>,
) -> (T, Option<Before>) {
    let head = async {
        let head = said(worktree::head(worktree)).await;
        read.send_modify(|read| read.head = head);
    };
    let tree = async {
        let tree = said(worktree::tree(worktree)).await;
        read.send_modify(|read| read.tree = tree);
    };
    let with_tree = async {
        let (mut submission, mut tree) = (pin!(submission), pin!(tree));
        tokio::select! {
            result = &mut submission => {
                // Left out when it comes too late.
                let _ = timeout(BEFORE_LATE_MAX, tree).await;
                result
            }
            () = &mut tree => submission.await,
        }
    };
    let ((), result) = tokio::join!(head, with_tree);
    let before = read.borrow().known();
    (result, before)
}

/// What git says now, compared with `before`.
pub(crate) async fn git_told(worktree: &Path, before: Option<Before>) -> Option<GitTold> {
    let since = before.as_ref().and_then(|before| before.head.as_deref());
    let from = before.as_ref().and_then(|before| before.tree.as_deref());
    let changes = async {
        let from = from?;
        let compared = async {
            let now = worktree::tree(worktree).await?;
            worktree::changes(worktree, from, &now).await
        };
        said(compared).await
    };
    let (now, changes) = tokio::join!(said(worktree::facts(worktree, since)), changes);
    Some(GitTold {
        now: now?,
        changes,
        before,
    })
}

/// The answer, or nothing: not being able to check is inconclusive.
async fn said<T>(asked: impl Future<Output = Result<T, WorktreeError>>) -> Option<T> {
    match timeout(GIT_WAIT_MAX, asked).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(%error, "git could not be asked about the worktree");
            None
        }
        Err(_) => {
            tracing::warn!("git did not answer in time");
            None
        }
    }
}

impl GitTold {
    /// Adds what is known. `uncommitted`, `untracked` and `unpushed` are of the whole worktree; the rest is what this
    /// turn has made.
    pub(crate) fn add_to(self, evidence: &mut Evidence) {
        let (now, changes) = (self.now, self.changes);
        for CommitFact { sha, subject } in &now.new_commits {
            let commit = json!({ "sha": sha, "subject": subject });
            evidence.add("commit", commit, Tier::Verified, "git");
        }
        for (what, value) in [
            (
                "head_before",
                json!(self.before.as_ref().map(|before| &before.head)),
            ),
            ("head_after", json!(now.head)),
            ("branch", json!(now.branch)),
            ("commits", json!(self.before.map(|_| now.commits))),
            ("files_changed", json!(changes.map(|changes| changes.files))),
            ("insertions", json!(changes.map(|changes| changes.insertions))),
            ("deletions", json!(changes.map(|changes| changes.deletions))),
            ("uncommitted", json!(now.dirty)),
            ("untracked", json!(now.untracked)),
            ("unpushed", json!(now.unpushed)),
        ] {
            if !value.is_null() {
                evidence.add(what, value, Tier::Verified, "git");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn place() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("project");
        worktree::sample_repository(&path).await.unwrap();
        (dir, path)
    }

    fn value(evidence: &Evidence, what: &str) -> serde_json::Value {
        evidence
            .best(what)
            .map(|claim| claim.value.clone())
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn what_lay_in_the_worktree_before_the_turn_is_not_told_as_the_turns() {
        let (_dir, path) = place().await;
        std::fs::write(path.join("earlier.txt"), "a\nb\n").unwrap();
        let told = async |before| {
            let mut evidence = Evidence::default();
            git_told(&path, before).await.unwrap().add_to(&mut evidence);
            evidence
        };
        // The prompt is on its way until git has answered.
        let read = watch::Sender::default();
        let (_, before) = git_before(&path, &read, tokio::time::sleep(Duration::from_secs(3))).await;
        assert_eq!(read.borrow().known(), before);
        let before = before.unwrap();
        let idle = told(Some(before.clone())).await;
        assert_eq!(
            (value(&idle, "files_changed"), value(&idle, "commits")),
            (0.into(), 0.into())
        );
        assert_eq!(
            (value(&idle, "uncommitted"), value(&idle, "untracked")),
            (true.into(), 1.into())
        );

        std::fs::write(path.join("new.txt"), "a\n").unwrap();
        let busy = told(Some(before)).await;
        assert_eq!(
            (value(&busy, "files_changed"), value(&busy, "insertions")),
            (1.into(), 1.into())
        );
        assert_eq!(value(&busy, "untracked"), 2);

        let unknown = told(None).await;
        for what in ["files_changed", "insertions", "commits", "head_before"] {
            assert!(value(&unknown, what).is_null(), "{what} is not known");
        }
        assert_eq!(value(&unknown, "uncommitted"), true);
    }

    #[tokio::test]
    async fn a_state_that_is_read_too_late_is_no_state_before() {
        let (_dir, path) = place().await;
        let config = path.join(".git/config");
        let slow = "[filter \"slow\"]\n\tclean = sleep 3; cat\n";
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text + slow).unwrap();
        std::fs::write(path.join(".gitattributes"), "*.slow filter=slow\n").unwrap();
        std::fs::write(path.join("a.slow"), "a\n").unwrap();
        let (_, before) = git_before(&path, &watch::Sender::default(), async {}).await;
        let before = before.unwrap();
        assert!(before.head.is_some(), "the commit is waited for");
        assert_eq!(before.tree, None);
        let mut left = std::fs::read_dir(path.join(".git")).unwrap().flatten();
        assert!(!left.any(|entry| entry.file_name().to_string_lossy().starts_with("semo-index")));
    }
}
