//! Signing in and out, and turning to another hub. What needs no other composition of the program is done here; for the
//! rest, the choice is checked and written down (settings first, then the sign-in), and whoever composes the program is
//! told ([`crate::Client::chosen`]).
//!
//! Never turns away from an office while something of it is in our hands or still to be reported: it would reach nobody.
//! A password goes to the project and nowhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::Clock;
use domain::fault::chain;
use supabase::{
    Auth, AuthError, ConnectionState, Kept, KeptTokens, MemoryTokenStore, Project, Tokens, TokensAt,
};

use super::office::make_office;
use super::requests::{Reply, refused, say};
use super::{Event, EventLoop};
use crate::earlier::EarlierSignIn;
use crate::request::{Answer, ErrorCode, Password, Request, RequestError};
use crate::settings::{Overrides, Profile, SAMPLE_REPOSITORY, Settings};
use crate::settings_file::{Before, Changed, Choice, Chosen};
use crate::start::FirstOffice;
use crate::view::{KeptView, ProfileKind};

/// Longest name of an office, in characters, as the office's database has it.
const OFFICE_NAME_CHARS_MAX: usize = 120;

/// What comes back from the tasks of this module.
pub(crate) enum Step {
    /// The password was taken where this core belongs, or was not.
    SignedIn {
        result: Result<Tokens, AuthError>,
        reply: Reply,
    },
    /// A project that this core does not belong to has taken the password.
    Arrived(Arrival, Reply),
    /// It has not, or cannot be used.
    NotArrived(RequestError, Reply),
    /// Settings and sign-in are kept, or are not.
    Settled {
        result: Result<(Choice, String), RequestError>,
        reply: Reply,
    },
    /// The sign-in has ended here; what the project says of it.
    SignedOut {
        result: Result<(), AuthError>,
        reply: Reply,
    },
    /// An office was made, or was not.
    OfficeMade {
        result: Result<String, RequestError>,
        reply: Reply,
    },
}

/// A sign-in that is not kept yet.
pub(crate) struct Arrival {
    auth: Auth,
    tokens: Tokens,
    project: Project,
}

/// How far a turn to another profile has come.
#[derive(Debug, Default)]
pub(super) struct Turning {
    /// One of the requests of this module is being carried out.
    busy: bool,
    /// Nothing new is taken: what comes next is another composition.
    pub(super) leaving: bool,
    /// Nothing new is taken: the sign-in is being ended.
    signing_out: bool,
    /// Which join counts: one that began before a sign-in or a sign-out does not.
    join: u32,
}

/// What [`EventLoop::sign_in`] is given.
struct Wanted {
    project: Project,
    email: String,
    password: Password,
}

impl EventLoop {
    /// Whether nothing new is taken because another profile comes, or the sign-in ends.
    pub(super) fn is_turning(&self) -> bool {
        self.profile.leaving || self.profile.signing_out
    }

    pub(super) fn answer_of_profile(&mut self, request: Request, reply: Reply) {
        if self.profile.busy || self.profile.leaving || self.is_stopping() {
            let message = "a sign-in, or the turn to another office, is under way";
            let error = RequestError::new(ErrorCode::Conflict, message, "Try again in a moment.");
            return say(reply, Err(error));
        }
        match request {
            Request::SignIn {
                url,
                publishable_key,
                email,
                password,
            } => match self.wanted(&url, &publishable_key, &email, password) {
                Ok(wanted) => self.sign_in(wanted, reply),
                Err(error) => say(reply, Err(error)),
            },
            Request::SignOut {} => self.sign_out(reply),
            Request::UseProfile { profile } => self.use_profile(profile, reply),
            Request::MakeOffice { name } => self.make_office(&name, reply),
            // `answer` sends no others here.
            _ => {}
        }
    }

    /// What is not given is as the settings have it.
    fn wanted(&self, url: &str, key: &str, email: &str, password: Password) -> Result<Wanted, RequestError> {
        let known = &self.ground.settings.supabase;
        let invalid = |message: String, hint: &str| RequestError::new(ErrorCode::Invalid, message, hint);
        let or_known = |given: &str, known: &str| match given.trim() {
            "" => known.to_owned(),
            given => given.to_owned(),
        };
        let url = or_known(url, &known.url);
        // Another project's key is not tried: it could only be refused.
        let same_place = url == known.url;
        let key = or_known(key, if same_place { &known.publishable_key } else { "" });
        let email = or_known(email, if same_place { &known.email } else { "" });
        let project = Project::new(&url, &key).map_err(|error| invalid(error.to_string(), ""))?;
        if project.is_open_on_the_way() {
            let message = format!(
                "{} is not encrypted: everybody on the way could read the password",
                project.url
            );
            return Err(invalid(message, "Use the address that begins with https://."));
        }
        if email.is_empty() || password.reveal().is_empty() {
            return Err(invalid(
                "e-mail address or password is missing".to_owned(),
                "Give both.",
            ));
        }
        Ok(Wanted {
            project,
            email,
            password,
        })
    }

