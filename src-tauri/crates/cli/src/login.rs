//! `semo login` and `semo logout`: which project this machine belongs to, and who is signed in there. A password goes to
//! the project's sign-in and nowhere else; a secret key is refused.

use std::sync::Arc;

use client::EarlierSignIn;
use client::settings_file::{Changed, Chosen};
use client::sign_in::{Door, NotKept};
use domain::fault::chain;
use serde_json::json;
use supabase::{
    Auth, AuthError, FileTokenStore, Kept, KeptTokens, Project, Rest, StoreError, TokenStore, TokensAt,
};

use crate::arguments::{Login, Logout};
use crate::exit::{Exit, Failure};
use crate::local::Local;
use crate::print::{note, out};
use crate::typed;
use crate::world::World;

/// `semo login`
pub async fn run(world: &World, order: &Login) -> Result<Exit, Failure> {
    let known = &world.settings.supabase;
    let project = project(world, order)?;
    let door = Door::knock(project.clone(), world.clock.clone()).await;
    let door = door.map_err(|error| failure(&error))?;
    let email = given("E-mail address", "--email", order.email.as_deref(), &known.email)?;
    let wanted = Chosen::Project {
        url: project.url.clone(),
        publishable_key: project.publishable_key.clone(),
        email: email.clone(),
    };
    // A file that cannot be changed is told before anything else has changed, and a sign-in that cannot be kept.
    Changed::of(&world.paths.settings(), &wanted).map_err(|error| Failure::of(Exit::Usage, &error))?;
    let store = world.settings.team_tokens(&world.paths, &project);
    store
        .would_keep()
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let password = typed::password(world, &format!("Password of {email}"))?;
    let arrival = door.sign_in(&email, &password).await;
    let arrival = arrival.map_err(|error| failure(&error))?;
    drop(password);
    let email = arrival.email().to_owned();
    let stays = is_its_address(&known.url, &project.url) && email.eq_ignore_ascii_case(&known.email);
    if !stays {
        tell_what_waits(world);
    }
    let settled = arrival
        .settle(&world.settings, &world.paths, world.clock.clone())
        .await;
    let signed_in = settled.map_err(|error| not_kept(&project, &error))?;
    out!("signed in as {email} at {}", project.url)?;
    out!("{}", place(world, &project, &signed_in.store))?;
    offices(&Rest::new(project, signed_in.auth)).await?;
    tell_what_wins(world);
    let whose = tell_running(world).await;
    if let Some(earlier) = signed_in.choice.earlier
        && whose.is_ours(&earlier)
    {
        earlier.end(world.clock.clone()).await;
    }
    Ok(Exit::Ok)
}

fn not_kept(project: &Project, error: &NotKept) -> Failure {
    match error {
        NotKept::Settings(error) => Failure::of(Exit::Failed, error),
        NotKept::SignIn { source, left } => {
            if let Some(left) = left {
                note!("note: the settings name {} already: {}", project.url, chain(left));
            }
            failure(source)
        }
    }
}

/// Does this setting name the project at `url`, however it is typed?
fn is_its_address(setting: &str, url: &str) -> bool {
    Project::address(setting).is_ok_and(|its| its == url)
}

/// The project that is given or known. One to which everybody could read the password on the way is refused.
fn project(world: &World, order: &Login) -> Result<Project, Failure> {
    let known = &world.settings.supabase;
    let url = given("Project URL", "--url", order.url.as_deref(), &known.url)?;
    let key = given(
        "Publishable key",
        "--key",
        order.key.as_deref(),
        &known.publishable_key,
    )?;
    let project = Project::new(&url, &key).map_err(|error| Failure::of(Exit::Usage, &error))?;
    project
        .refuse_open_way()
        .map_err(|error| Failure::of(Exit::Usage, &error))?;
    Ok(project)
}

/// What is set beside the settings file.
fn tell_what_wins(world: &World) {
    for variable in [
        "SEMO_PROFILE",
        "SEMO_SUPABASE_URL",
        "SEMO_SUPABASE_KEY",
        "SEMO_EMAIL",
    ] {
        if world.variable(variable).is_some() {
            note!(
                "note: the environment variable {variable} is set and wins over {}",
                world.paths.settings().display()
            );
        }
    }
}

