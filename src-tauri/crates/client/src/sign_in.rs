//! Signing in to a project, which may be another one than is served: what a window's core and `semo login` both do.
//!
//! A password goes to the project and nowhere else, and is kept nowhere. What fails leaves settings and sign-in as they
//! were. The sign-in of before is ended by nobody here: whoever goes on with the new one does that ([`EarlierSignIn`]).

use std::sync::Arc;

use domain::Clock;
use supabase::{Auth, AuthError, KeptTokens, MemoryTokenStore, Project, Tokens};

use crate::earlier::EarlierSignIn;
use crate::paths::Paths;
use crate::settings::Settings;
use crate::settings_file::{Changed, Choice, Chosen, SettingsFileError};

/// A project that answers and takes its key: the password is sent to nobody who is not one.
pub struct Door {
    auth: Auth,
}

/// A sign-in that is not kept yet.
pub struct Arrival {
    auth: Auth,
    tokens: Tokens,
}

/// A sign-in that is kept, and stands in the settings.
pub struct SignedIn {
    /// The session, kept in `store`.
    pub auth: Auth,
    /// Where it lies.
    pub store: Arc<KeptTokens>,
    /// What the settings name now.
    pub choice: Choice,
}

/// Why a sign-in was not kept. Nobody is signed in by it.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// The settings file could not be changed.
    #[error(transparent)]
    Settings(#[from] SettingsFileError),
    /// The sign-in has no place.
    #[error("{source}")]
    SignIn {
        /// Why.
        source: AuthError,
        /// The settings name its project all the same: they could not be put back.
        left: Option<SettingsFileError>,
    },
}

impl Door {
    /// Asks whether the project answers, before anybody types a password.
    pub async fn knock(project: Project, clock: Arc<dyn Clock>) -> Result<Door, AuthError> {
        let auth = Auth::new(project, clock, Arc::new(MemoryTokenStore::default()))?;
        auth.answers().await?;
        Ok(Door { auth })
    }

    /// Signs in without keeping anything.
    pub async fn sign_in(self, email: &str, password: &str) -> Result<Arrival, AuthError> {
        let tokens = self.auth.sign_in(email, password).await?;
        // As the project writes it: the settings and the sign-in name the same account.
        let email = match tokens.email.as_str() {
            "" => email.to_owned(),
            as_written_there => as_written_there.to_owned(),
        };
        Ok(Arrival {
            auth: self.auth,
            tokens: Tokens { email, ..tokens },
        })
    }
}

impl Arrival {
    /// Who has signed in.
    pub fn email(&self) -> &str {
        &self.tokens.email
    }

    /// As the settings would have it.
    pub fn chosen(&self) -> Chosen {
        let project = self.auth.project();
        Chosen::Project {
            url: project.url.clone(),
            publishable_key: project.publishable_key.clone(),
            email: self.tokens.email.clone(),
        }
    }

    /// Writes it into the settings file, then keeps it. Settings first: a core that starts in between asks for a sign-in,
    /// and does not take one for another project's.
    pub async fn settle(
        self,
        settings: &Settings,
        paths: &Paths,
        clock: Arc<dyn Clock>,
    ) -> Result<SignedIn, NotKept> {
        let chosen = self.chosen();
        let project = self.auth.project().clone();
        let store = Arc::new(settings.team_tokens(paths, &project));
        let earlier = EarlierSignIn::of(settings, paths, &project, &self.tokens.email);
        let before = match Changed::of(&paths.settings(), &chosen).and_then(Changed::write) {
            Ok(before) => before,
            Err(error) => {
                self.leave().await;
                return Err(error.into());
            }
        };
        let kept = async {
            let auth = Auth::unopened(project, clock, store.clone())?;
            auth.take_over(&self.tokens).await?;
            Ok(auth)
        };
        match kept.await {
            Ok(auth) => {
                let choice = Choice {
                    chosen,
                    before,
                    earlier,
                };
                Ok(SignedIn { auth, store, choice })
            }
            Err(source) => {
                let left = before.restore().err();
                self.leave().await;
                Err(NotKept::SignIn { source, left })
            }
        }
    }