    fn sign_in(&mut self, wanted: Wanted, reply: Reply) {
        let Wanted {
            project,
            email,
            password,
        } = wanted;
        let here = self.ground.settings.profile == Profile::Supabase
            && project == self.ground.project
            && email.eq_ignore_ascii_case(&self.ground.account.email);
        if here {
            self.profile.busy = true;
            let auth = self.ground.auth.clone();
            self.start(async move {
                let result = auth.sign_in(&email, password.reveal()).await;
                Event::Profile(Box::new(Step::SignedIn { result, reply }))
            });
        } else if let Some(refusal) = self.in_the_way() {
            say(reply, Err(refusal));
        } else {
            self.profile.busy = true;
            let clock = self.ground.clock.clone();
            self.start(async move {
                let step = match arrive(project, &email, &password, clock).await {
                    Ok(arrival) => Step::Arrived(arrival, reply),
                    Err(error) => Step::NotArrived(not_signed_in(&error), reply),
                };
                Event::Profile(Box::new(step))
            });
        }
    }

    pub(super) fn profile_step(&mut self, step: Step) {
        self.profile.busy = false;
        self.profile.signing_out = false;
        match step {
            Step::SignedIn { result, reply } => self.signed_in(result, reply),
            Step::Arrived(arrival, reply) => self.arrived(arrival, reply),
            Step::NotArrived(error, reply) => say(reply, Err(error)),
            Step::Settled { result, reply } => self.turned(result, reply),
            Step::SignedOut { result, reply } => self.sign_in_ended(result, reply),
            Step::OfficeMade { result, reply } => {
                if result.is_ok() {
                    self.join_at_once();
                }
                say(reply, result.map(Answer::note));
            }
        }
    }

    fn signed_in(&mut self, result: Result<Tokens, AuthError>, reply: Reply) {
        let answer = match result {
            Ok(tokens) => {
                self.solved("sign_in");
                self.solved("keychain");
                self.solved("sign_in_store");
                self.look_where_the_sign_in_is();
                self.join_at_once();
                Ok(Answer::note(format!("signed in as {}", tokens.email)))
            }
            Err(error) => Err(not_signed_in(&error)),
        };
        say(reply, answer);
    }

    /// Which join begins now.
    pub(super) fn this_join(&self) -> u32 {
        self.profile.join
    }

    fn forget_join(&mut self) {
        self.profile.join = self.profile.join.wrapping_add(1);
        self.joining = false;
    }

    /// Also when a join that began before is under way and is about to fail.
    fn join_at_once(&mut self) {
        self.forget_join();
        self.join();
    }

    fn arrived(&mut self, arrival: Arrival, reply: Reply) {
        // While the project was asked, somebody may have given this office an order.
        if let Some(refusal) = self.in_the_way() {
            self.ground.tasks.spawn(async move {
                // A sign-in that nobody keeps. That it cannot be ended now is no news for anybody.
                let _ = arrival.auth.sign_out().await;
            });
            return say(reply, Err(refusal));
        }
        let Arrival {
            auth,
            tokens,
            project,
        } = arrival;
        let chosen = Chosen::Project {
            url: project.url.clone(),
            publishable_key: project.publishable_key.clone(),
            email: tokens.email.clone(),
        };
        let store = Arc::new(self.ground.settings.team_tokens(&self.ground.paths, &project));
        let (settings, paths) = (self.ground.settings.clone(), self.ground.paths.clone());
        let clock = self.ground.clock.clone();
        self.turn_to(chosen, reply, move || async move {
            let before = EarlierSignIn::of(&settings, &paths, &project, &tokens.email);
            if let Err(error) = keep(&project, clock.clone(), store.clone(), &tokens).await {
                let _ = auth.sign_out().await;
                return Err(error);
            }
            if let Some(before) = before {
                before.end(clock).await;
            }
            let kept = store.kept().ok().flatten();
            Ok(format!(
                "signed in as {}; {}",
                tokens.email,
                kept_words(kept.as_ref())
            ))
        });
    }

