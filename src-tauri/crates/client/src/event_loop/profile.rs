//! Signing in and out, and switching to another hub. What needs no other composition of the program is done here; for the
//! rest, the choice is checked and written down ([`crate::sign_in`]), and whoever composes the program is told
//! ([`crate::Client::chosen`]).
//!
//! Never switches away from an office while something of it is in our hands or still to be reported: it would reach nobody.
//! A password goes to the project and nowhere else.

use domain::fault::chain;
use supabase::{AuthError, ConnectionState, Kept, Project, ProjectError, Tokens, TokensAt};

use super::office::{OFFICE_ROLE, make_with_agents};
use super::requests::{Reply, say};
use super::{Event, EventLoop};
use crate::earlier::EarlierSignIn;
use crate::request::{Answer, ErrorCode, Password, RequestError, SignInField};
use crate::settings::{Overrides, Profile, Settings};
use crate::settings_file::{Changed, Choice, Chosen};
use crate::sign_in::{Arrival, Door, NotKept};
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
        result: Result<(Box<Choice>, String), RequestError>,
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

/// What a person gives to sign in. What is left empty is as the settings have it.
pub(super) struct Typed {
    pub url: String,
    pub key: String,
    pub email: String,
    pub password: Password,
}

/// What this module is asked for.
pub(super) enum ProfileWish {
    SignIn(Typed),
    SignOut,
    Use(ProfileKind),
    MakeOffice(String),
}

