//! `semo login` and `semo logout`: which project this machine belongs to, and who is signed in there. A password goes to
//! the project's sign-in and nowhere else; a secret key is refused.

use std::sync::Arc;

use client::clock::SystemClock;
use client::settings::{Profile, Settings};
use client::settings_file::{Changed, Chosen};
use domain::fault::chain;
use serde_json::json;
use supabase::{Auth, AuthError, Kept, Project, Rest, TokensAt};

use crate::arguments::{Login, Logout};
use crate::exit::{Exit, Failure};
use crate::local::Local;
use crate::print::{note, out};
use crate::typed;
use crate::world::World;

/// `semo login`
pub async fn run(world: &World, order: &Login) -> Result<Exit, Failure> {
    let known = &world.settings.supabase;
    let url = given("Project URL", "--url", order.url.as_deref(), &known.url)?;
    let key = given(
        "Publishable key",
        "--key",
        order.key.as_deref(),
        &known.publishable_key,
    )?;
    let project = Project::new(&url, &key).map_err(|error| Failure::of(Exit::Usage, &error))?;
    if project.url.starts_with("http://") && !project.is_loopback() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{} is not encrypted: everybody on the way could read the password",
                project.url
            ),
            "Use the address that begins with https://.",
        ));
    }
    // Asks for nothing yet; only so that the project is known to answer before somebody types a password.
    let asking = open(&project, Arc::new(supabase::MemoryTokenStore::default()))?;
    asking.answers().await.map_err(|error| failure(&error))?;
    let email = given("E-mail address", "--email", order.email.as_deref(), &known.email)?;
    let file = world.paths.settings();
    let change = |email: &str| {
        let chosen = Chosen::Project {
            url: project.url.clone(),
            publishable_key: project.publishable_key.clone(),
            email: email.to_owned(),
        };
        Changed::of(&file, &chosen).map_err(|error| Failure::of(Exit::Usage, &error))
    };
    // A file that cannot be changed is told before anything else has changed.
    change(&email)?;
    let password = typed::password(world, &format!("Password of {email}"))?;
    let kept = kept(world, &project, &email);
    let auth = open(&project, kept.store.clone())?;
    let tokens = auth
        .sign_in(&email, &password)
        .await
        .map_err(|error| failure(&error))?;
    // As the project writes it: the settings and the sign-in name the same account.
    let email = match tokens.email.as_str() {
        "" => email,
        email => email.to_owned(),
    };
    change(&email)?
        .write()
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    leave(world, &project).await;
    out!("signed in as {email} at {}", project.url)?;
    out!("{}", place(world, &kept))?;
    offices(&Rest::new(project.clone(), auth)).await?;
    for variable in [
        "SEMO_PROFILE",
        "SEMO_SUPABASE_URL",
        "SEMO_SUPABASE_KEY",
        "SEMO_EMAIL",
    ] {
        if world.variable(variable).is_some() {
            note!(
                "note: the environment variable {variable} is set and wins over {}",
                file.display()
            );
        }
    }
    tell_running(world, &project).await;
    Ok(Exit::Ok)
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
    }
    if order.this_machine {
        change
            .write()
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        out!("the next start is for the office of this machine alone")?;
    }
    if let Ok(local) = Local::open(world)
        && local.core.project_url == known.url
    {
        note!("note: what runs here goes on until its access runs out, an hour at most; `semo down` ends it");
    }
    Ok(Exit::Ok)
}

async fn sign_out(world: &World, project: &Project) -> Result<(), Failure> {
    let email = &world.settings.supabase.email;
    let kept = kept(world, project, email);
    let auth = open(project, kept.store.clone())?;
    if auth.user().is_none() {
        // What nobody can use any more, a damaged file for one, goes too.
        kept.store
            .clear()
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        return out!("nobody was signed in at {}", project.url);
    }
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

/// Where the sign-in is kept and why, in one sentence.
pub fn place(world: &World, kept: &Kept) -> String {
    let file = world.paths.tokens();
    match (kept.at, &kept.why_not) {
        (TokensAt::Keychain, _) => "sign-ins are kept in this computer's keychain".to_owned(),
        (TokensAt::File, None) => format!("sign-ins are kept in {}, which only you can read", file.display()),
        (TokensAt::File, Some(why)) => format!(
            "sign-ins are kept in {}, which only you can read: the keychain does not answer ({why})",
            file.display()
        ),
    }
}

/// The store for an account of a project, whatever the profile is now.
pub fn kept(world: &World, project: &Project, email: &str) -> Kept {
    let settings = Settings {
        profile: Profile::Supabase,
        ..world.settings.clone()
    };
    settings.kept_tokens(&world.paths, project, email)
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

fn open(project: &Project, store: Arc<dyn supabase::TokenStore>) -> Result<Auth, Failure> {
    Auth::new(project.clone(), Arc::new(SystemClock), store).map_err(|error| failure(&error))
}

fn failure(error: &AuthError) -> Failure {
    let exit = match error {
        AuthError::Unreachable { .. } | AuthError::Malformed { .. } => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure::of(exit, error)
}

/// The sign-in at the project that the settings named before would stay in the keychain for ever.
async fn leave(world: &World, project: &Project) {
    let old = &world.settings.supabase;
    let Ok(before) = Project::new(&old.url, &old.publishable_key) else {
        return;
    };
    if before.url == project.url {
        return;
    }
    let kept = kept(world, &before, &old.email);
    // In a file, the new sign-in has taken its place.
    if kept.at == TokensAt::File {
        return;
    }
    let left = match open(&before, kept.store) {
        Ok(auth) if auth.user().is_some() => auth.sign_out().await.map_err(|error| chain(&error)),
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.message),
    };
    if let Err(why) = left {
        note!(
            "note: the sign-in at {} was not ended in order: {why}",
            before.url
        );
    }
}

/// That the project is an office's, too: what is missing is told, and may come later.
async fn offices(rest: &Rest) -> Result<(), Failure> {
    match rest.offices().await {
        Ok(offices) if offices.is_empty() => {
            out!("this account belongs to no office yet: ask its owner to add you")
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

/// A core that waits for this sign-in goes on at once.
async fn tell_running(world: &World, project: &Project) {
    let Ok(local) = Local::open(world) else {
        return note!("Start it with `semo up`, or open the window.");
    };
    if local.core.project_url != project.url {
        return note!(
            "note: what runs here belongs to {} until it is started again (`semo down --leave` keeps its agents)",
            local.core.project_url
        );
    }
    if let Err(failure) = local.call("refresh", &json!({})).await {
        note!("note: what runs here could not be told: {}", failure.message);
    }
}