    /// Writes the choice down, then does what belongs to it. What fails leaves the settings as they were.
    fn turn_to<F>(&mut self, chosen: Chosen, reply: Reply, then: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<String, AuthError>> + Send,
    {
        self.profile.busy = true;
        self.profile.leaving = true;
        self.changed = true;
        let file = self.ground.paths.settings();
        self.start(async move {
            let result = match write(&file, &chosen) {
                Err(error) => Err(error),
                Ok(before) => match then().await {
                    Ok(note) => Ok((Choice { chosen, before }, note)),
                    Err(error) => {
                        if let Err(error) = before.restore() {
                            tracing::error!(error = %chain(&error), "the settings name a project that nobody is signed in to");
                        }
                        Err(not_signed_in(&error))
                    }
                },
            };
            Event::Profile(Box::new(Step::Settled { result, reply }))
        });
    }

    fn turned(&mut self, result: Result<(Choice, String), RequestError>, reply: Reply) {
        match result {
            Ok((choice, note)) => {
                tracing::info!("another profile was chosen");
                say(reply, Ok(Answer::note(note)));
                self.ground.choose.send_replace(Some(choice));
            }
            Err(error) => {
                self.profile.leaving = false;
                say(reply, Err(error));
                // What was given to us meanwhile was not taken.
                self.claim("the turn did not come about");
            }
        }
    }

    fn use_profile(&mut self, profile: ProfileKind, reply: Reply) {
        let chosen = match self.known_as(profile) {
            Ok(chosen) => chosen,
            Err(error) => return say(reply, Err(error)),
        };
        if Chosen::of(&self.ground.settings).as_ref() == Some(&chosen) {
            return say(reply, Ok(Answer::note("that is what is served already")));
        }
        if let Some(refusal) = self.in_the_way() {
            return say(reply, Err(refusal));
        }
        self.turn_to(chosen, reply, || async { Ok("it is being turned to".to_owned()) });
    }

    /// From the settings file, where `semo login` may have written another project since.
    fn known_as(&self, profile: ProfileKind) -> Result<Chosen, RequestError> {
        if profile == ProfileKind::ThisMachine {
            return Ok(Chosen::ThisMachine);
        }
        let mut overrides = Overrides::default();
        // What is missing is told below, in words for whoever is at the window.
        overrides.set("profile", "this-machine", "the window");
        let settings = Settings::load(&self.ground.paths.settings(), &overrides)
            .map_err(|error| RequestError::new(ErrorCode::Invalid, chain(&error), ""))?;
        let known = Chosen::project_of(&settings).or_else(|| Chosen::project_of(&self.ground.settings));
        known.ok_or_else(|| {
            let message = "no team's project is known on this machine";
            RequestError::new(ErrorCode::NotFound, message, "Sign in to one.")
        })
    }

    /// What of the present office would reach nobody after a turn to another hub.
    fn in_the_way(&self) -> Option<RequestError> {
        let conflict =
            |message: String, hint: &str| Some(RequestError::new(ErrorCode::Conflict, message, hint));
        let name = self.office.as_ref().map(|data| data.office.name.as_str());
        let of = name.map_or_else(
            || "the present office".to_owned(),
            |name| format!("office {name}"),
        );
        if self.is_recovering() {
            return conflict(
                "what was left of the last run is still being looked for".to_owned(),
                "Try again in a moment.",
            );
        }
        match (self.work.len(), self.results_waiting()) {
            (0, 0) => None,
            (0, results) => conflict(
                format!(
                    "{} of {of} not reported yet",
                    counted(results, "result is", "results are")
                ),
                "They are sent as soon as its server takes them; sign in there again if it wants that. To go on without \
                 them, end SEMO Office and use `semo login` or `semo logout --this-machine`: they wait here until this \
                 office is served again.",
            ),
            (commands, _) => conflict(
                format!(
                    "{} of {of} in work here",
                    counted(commands, "command is", "commands are")
                ),
                "Wait for their end, or cancel them.",
            ),
        }
    }

    fn sign_out(&mut self, reply: Reply) {
        if self.ground.settings.profile != Profile::Supabase {
            let message = "the office of this machine has no sign-in that could be ended";
            return say(reply, Err(RequestError::new(ErrorCode::Conflict, message, "")));
        }
        if let Some(refusal) = self.in_the_way() {
            return say(reply, Err(refusal));
        }
        self.profile.busy = true;
        self.profile.signing_out = true;
        let auth = self.ground.auth.clone();
        self.start(async move {
            let result = auth.sign_out().await;
            Event::Profile(Box::new(Step::SignedOut { result, reply }))
        });
    }

    fn sign_in_ended(&mut self, result: Result<(), AuthError>, reply: Reply) {
        self.forget_join();
        if let Some((_, _, stop)) = self.realtime.take() {
            stop.cancel();
        }
        // The next sign-in here is the same account's: it finds the office that was picked.
        let picked = self.office.take().map(|data| data.office.id);
        self.office_wanted = self.office_wanted.or(picked);
        self.join_again_at = None;
        // One that came with the environment would sign in again at once.
        self.ground.account.password = None;
        self.ground.profile.kept = None;
        let why = "Signed out".to_owned();
        self.connection = (ConnectionState::Offline { why }, self.now());
        for code in ["office_unreachable", "office", "keychain", "sign_in_store"] {
            self.solved(code);
        }
        let message = format!("{} is signed out", self.ground.account.email);
        self.problem("sign_in", message.clone(), "Sign in to go on.");
        let note = match result {
            Ok(()) => message,
            Err(error) => format!("{message} here, but not everywhere: {}", chain(&error)),
        };
        say(reply, Ok(Answer::note(note)));
    }

    fn make_office(&mut self, name: &str, reply: Reply) {
        let name = name.trim().to_owned();
        let chars = name.chars().count();
        if chars == 0 || chars > OFFICE_NAME_CHARS_MAX || name.chars().any(char::is_control) {
            let message = format!("an office needs a name of 1 to {OFFICE_NAME_CHARS_MAX} characters");
            return say(reply, Err(RequestError::new(ErrorCode::Invalid, message, "")));
        }
        self.profile.busy = true;
        let rest = self.ground.rest.clone();
        let first = FirstOffice {
            name,
            ..self.ground.first_office.clone()
        };
        self.start(async move {
            let made = make_office(&rest, &first).await;
            let result = made
                .map(|office| format!("office {} is made", office.name))
                .map_err(refused);
            Event::Profile(Box::new(Step::OfficeMade { result, reply }))
        });
    }

    /// The folder of a repository in which a session was started, also under another profile: that of this machine has the
    /// sample as long as the settings name none.
    pub(super) fn repository_of(&self, name: &str) -> Option<PathBuf> {
        let known = self.ground.settings.repositories.get(name).cloned();
        let sample = || (name == SAMPLE_REPOSITORY).then(|| self.ground.paths.sample_repository());
        known.or_else(|| sample().filter(|folder| folder.is_dir()))
    }

    /// What came of a turn that did not come about is told until somebody looks anew.
    pub(super) fn show_remark(&mut self) {
        if let Some(remark) = self.ground.remark.take() {
            self.problem("profile", remark.message, remark.hint);
        }
    }

    /// For windows: reads a small file.
    pub(super) fn look_where_the_sign_in_is(&mut self) {
        let kept = self
            .ground
            .team_tokens
            .as_ref()
            .and_then(|store| store.kept().ok()?);
        self.ground.profile.kept = kept.map(|kept| match kept.at {
            TokensAt::Keychain => KeptView::Keychain,
            TokensAt::File => KeptView::File,
        });
        self.changed = true;
    }

    /// A sign-in that goes on, but cannot be renewed, ends within the hour: that is told before.
    pub(super) fn look_at_the_sign_in(&mut self) {
        match self.ground.auth.store_trouble() {
            Some(trouble) => {
                let minutes = trouble.until.ms_since(self.now()) / 60_000;
                let message = format!("the sign-in cannot be renewed: {}", trouble.why);
                let hint = format!("It is tried again by itself; what there is holds for {minutes} minutes.");
                let (code, other) = match trouble.is_keychain {
                    true => ("keychain", "sign_in_store"),
                    false => ("sign_in_store", "keychain"),
                };
                self.solved(other);
                self.problem(code, message, hint);
            }
            None if self.office.is_some() => {
                self.solved("keychain");
                self.solved("sign_in_store");
            }
            None => {}
        }
    }
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn write(file: &Path, chosen: &Chosen) -> Result<Before, RequestError> {
    let written = Changed::of(file, chosen).and_then(Changed::write);
    written.map_err(|error| RequestError::new(ErrorCode::Conflict, chain(&error), ""))
}

/// Signs in without keeping anything.
async fn arrive(
    project: Project,
    email: &str,
    password: &Password,
    clock: Arc<dyn Clock>,
) -> Result<Arrival, AuthError> {
    let auth = Auth::new(project.clone(), clock, Arc::new(MemoryTokenStore::default()))?;
    // The password is sent to nobody who is not one.
    auth.answers().await?;
    let tokens = auth.sign_in(email, password.reveal()).await?;
    let email = match tokens.email.as_str() {
        "" => email.to_owned(),
        as_written_there => as_written_there.to_owned(),
    };
    let tokens = Tokens { email, ..tokens };
    Ok(Arrival {
        auth,
        tokens,
        project,
    })
}

async fn keep(
    project: &Project,
    clock: Arc<dyn Clock>,
    store: Arc<KeptTokens>,
    tokens: &Tokens,
) -> Result<(), AuthError> {
    let auth = Auth::unopened(project.clone(), clock, store)?;
    auth.take_over(tokens).await
}

/// Where the sign-in is kept, in one sentence for whoever has just signed in.
fn kept_words(kept: Option<&Kept>) -> String {
    match kept.map(|kept| (kept.at, kept.why_not.as_deref())) {
        Some((TokensAt::Keychain, _)) => "the sign-in is kept in this computer's keychain".to_owned(),
        Some((TokensAt::File, Some(why))) => {
            format!(
                "the sign-in is kept in a file that only you can read: the keychain cannot be used ({why})"
            )
        }
        Some((TokensAt::File, None)) => "the sign-in is kept in a file that only you can read".to_owned(),
        None => "the sign-in is not kept".to_owned(),
    }
}

/// Why nobody was signed in, for the person who has just typed it. 401 is left to the key of the local API.
fn not_signed_in(error: &AuthError) -> RequestError {
    let (code, message, hint) = match error {
        AuthError::WrongPassword => (
            ErrorCode::Forbidden,
            error.to_string(),
            "Check both; accounts are made by the owner of the project.",
        ),
        AuthError::Refused { code, .. } if code == "email_not_confirmed" => (
            ErrorCode::Forbidden,
            "this account's e-mail address is not confirmed yet".to_owned(),
            "Follow the link in the mail, or ask the owner of the project to confirm the account.",
        ),
        AuthError::Refused { code, .. } if code == "user_banned" => (
            ErrorCode::Forbidden,
            "this account is banned from the project".to_owned(),
            "Ask the owner of the project.",
        ),
        AuthError::Refused {
            url,
            status: 401 | 403,
            ..
        } => (
            ErrorCode::Invalid,
            format!("{url} does not take this publishable key"),
            "Copy it again from the project's settings, API Keys; it begins with sb_publishable_.",
        ),
        AuthError::Unreachable { url, .. } if error.is_rate_limit() => (
            ErrorCode::Unreachable,
            format!("{url} has had too many tries to sign in"),
            "Wait a few minutes, then try again.",
        ),
        AuthError::Unreachable { url, reason, .. } => (
            ErrorCode::Unreachable,
            format!("{url} cannot be reached: {reason}"),
            "Check the address and the network, then try again.",
        ),
        AuthError::Malformed { url, why, .. } => (
            ErrorCode::Invalid,
            format!("there is no Supabase project at {url}: {why}"),
            "Check the address; it looks like https://<ref>.supabase.co.",
        ),
        AuthError::Project(error) => (ErrorCode::Invalid, error.to_string(), ""),
        AuthError::Refused { .. } | AuthError::SignedOut { .. } => (ErrorCode::Forbidden, chain(error), ""),
        AuthError::Store { .. } | AuthError::Client { .. } => (ErrorCode::Conflict, chain(error), ""),
    };
    RequestError::new(code, message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_with(status: u16, code: &str) -> AuthError {
        AuthError::Refused {
            attempted: "sign in",
            url: "https://a.supabase.co".to_owned(),
            status,
            code: code.to_owned(),
            message: "m".to_owned(),
        }
    }

    fn unreachable(reason: &str) -> AuthError {
        AuthError::Unreachable {
            attempted: "sign in",
            url: "https://a.supabase.co".to_owned(),
            reason: reason.to_owned(),
            retry_after: None,
            answered: true,
        }
    }

    #[test]
    fn what_stands_in_the_way_of_a_sign_in_is_told_with_what_can_be_done() {
        for (error, code, words) in [
            (
                AuthError::WrongPassword,
                ErrorCode::Forbidden,
                "password is wrong",
            ),
            (refused_with(401, ""), ErrorCode::Invalid, "publishable key"),
            (
                refused_with(400, "email_not_confirmed"),
                ErrorCode::Forbidden,
                "not confirmed",
            ),
            (refused_with(400, "user_banned"), ErrorCode::Forbidden, "banned"),
            (
                unreachable("it answered 429 slow down"),
                ErrorCode::Unreachable,
                "too many tries",
            ),
            (
                unreachable("connection refused"),
                ErrorCode::Unreachable,
                "cannot be reached",
            ),
        ] {
            let told = not_signed_in(&error);
            assert_eq!(told.code, code, "{told:?}");
            assert!(told.message.contains(words) && !told.hint.is_empty(), "{told:?}");
        }
    }
}