/// How far a switch to another profile has come.
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

    pub(super) fn answer_of_profile(&mut self, wish: ProfileWish, reply: Reply) {
        if self.is_stopping() {
            let message = "SEMO Office is stopping";
            let error = RequestError::new(ErrorCode::NotReady, message, "Start it again.");
            return say(reply, Err(error));
        }
        if self.profile.busy || self.profile.leaving {
            let message = "a sign-in, or the switch to another office, is under way";
            let error = RequestError::new(ErrorCode::Conflict, message, "Try again in a moment.");
            return say(reply, Err(error));
        }
        match wish {
            ProfileWish::SignIn(typed) => match self.wanted(typed) {
                Ok(wanted) => self.sign_in(wanted, reply),
                Err(error) => say(reply, Err(error)),
            },
            ProfileWish::SignOut => self.sign_out(reply),
            ProfileWish::Use(profile) => self.use_profile(profile, reply),
            ProfileWish::MakeOffice(name) => self.make_office(&name, reply),
        }
    }

    fn wanted(&self, typed: Typed) -> Result<Wanted, RequestError> {
        let known = &self.ground.settings.supabase;
        let or_known = |given: &str, known: &str| match given.trim() {
            "" => known.to_owned(),
            given => given.to_owned(),
        };
        let url = or_known(&typed.url, &known.url);
        // Another project's key is not tried: it could only be refused.
        let same_place = match (Project::address(&url), Project::address(&known.url)) {
            (Ok(its), Ok(known)) => its == known,
            (Err(_), _) | (_, Err(_)) => false,
        };
        let key = or_known(&typed.key, if same_place { &known.publishable_key } else { "" });
        let email = or_known(&typed.email, if same_place { &known.email } else { "" });
        let project = Project::new(&url, &key).map_err(|error| not_a_project(&error))?;
        project.refuse_open_way().map_err(|error| not_a_project(&error))?;
        let missing = |what: &str, field| {
            RequestError::new(ErrorCode::Invalid, format!("the {what} is missing"), "").at(field)
        };
        if email.is_empty() {
            return Err(missing("e-mail address", SignInField::Email));
        }
        if typed.password.reveal().is_empty() {
            return Err(missing("password", SignInField::Password));
        }
        Ok(Wanted {
            project,
            email,
            password: typed.password,
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
                let arrived = match Door::knock(project, clock).await {
                    Ok(door) => door.sign_in(&email, password.reveal()).await,
                    Err(error) => Err(error),
                };
                let step = match arrived {
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
            Step::Settled { result, reply } => self.switched(result, reply),
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
                arrival.leave().await;
            });
            return say(reply, Err(refusal));
        }
        let (settings, paths) = (self.ground.settings.clone(), self.ground.paths.clone());
        let clock = self.ground.clock.clone();
        self.switch(reply, async move {
            let email = arrival.email().to_owned();
            let signed_in = arrival.settle(&settings, &paths, clock).await;
            let signed_in = signed_in.map_err(|error| not_kept(&error))?;
            let kept = signed_in.store.kept().ok().flatten();
            let note = format!("signed in as {email}; {}", kept_words(kept.as_ref()));
            Ok((signed_in.choice, note))
        });
    }

    /// Takes nothing new from here on, unless `settle`, which writes the choice down, fails.
    fn switch(
        &mut self,
        reply: Reply,
        settle: impl Future<Output = Result<(Choice, String), RequestError>> + Send + 'static,
    ) {
        self.profile.busy = true;
        self.profile.leaving = true;
        self.changed = true;
        self.start(async move {
            let result = settle.await.map(|(choice, note)| (Box::new(choice), note));
            Event::Profile(Box::new(Step::Settled { result, reply }))
        });
    }

    fn switched(&mut self, result: Result<(Box<Choice>, String), RequestError>, reply: Reply) {
        match result {
            Ok((choice, note)) => {
                tracing::info!("another profile was chosen");
                say(reply, Ok(Answer::note(note)));
                self.ground.choose.send_replace(Some(*choice));
            }
            Err(error) => {
                self.profile.leaving = false;
                self.changed = true;
                say(reply, Err(error));
                // What was given to us meanwhile was not taken.
                self.claim("the switch did not come about");
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
        let (settings, paths) = (self.ground.settings.clone(), self.ground.paths.clone());
        self.switch(reply, async move {
            // Of a project that the settings do not name any more then.
            let earlier = match &chosen {
                Chosen::ThisMachine => None,
                Chosen::Project {
                    url,
                    publishable_key,
                    email,
                } => {
                    let next = Project::new(url, publishable_key).map_err(|error| not_a_project(&error))?;
                    EarlierSignIn::of(&settings, &paths, &next, email)
                }
            };
            let written = Changed::of(&paths.settings(), &chosen).and_then(Changed::write);
            let before = written.map_err(|error| not_kept(&NotKept::Settings(error)))?;
            let choice = Choice {
                chosen,
                before,
                // Nothing takes its place by a switch alone.
                earlier: earlier.filter(|earlier| !earlier.is_replaced()),
            };
            Ok((choice, "SEMO Office switches to it".to_owned()))
        });
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

    /// What of the present office would reach nobody after a switch to another hub.
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
            (0, Ok(0)) => None,
            (0, Err(error)) => conflict(
                format!("whether results of {of} wait here cannot be told: {error}"),
                "Try again, or end SEMO Office and use `semo login` or `semo logout --this-machine`.",
            ),
            (0, Ok(results)) => conflict(
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
        for code in [
            "office_unreachable",
            "office",
            OFFICE_ROLE,
            "keychain",
            "sign_in_store",
        ] {
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
            let made = make_with_agents(&rest, &first).await;
            let result = made.map(|office| format!("office {} is made", office.name));
            Event::Profile(Box::new(Step::OfficeMade { result, reply }))
        });
    }

    /// What came of a switch that did not come about is told until somebody looks anew.
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
        if self.is_somebody_elses() {
            let message = format!(
                "{} is not signed in: somebody else has signed in on this machine; nothing is taken or reported",
                self.ground.account.email
            );
            self.problem("sign_in", message, "Sign in again, or start SEMO Office again.");
        }
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

fn not_a_project(error: &ProjectError) -> RequestError {
    let field = match error {
        ProjectError::Url { .. } | ProjectError::OpenWay { .. } => SignInField::Url,
        ProjectError::Key { .. } => SignInField::Key,
    };
    RequestError::new(ErrorCode::Invalid, error.to_string(), "").at(field)
}

fn not_kept(error: &NotKept) -> RequestError {
    match error {
        NotKept::Settings(error) => RequestError::new(ErrorCode::Conflict, chain(error), ""),
        NotKept::SignIn { source, left } => {
            if let Some(left) = left {
                tracing::error!(error = %chain(left), "the settings name a project that nobody is signed in to");
            }
            not_signed_in(source)
        }
    }
}

/// Why nobody was signed in, for the person who has just typed it. 401 is left to the key of the local API.
fn not_signed_in(error: &AuthError) -> RequestError {
    use SignInField::{Key, Password, Url};
    let (code, message, hint, field) = match error {
        AuthError::WrongPassword => (
            ErrorCode::Forbidden,
            error.to_string(),
            "Check both; accounts are made by the owner of the project.",
            Some(Password),
        ),
        AuthError::Refused { code, .. } if code == "email_not_confirmed" => (
            ErrorCode::Forbidden,
            "this account's e-mail address is not confirmed yet".to_owned(),
            "Follow the link in the mail, or ask the owner of the project to confirm the account.",
            None,
        ),
        AuthError::Refused { code, .. } if code == "user_banned" => (
            ErrorCode::Forbidden,
            "this account is banned from the project".to_owned(),
            "Ask the owner of the project.",
            None,
        ),
        AuthError::Refused {
            url,
            status: 401 | 403,
            ..
        } => (
            ErrorCode::Invalid,
            format!("{url} does not take this publishable key"),
            "Copy it again from the project's settings, API Keys; it begins with sb_publishable_.",
            Some(Key),
        ),
        AuthError::Unreachable { url, .. } if error.is_rate_limit() => (
            ErrorCode::Unreachable,
            format!("{url} has had too many tries to sign in"),
            "Wait a few minutes, then try again.",
            None,
        ),
        AuthError::Unreachable { url, reason, .. } => (
            ErrorCode::Unreachable,
            format!("{url} cannot be reached: {reason}"),
            "Check the address and the network, then try again.",
            Some(Url),
        ),
        AuthError::Malformed { url, why, .. } => (
            ErrorCode::Invalid,
            format!("there is no Supabase project at {url}: {why}"),
            "Check the address; it looks like https://<ref>.supabase.co.",
            Some(Url),
        ),
        AuthError::Project(error) => return not_a_project(error),
        AuthError::Refused { .. } | AuthError::SignedOut { .. } => {
            (ErrorCode::Forbidden, chain(error), "", None)
        }
        AuthError::Store { .. } | AuthError::Client { .. } => (ErrorCode::Conflict, chain(error), "", None),
    };
    RequestError::new(code, message, hint).at(field)
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

    fn unreachable(status: Option<u16>) -> AuthError {
        AuthError::Unreachable {
            attempted: "sign in",
            url: "https://a.supabase.co".to_owned(),
            reason: "it is so".to_owned(),
            retry_after: None,
            status,
        }
    }

    #[test]
    fn what_stands_in_the_way_of_a_sign_in_is_told_with_what_can_be_done_and_where_it_was_typed() {
        use ErrorCode::{Forbidden, Invalid, Unreachable};
        let malformed = AuthError::Malformed {
            attempted: "sign in",
            url: "https://a.example".to_owned(),
            why: "a page".to_owned(),
        };
        for (error, code, words, field) in [
            (
                AuthError::WrongPassword,
                Forbidden,
                "password is wrong",
                Some(SignInField::Password),
            ),
            (
                refused_with(401, ""),
                Invalid,
                "publishable key",
                Some(SignInField::Key),
            ),
            (
                refused_with(400, "email_not_confirmed"),
                Forbidden,
                "not confirmed",
                None,
            ),
            (refused_with(400, "user_banned"), Forbidden, "banned", None),
            (unreachable(Some(429)), Unreachable, "too many tries", None),
            (
                unreachable(Some(503)),
                Unreachable,
                "cannot be reached",
                Some(SignInField::Url),
            ),
            (
                unreachable(None),
                Unreachable,
                "cannot be reached",
                Some(SignInField::Url),
            ),
            (malformed, Invalid, "no Supabase project", Some(SignInField::Url)),
        ] {
            let told = not_signed_in(&error);
            assert_eq!((told.code, told.field), (code, field), "{told:?}");
            assert!(told.message.contains(words) && !told.hint.is_empty(), "{told:?}");
        }
    }

    #[test]
    fn an_address_or_a_key_that_cannot_be_used_is_told_where_it_was_typed() {
        let field = |url, key| {
            let project = Project::new(url, key);
            let refused = project.and_then(|project| project.refuse_open_way());
            not_a_project(&refused.unwrap_err()).field
        };
        assert_eq!(field("abc", "k"), Some(SignInField::Url));
        assert_eq!(field("http://hub.example", "k"), Some(SignInField::Url));
        assert_eq!(
            field("https://hub.example", "sb_secret_1"),
            Some(SignInField::Key)
        );
    }
}