    /// Nobody keeps it. That it cannot be ended now is no news for anybody.
    pub async fn leave(self) {
        let _ = self.auth.sign_out().await;
    }
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;
    use serde_json::json;
    use supabase::TokenStore;

    use super::*;
    use crate::clock::SystemClock;

    /// Nothing answers there.
    const NOWHERE: &str = "http://127.0.0.1:9";

    fn arrival(email: &str) -> Arrival {
        let project = Project::new(NOWHERE, "sb_publishable_1").unwrap();
        let tokens = json!({
            "project": project.url, "access_token": "access", "refresh_token": "refresh",
            "refresh_at": Timestamp(0), "expires_at": Timestamp(0),
            "user": "0f8fad5b-d9cb-469f-a165-70867728950e", "email": email,
        });
        let tokens: Tokens = serde_json::from_value(tokens).unwrap();
        let store = Arc::new(MemoryTokenStore::with(tokens.clone()));
        let auth = Auth::new(project, Arc::new(SystemClock), store).unwrap();
        Arrival { auth, tokens }
    }

    fn place() -> (tempfile::TempDir, Paths, Settings) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::choose(Some(dir.path().join("config")), Some(dir.path().join("data"))).unwrap();
        let settings = toml::from_str("[supabase]\ntokens = \"file\"\n").unwrap();
        (dir, paths, settings)
    }

    #[tokio::test]
    async fn a_sign_in_that_cannot_be_kept_leaves_the_settings_as_they_were_byte_by_byte() {
        let (_dir, paths, settings) = place();
        // Where the sign-in would lie, there is a file in the way of its folder.
        std::fs::create_dir_all(&paths.data_dir).unwrap();
        std::fs::write(paths.sign_ins(), "").unwrap();
        std::fs::create_dir_all(&paths.config_dir).unwrap();
        let old = "# mine\n[office]\nid = \"0f8fad5b-d9cb-469f-a165-70867728950e\" # picked\n";
        std::fs::write(paths.settings(), old).unwrap();
        let settled = arrival("a@b.c").settle(&settings, &paths, Arc::new(SystemClock));
        let error = settled.await.err().unwrap();
        assert!(
            matches!(
                &error,
                NotKept::SignIn {
                    source: AuthError::Store { .. },
                    left: None
                }
            ),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(paths.settings()).unwrap(), old);
    }

    #[tokio::test]
    async fn a_sign_in_is_not_kept_where_the_settings_cannot_name_it() {
        let (_dir, paths, settings) = place();
        std::fs::create_dir_all(&paths.config_dir).unwrap();
        std::fs::write(paths.settings(), "[limits]\nsessions = 3\n").unwrap();
        let arrival = arrival("a@b.c");
        let project = arrival.auth.project().clone();
        let settled = arrival.settle(&settings, &paths, Arc::new(SystemClock)).await;
        assert!(matches!(settled.err(), Some(NotKept::Settings(_))));
        assert_eq!(settings.team_tokens(&paths, &project).load().unwrap(), None);
    }

    #[tokio::test]
    async fn a_sign_in_is_kept_beside_the_one_of_before_which_nobody_has_ended_yet() {
        let (_dir, paths, mut settings) = place();
        let before = Project::new("http://127.0.0.1:10", "sb_publishable_1").unwrap();
        settings.supabase.url.clone_from(&before.url);
        settings
            .supabase
            .publishable_key
            .clone_from(&before.publishable_key);
        let its = settings.team_tokens(&paths, &before);
        let tokens = Tokens {
            project: before.url.clone(),
            ..arrival("b@b.c").tokens
        };
        its.begin(&tokens).unwrap();
        let settled = arrival("a@b.c").settle(&settings, &paths, Arc::new(SystemClock));
        let signed_in = settled.await.ok().unwrap();
        assert_eq!(signed_in.auth.email().as_deref(), Some("a@b.c"));
        assert!(signed_in.choice.earlier.is_some(), "whoever goes on ends it");
        assert_eq!(its.load().unwrap(), Some(tokens));
    }
}
