//! Kept states of worktrees, for people: the list over all repositories, and one of them as a branch again. Git is slow,
//! so all of it runs in tasks of its own; the loop only hands out what they need. Called by `requests`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use domain::fault::chain;
use journal::Journal;
use tokio::sync::oneshot;
use worktree::{Preserved, Repository, WorktreeError};

use super::EventLoop;
use crate::request::{Answer, ErrorCode, RequestError};
use crate::view::PreservedView;

type Reply = oneshot::Sender<Result<Answer, RequestError>>;

impl EventLoop {
    pub(super) fn list_preserved(&self, reply: Reply) {
        let repositories = self.ground.settings.repositories.clone();
        let journal = self.ground.journal.clone();
        self.ground.tasks.spawn(async move {
            // Whoever asked may have gone; that is no fault.
            let _ = reply.send(list(repositories, journal).await);
        });
    }

    pub(super) fn restore_preserved(
        &self,
        repository: String,
        name: String,
        to_branch: String,
        reply: Reply,
    ) {
        let Some(path) = self.ground.settings.repositories.get(&repository).cloned() else {
            let message = format!("this workstation has no repository `{repository}`");
            let hint = "`semo preserved` shows in which repository a kept state lies.";
            let _ = reply.send(Err(RequestError::new(ErrorCode::NotFound, message, hint)));
            return;
        };
        self.ground.tasks.spawn(async move {
            let _ = reply.send(restore(&path, &repository, &name, &to_branch).await);
        });
    }
}

/// A repository that cannot be read does not hide what the others hold; it is named in the note.
async fn list(
    repositories: BTreeMap<String, PathBuf>,
    journal: Arc<Journal>,
) -> Result<Answer, RequestError> {
    let mut views = Vec::new();
    let mut faults = Vec::new();
    for (name, path) in &repositories {
        match states_in(path).await {
            Ok(states) => views.extend(states.into_iter().map(|state| view(name, state, &journal))),
            Err(error) => faults.push(format!("{name}: {}", chain(&error))),
        }
    }
    if !faults.is_empty() && faults.len() == repositories.len() {
        return Err(RequestError::new(
            ErrorCode::Internal,
            format!("could not list kept states: {}", faults.join("; ")),
            "Check the folders in section [repositories] of the settings.",
        ));
    }
    views.sort_by_key(|view| std::cmp::Reverse(view.kept_at));
    Ok(Answer {
        preserved: Some(views),
        note: (!faults.is_empty()).then(|| format!("not read: {}", faults.join("; "))),
        ..Answer::default()
    })
}

async fn states_in(path: &std::path::Path) -> Result<Vec<Preserved>, WorktreeError> {
    Repository::open(path).await?.preserved().await
}

fn view(repository: &str, state: Preserved, journal: &Journal) -> PreservedView {
    // Of a session that the journal has forgotten, or of another workstation's, the state itself is still good.
    let session = state
        .name
        .parse()
        .ok()
        .and_then(|id| journal.session(id).ok().flatten());
    PreservedView {
        repository: repository.to_owned(),
        name: state.name,
        branch: state.branch,
        commit: state.commit,
        kept_at: state.kept_at.saturating_mul(1_000),
        agent: session.map(|row| row.title),
        files_changed: state.files_changed,
        why: state.why,
    }
}

async fn restore(
    path: &std::path::Path,
    repository: &str,
    name: &str,
    to_branch: &str,
) -> Result<Answer, RequestError> {
    let restored = match Repository::open(path).await {
        Ok(opened) => opened.restore(name, to_branch).await,
        Err(error) => Err(error),
    };
    let restored = restored.map_err(|error| {
        let (code, hint) = match &error {
            WorktreeError::NotPreserved { .. } => {
                (ErrorCode::NotFound, "`semo preserved` lists what is kept.")
            }
            WorktreeError::BranchTaken { .. } => (ErrorCode::Conflict, "Name another branch."),
            _ => (ErrorCode::Invalid, ""),
        };
        RequestError::new(code, chain(&error), hint)
    })?;
    Ok(Answer::note(format!(
        "the kept state {name} is branch `{}` of {repository} now (commit {})",
        restored.branch, restored.commit
    )))
}