/// `semo logout`
pub async fn leave_project(world: &World, order: &Logout) -> Result<Exit, Failure> {
    let known = &world.settings.supabase;
    // Told before anything has changed.
    let change = Changed::of(&world.paths.settings(), &Chosen::ThisMachine);
    let change = change.map_err(|error| Failure::of(Exit::Usage, &error))?;
    if known.url.is_empty() {
        out!("the settings name no project: nobody is signed in")?;
    } else {
        let project = Project::new(&known.url, &known.publishable_key)
            .map_err(|error| Failure::of(Exit::Usage, &error))?;
        sign_out(world, &project).await?;
        forget_what_lay_before(world, &project).await;
        tell_what_waits(world);
    }
    if order.this_machine {
        change
            .write()
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        out!("SEMO Office is for the office of this machine alone now")?;
    }
    if let Ok(local) = Local::open(world)
        && is_its_address(&known.url, &local.core.project_url)
        && !(order.this_machine && switched(&local, "this_machine").await)
    {
        note!("note: what runs here goes on until its access runs out, an hour at most; `semo down` ends it");
    }
    Ok(Exit::Ok)
}

async fn sign_out(world: &World, project: &Project) -> Result<(), Failure> {
    let email = &world.settings.supabase.email;
    let store = Arc::new(world.settings.team_tokens(&world.paths, project));
    let cleared = || store.clear().map_err(|error| Failure::of(Exit::Failed, &error));
    match store.load() {
        Ok(Some(_)) => {}
        // Forgotten all the same; what the keychain still holds is named by nothing any more.
        Err(StoreError::Keychain { reason, .. }) => {
            if store.clear().is_err() {
                note!("note: it is left in the keychain, and its project could not be told: {reason}");
            }
            return out!("the sign-in of {email} is forgotten here");
        }
        // What nobody can use any more, a damaged file for one, goes too.
        Ok(None) | Err(_) => {
            cleared()?;
            return out!("nobody was signed in at {}", project.url);
        }
    }
    let auth = open(world, project, store.clone())?;
    // The project ends a session only for a token that is still good. A session that is over needs no end.
    let renewed = auth.access_token().await;
    match auth.sign_out().await {
        Err(error @ AuthError::Store { .. }) => Err(failure(&error)),
        Ok(()) if !renewed.is_err_and(|error| error.is_passing()) => {
            out!("{email} is signed out at {}", project.url)
        }
        outcome => {
            let why = outcome
                .err()
                .map_or_else(|| "it does not answer".to_owned(), |error| chain(&error));
            out!("the sign-in of {email} is forgotten here")?;
            note!("note: {} could not be told: {why}", project.url);
            Ok(())
        }
    }
}

/// An older sign-in to this project, in the file of an earlier version: it would stay good for ever.
async fn forget_what_lay_before(world: &World, project: &Project) {
    let store = Arc::new(FileTokenStore::new(world.paths.tokens_of_before(), project));
    if !matches!(store.load(), Ok(Some(_))) {
        return;
    }
    let told = match open(world, project, store.clone()) {
        Ok(auth) => auth.sign_out().await,
        Err(_) => Ok(()),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "an older sign-in is forgotten here, and its project could not be told");
    }
    if let Err(error) = store.clear() {
        note!("note: an older sign-in could not be removed: {}", chain(&error));
    }
}

/// Where the sign-in is kept and why, or would be, in one sentence.
pub fn place(world: &World, project: &Project, store: &KeptTokens) -> String {
    let (is, kept) = match store.kept() {
        Ok(Some(kept)) => ("the sign-in is", Ok(kept)),
        Ok(None) | Err(_) => ("a sign-in would be", store.would_keep()),
    };
    let file = world.paths.tokens(project);
    match kept {
        Ok(Kept {
            at: TokensAt::Keychain,
            ..
        }) => format!("{is} kept in this computer's keychain"),
        Ok(Kept { why_not: None, .. }) => {
            format!("{is} kept in {}, which only you can read", file.display())
        }
        Ok(Kept {
            why_not: Some(why), ..
        }) => format!(
            "{is} kept in {}, which only you can read: the keychain cannot be used ({why})",
            file.display()
        ),
        Err(error) => format!("the sign-in cannot be kept: {}", chain(&error)),
    }
}

