//! Whether the program's user is signed in, as the program itself tells (`claude auth status`, JSON on stdout; seen
//! with 2.1.197, answers without any network).

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use terminal::run_once;

/// How long the question may take; a cold start of the 245 MB binary takes about a second.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// What is known about the sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// Signed in, by this method (`oauth_token`, `api_key` …).
    Yes {
        /// The program's word for it.
        method: String,
    },
    /// Not signed in.
    No,
    /// The program did not say; a session will show.
    Unknown,
}

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "loggedIn")]
    logged_in: bool,
    #[serde(rename = "authMethod", default)]
    method: String,
}

/// Asks the program. `env` is the whole environment it gets.
pub async fn sign_in(program: &Path, env: &[(String, String)]) -> SignIn {
    match run_once(program, &["auth", "status"], env, ANSWER_WAIT_MAX).await {
        Ok(output) => read(&output.stdout),
        Err(error) => {
            tracing::warn!(%error, "the agent program could not be asked for its sign-in");
            SignIn::Unknown
        }
    }
}

fn read(answer: &str) -> SignIn {
    match serde_json::from_str::<Status>(answer) {
        Ok(Status {
            logged_in: true,
            method,
        }) => SignIn::Yes { method },
        Ok(Status { logged_in: false, .. }) => SignIn::No,
        Err(_) => SignIn::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_answer_is_read_and_anything_else_is_unknown() {
        let yes = r#"{"loggedIn": true, "authMethod": "oauth_token", "apiProvider": "firstParty"}"#;
        assert_eq!(
            read(yes),
            SignIn::Yes {
                method: "oauth_token".to_owned()
            }
        );
        assert_eq!(read(r#"{"loggedIn": false, "authMethod": "none"}"#), SignIn::No);
        assert_eq!(read("error: unknown command 'auth'"), SignIn::Unknown);
        assert_eq!(read(""), SignIn::Unknown);
    }
}
