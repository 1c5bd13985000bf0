//! The sign-in of before, when the settings come to name another project or another account: nobody would find it any
//! more, and it would stay good for ever.
//!
//! Ended only behind everything else: while a core still goes on with it, or may come back to it, it is left alone. Called
//! by [`crate::sign_in`] and the loop, ended by whoever composes the program; also has the way of a sign-in from where an earlier version kept it, for [`Settings`].

use std::sync::Arc;
use std::time::Duration;

use domain::Clock;
use supabase::{Auth, FileTokenStore, KeptTokens, MemoryTokenStore, Project, StoreLock, TokenStore, Tokens};
use tokio::time::Instant;

use crate::paths::Paths;
use crate::served::results_waiting;
use crate::settings::Settings;

/// How long its project may take to hear of the end.
const TELL_WAIT: Duration = Duration::from_secs(5);
/// How long whoever renews it at the moment is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// Once, where it lay in the file that was for the sign-in to whichever project.
pub(crate) fn take_along(paths: &Paths, project: &Project) {
    let (before, now) = (paths.tokens_of_before(), paths.tokens(project));
    let is_there = matches!(FileTokenStore::new(&before, project).load(), Ok(Some(_)));
    if !is_there || now.exists() {
        return;
    }
    let moved = std::fs::create_dir_all(paths.sign_ins()).and_then(|()| std::fs::rename(&before, &now));
    if let Err(error) = moved {
        tracing::warn!(%error, "the sign-in of before could not be taken along; it has to be made anew");
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct EarlierSignIn {
    project: Project,
    store: Arc<KeptTokens>,
    tokens: Tokens,
    /// The new one lies in its place.
    is_replaced: bool,
}

impl EarlierSignIn {
    /// What is signed in at the project that `settings` name, looked at before `email` signs in to `next`. `None` when
    /// nobody is, when it is the same account there, or when results of it wait here for its office.
    pub fn of(settings: &Settings, paths: &Paths, next: &Project, email: &str) -> Option<EarlierSignIn> {
        let known = &settings.supabase;
        let project = Project::new(&known.url, &known.publishable_key).ok()?;
        let store = Arc::new(settings.team_tokens(paths, &project));
        let tokens = store.load().ok()??;
        let is_replaced = paths.tokens(&project) == paths.tokens(next);
        let is_same = is_replaced && tokens.email.eq_ignore_ascii_case(email);
        // Its results can still be brought there when it is served again. What cannot be told is taken for some.
        let waits = !is_replaced && !matches!(results_waiting(settings, paths), Ok(0));
        (!is_same && !waits).then_some(EarlierSignIn {
            project,
            store,
            tokens,
            is_replaced,
        })
    }

    /// The new one lies in its place: nobody but us knows it any more.
    pub fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// Forgets it here, and tells its project if that can be reached soon.
    pub async fn end(mut self, clock: Arc<dyn Clock>) {
        if !self.is_replaced {
            // Without it, whoever is renewing it now would write it again behind our back.
            let lock = lock(&self.store).await;
            if lock.is_none() {
                tracing::warn!(project = %self.project.url, "the sign-in of before is removed without its lock");
            }
            // What was renewed since is what its project knows.
            if let Ok(Some(tokens)) = self.store.load() {
                self.tokens = tokens;
            }
            if let Err(error) = self.store.clear() {
                tracing::warn!(%error, project = %self.project.url, "the sign-in of before could not be removed");
            }
        }
        let store = Arc::new(MemoryTokenStore::with(self.tokens));
        let Ok(auth) = Auth::new(self.project, clock, store) else {
            return;
        };
        let told = tokio::time::timeout(TELL_WAIT, auth.sign_out()).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::info!("the project of before could not be told that its sign-in is over");
        }
    }
}

/// The right to change what is kept there; `None` when it is not given in time.
async fn lock(store: &KeptTokens) -> Option<StoreLock> {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        match store.try_lock() {
            Ok(Some(lock)) => return Some(lock),
            Ok(None) if Instant::now() < give_up => tokio::time::sleep(LOCK_RETRY).await,
            Ok(None) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::clock::SystemClock;

    fn place() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::choose(Some(dir.path().join("config")), Some(dir.path().join("data"))).unwrap();
        (dir, paths)
    }

    fn settings(url: &str) -> Settings {
        let text = format!(
            "[supabase]\nurl = \"{url}\"\npublishable_key = \"sb_publishable_1\"\nemail = \"a@b.c\"\ntokens = \"file\"\n"
        );
        toml::from_str(&text).unwrap()
    }

    fn tokens(project: &Project) -> Tokens {
        let tokens = json!({
            "project": project.url, "access_token": "access", "refresh_token": "refresh",
            "refresh_at": Timestamp(0), "expires_at": Timestamp(0),
            "user": "0f8fad5b-d9cb-469f-a165-70867728950e", "email": "a@b.c",
        });
        serde_json::from_value(tokens).unwrap()
    }

    #[test]
    fn a_sign_in_of_an_earlier_version_is_found_by_whoever_asks_first() {
        let (_dir, paths) = place();
        let project = Project::new("https://a.supabase.co", "sb_publishable_1").unwrap();
        let other = Project::new("https://b.supabase.co", "sb_publishable_1").unwrap();
        let before = FileTokenStore::new(paths.tokens_of_before(), &project);
        before.save(&tokens(&project)).unwrap();
        let settings = settings(&project.url);
        assert_eq!(settings.team_tokens(&paths, &other).load().unwrap(), None);
        let found = settings.team_tokens(&paths, &project).load().unwrap();
        assert_eq!(found, Some(tokens(&project)));
        assert!(!paths.tokens_of_before().exists(), "it lies in one place");
    }

    #[tokio::test]
    async fn a_sign_in_of_before_is_not_removed_while_somebody_is_renewing_it() {
        let (_dir, paths) = place();
        // Nothing answers there.
        let settings = settings("http://127.0.0.1:9");
        let project = Project::new("http://127.0.0.1:9", "sb_publishable_1").unwrap();
        let next = Project::new("https://b.supabase.co", "sb_publishable_1").unwrap();
        let store = settings.team_tokens(&paths, &project);
        store.begin(&tokens(&project)).unwrap();
        let before = EarlierSignIn::of(&settings, &paths, &next, "a@b.c").unwrap();
        let renewing = store.try_lock().unwrap().unwrap();
        let mut end = Box::pin(before.end(Arc::new(SystemClock)));
        tokio::select! {
            biased;
            () = &mut end => panic!("it has not waited"),
            () = std::future::ready(()) => {}
        }
        assert!(store.load().unwrap().is_some());
        drop(renewing);
        end.await;
        assert!(store.load().unwrap().is_none());
    }
}