/// A setting by flag, else the one there is, else as it is typed.
fn given(what: &str, flag: &str, by_flag: Option<&str>, known: &str) -> Result<String, Failure> {
    let text = match by_flag {
        Some(text) => text.to_owned(),
        None if !known.is_empty() => known.to_owned(),
        None if typed::is_somebody_there() => typed::line(what)?,
        None => String::new(),
    };
    let text = text.trim().to_owned();
    if text.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("{what}: not given"),
            format!("Name it with {flag}."),
        ));
    }
    Ok(text)
}

fn open(world: &World, project: &Project, store: Arc<dyn TokenStore>) -> Result<Auth, Failure> {
    Auth::new(project.clone(), world.clock.clone(), store).map_err(|error| failure(&error))
}

fn failure(error: &AuthError) -> Failure {
    let exit = match error {
        AuthError::Unreachable { .. } | AuthError::Malformed { .. } => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure::of(exit, error)
}

/// That the project is an office's, too: what is missing is told, and may come later.
async fn offices(rest: &Rest) -> Result<(), Failure> {
    match rest.offices().await {
        Ok(offices) if offices.is_empty() => {
            out!("this account belongs to no office yet: ask an owner to add you, or make one in the window")
        }
        Ok(offices) => {
            let names: Vec<_> = offices.into_iter().map(|row| row.name).collect();
            out!("its offices: {}", names.join(", "))
        }
        Err(error) => {
            note!("note: its offices cannot be read: {error}");
            Ok(())
        }
    }
}

/// Results of the account of before that its office has not taken yet: they stay here, and go to nobody else.
fn tell_what_waits(world: &World) {
    let known = &world.settings.supabase;
    match client::results_waiting(&world.settings, &world.paths) {
        Ok(0) => {}
        Ok(number) => note!(
            "note: not reported yet to {}: {number} of {}'s results; they wait here until that account is served again",
            known.url,
            known.email
        ),
        Err(error) => note!(
            "note: whether results of {} wait here cannot be told: {error}",
            known.email
        ),
    }
}

/// Who ends the sign-in of before.
enum EndedBy {
    /// Nobody goes on with it.
    Us,
    /// The core that runs here, when it has left it.
    Core,
    /// It goes on.
    Nobody,
}

impl EndedBy {
    fn is_ours(&self, earlier: &EarlierSignIn) -> bool {
        match self {
            EndedBy::Us => true,
            // What was replaced nobody else knows.
            EndedBy::Core => earlier.is_replaced(),
            EndedBy::Nobody => false,
        }
    }
}

/// What runs here switches to what the settings say now.
async fn tell_running(world: &World) -> EndedBy {
    let Ok(local) = Local::open(world) else {
        note!("Start it with `semo up`, or open the window.");
        return EndedBy::Us;
    };
    if !switched(&local, "supabase").await {
        return EndedBy::Nobody;
    }
    // One that is there already, and waits for a sign-in, goes on at once.
    if let Err(failure) = local.call("refresh", &json!({})).await {
        tracing::debug!(message = %failure.message, "it switches, and looks by itself");
    }
    EndedBy::Core
}

/// Asks the running core to switch to this profile; what keeps it from that is told.
async fn switched(local: &Local, profile: &str) -> bool {
    let answer = local.call("use_profile", &json!({ "profile": profile })).await;
    if let Err(failure) = &answer {
        note!(
            "note: what runs here still belongs to {}: {}",
            local.core.project_url,
            failure.message
        );
        note!("note: it switches at its next start (`semo down --leave` keeps its agents)");
    }
    answer.is_ok()
}
