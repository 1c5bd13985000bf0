//! `semo doctor`: what is missing on this machine, and how to get it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::settings::Profile;
use journal::{Journal, JournalError};
use provider::claude::{self, SignIn};
use serde::Serialize;
use supabase::{Project, TokenStore};
use terminal::run_once;

use crate::arguments::Doctor;
use crate::exit::{Exit, Failure};
use crate::holder;
use crate::login;
use crate::print::out;
use crate::running::{self, Claim};
use crate::words::count;
use crate::world::World;
use domain::fault::chain;

/// How long a program may take to tell its version.
const VERSION_WAIT: Duration = Duration::from_secs(20);
/// Bytes in a mebibyte.
const MEBIBYTE: f64 = 1_048_576.0;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What.
    what: &'static str,
    /// Whether it is in order.
    ok: bool,
    /// What was found.
    found: String,
    /// What to do when it is not in order; empty otherwise.
    hint: String,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            what,
            ok: true,
            found: found.into(),
            hint: String::new(),
        }
    }

    fn bad(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding {
            what,
            ok: false,
            found: found.into(),
            hint: hint.into(),
        }
    }
}

/// Runs the order. The exit code is 1 when something is missing.
pub async fn run(world: &World, order: &Doctor) -> Result<Exit, Failure> {
    if order.set_journal_aside {
        return set_journal_aside(world, order).await;
    }
    let environment = world.agent_environment();
    let path = world.variable("PATH").unwrap_or_default();
    let mut findings = vec![
        settings(world),
        folder("data folder", &world.paths.data_dir),
        git(path, &environment).await,
        postgres(world).await,
        repositories(world).await,
    ];
    findings.extend(sign_in(world));
    findings.extend(agent_program(world, path, &environment).await);
    findings.push(holder_program(world, &environment).await);
    findings.push(journal(world));
    findings.extend(put_aside(world));
    findings.push(core(world));
    findings.extend(left_running(world));
    let ok = findings.iter().all(|finding| finding.ok);
    if order.json {
        out!("{}", serde_json::json!({ "ok": ok, "findings": findings }))?;
    } else {
        for finding in &findings {
            let sign = if finding.ok { "✓" } else { "✗" };
            out!("{sign} {:<16} {}", finding.what, finding.found)?;
            if !finding.hint.is_empty() {
                out!("  → {}", finding.hint)?;
            }
        }
    }
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}

fn settings(world: &World) -> Finding {
    let file = world.paths.settings();
    let found = if file.exists() {
        file.display().to_string()
    } else {
        format!("none at {} (defaults)", file.display())
    };
    Finding::good("settings", found)
}

fn folder(what: &'static str, dir: &Path) -> Finding {
    let probe = dir.join(".doctor");
    let tried = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, b"x"))
        .and_then(|()| std::fs::remove_file(&probe));
    match tried {
        Ok(()) => Finding::good(what, dir.display().to_string()),
        Err(error) => Finding::bad(
            what,
            format!("{} cannot be written: {error}", dir.display()),
            "Make it yours and make room on the disk, or name another folder with SEMO_DATA_DIR.",
        ),
    }
}

async fn git(path: &str, environment: &[(String, String)]) -> Finding {
    const HINT: &str = "Install git: `apt-get install git`, `brew install git`, or from git-scm.com.";
    let Some(program) = find(path, "git") else {
        return Finding::bad("git", "not found on PATH", HINT);
    };
    match run_once(&program, &["--version"], environment, VERSION_WAIT).await {
        Ok(output) if output.code == Some(0) => Finding::good("git", output.stdout.trim()),
        Ok(output) => Finding::bad("git", format!("does not work: {}", output.stderr.trim()), HINT),
        Err(error) => Finding::bad("git", chain(&error), HINT),
    }
}

async fn postgres(world: &World) -> Finding {
    match hub::find_postgres(world.settings.hub.postgres_bin.as_deref()).await {
        Ok(bin) => Finding::good("postgres", bin.display().to_string()),
        Err(_) if world.settings.profile == Profile::Supabase => {
            Finding::good("postgres", "none found; a workstation of a team does without")
        }
        Err(error) => Finding::bad(
            "postgres",
            error.to_string(),
            "Needed for the profile \"This machine\" and for `semo hub`; a workstation of a team does without.",
        ),
    }
}

async fn repositories(world: &World) -> Finding {
    let repositories = &world.settings.repositories;
    if repositories.is_empty() && world.settings.profile == Profile::Supabase {
        let hint = format!(
            "Add one to {}: `[repositories]`, then `name = \"/absolute/path\"`.",
            world.paths.settings().display()
        );
        return Finding::bad("repositories", "none set: no session can be started", hint);
    }
    if repositories.is_empty() {
        return Finding::good(
            "repositories",
            "none set: a sample is made for the profile \"This machine\"",
        );
    }
    for (name, path) in repositories {
        if let Err(error) = worktree::Repository::open(path).await {
            let hint = format!(
                "Correct repositories.{name} in {}.",
                world.paths.settings().display()
            );
            return Finding::bad("repositories", format!("{name}: {}", chain(&error)), hint);
        }
    }
    let names: Vec<_> = repositories.keys().cloned().collect();
    Finding::good("repositories", names.join(", "))
}

/// Is Claude Code there, does it start, is its user signed in?
async fn agent_program(world: &World, path: &str, environment: &[(String, String)]) -> Vec<Finding> {
    let program = match claude::find_program(path, world.settings.claude.program.as_deref()) {
        Ok(program) => program,
        Err(error) => return vec![Finding::bad("claude", "not found", error.to_string())],
    };
    let version = match claude::version(&program, environment).await {
        Ok(version) => Finding::good("claude", format!("{version} at {}", program.display())),
        Err(error) => return vec![Finding::bad("claude", chain(&error), claude::INSTALL_HINT)],
    };
    let signed_in = match claude::sign_in(&program, environment).await {
        SignIn::Yes { method } => Finding::good("claude sign-in", format!("signed in ({method})")),
        SignIn::No => Finding::bad("claude sign-in", "not signed in", claude::SIGN_IN_HINT),
        SignIn::Unknown => Finding::good(
            "claude sign-in",
            "cannot be told by this version; a session will show",
        ),
    };
    vec![version, signed_in]
}

/// Who is signed in where, and where that is kept.
fn sign_in(world: &World) -> Option<Finding> {
    const HINT: &str = "Sign in with `semo login`.";
    let settings = &world.settings.supabase;
    if world.settings.profile != Profile::Supabase {
        return None;
    }
    let project = match Project::new(&settings.url, &settings.publishable_key) {
        Ok(project) => project,
        Err(error) => return Some(Finding::bad("sign-in", chain(&error), HINT)),
    };
    let store = world.settings.team_tokens(&world.paths, &project);
    let place = login::place(world, &project, &store);
    Some(match store.load() {
        Ok(Some(tokens)) if tokens.email.eq_ignore_ascii_case(&settings.email) => {
            Finding::good("sign-in", format!("{} at {}; {place}", tokens.email, project.url))
        }
        // A server's account comes with its password.
        _ if world.variable("SEMO_PASSWORD").is_some() => Finding::good(
            "sign-in",
            format!("{} at {}, by SEMO_PASSWORD; {place}", settings.email, project.url),
        ),
        Ok(_) => {
            let found = format!("{} is not signed in at {}; {place}", settings.email, project.url);
            Finding::bad("sign-in", found, HINT)
        }
        Err(error) => Finding::bad("sign-in", chain(&error), HINT),
    })
}

/// The program without which no session can be started.
async fn holder_program(world: &World, environment: &[(String, String)]) -> Finding {
    const HINT: &str = "It comes with SEMO Office and lies beside `semo`: install that anew, or name it with SEMO_HOLDER or setting holder.program.";
    let program = holder::program(world);
    let shown = program.display();
    if !program.is_file() {
        return Finding::bad("holder", format!("not found at {shown}"), HINT);
    }
    match run_once(&program, &["--version"], environment, VERSION_WAIT).await {
        Ok(output) if output.code == Some(0) => {
            Finding::good("holder", format!("{} at {shown}", output.stdout.trim()))
        }
        Ok(output) => Finding::bad(
            "holder",
            format!("{shown} does not work: {}", output.stderr.trim()),
            HINT,
        ),
        Err(error) => Finding::bad("holder", chain(&error), HINT),
    }
}

/// Can the journal be read, and what waits in it?
fn journal(world: &World) -> Finding {
    let path = world.paths.journal();
    if !path.exists() {
        return Finding::good("journal", format!("none yet at {}", path.display()));
    }
    let read = Journal::open_to_read(&path).and_then(|journal| Ok((journal.counts()?, journal.size()?)));
    match read {
        Ok((counts, size)) => Finding::good(
            "journal",
            format!(
                "{} not begun, {} under way, {} for the office to acknowledge; {:.1} MiB at {}",
                counts.received,
                counts.started,
                count(counts.results_waiting, "result"),
                (size.file + size.log) as f64 / MEBIBYTE,
                path.display()
            ),
        ),
        // It is brought up to date by the next start.
        Err(error @ JournalError::Older { .. }) => Finding::good("journal", chain(&error)),
        Err(error) => Finding::bad("journal", chain(&error), ""),
    }
}

/// What was put aside is kept until somebody removes it.
fn put_aside(world: &World) -> Option<Finding> {
    let journal = world.paths.journal();
    let name = format!("{}.aside-", journal.file_name()?.to_string_lossy());
    let entries = std::fs::read_dir(&world.paths.data_dir).ok()?;
    let kept: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|file| file.starts_with(&name) && !file.ends_with("-wal") && !file.ends_with("-shm"))
        .collect();
    (!kept.is_empty()).then(|| Finding {
        hint: "Nobody reads it any more; remove it when you do not need it.".to_owned(),
        ..Finding::good("put aside", kept.join(", "))
    })
}

/// Puts a journal that cannot be used aside. Refused while a core runs, which has it open.
async fn set_journal_aside(world: &World, order: &Doctor) -> Result<Exit, Failure> {
    let _claim = Claim::take(&world.paths).await?;
    let path = world.paths.journal();
    if !path.exists() {
        return Err(Failure::new(
            Exit::Failed,
            format!("there is no journal at {}", path.display()),
            "There is nothing to put aside.",
        ));
    }
    let aside =
        journal::set_aside(&path, world.clock.now()).map_err(|error| Failure::of(Exit::Failed, &error))?;
    if order.json {
        out!("{}", serde_json::json!({ "put_aside": aside }))?;
    } else {
        out!(
            "the journal is kept as {}; the next start begins a new one",
            aside.display()
        )?;
        out!(
            "what this workstation had not reported is not known any more; the office tells it after a while as given up"
        )?;
        out!("agents that still run are ended by the next start; their worktrees are kept")?;
    }
    Ok(Exit::Ok)
}

fn core(world: &World) -> Finding {
    match running::find(&world.paths) {
        Ok(core) => Finding::good("running", format!("process {} at {}", core.pid, core.url)),
        Err(failure) if running::is_free(&world.paths) => {
            Finding::good("running", format!("no ({})", failure.hint))
        }
        // Starting, ending, or a file system without locks.
        Err(failure) => Finding::bad("running", failure.message, failure.hint),
    }
}

/// Agents that go on without a core.
fn left_running(world: &World) -> Option<Finding> {
    if !running::is_free(&world.paths) {
        return None;
    }
    match holder::tags(world) {
        Ok(tags) if tags.is_empty() => None,
        Ok(tags) => Some(Finding {
            hint: "`semo up` takes them up again, `semo down` ends them.".to_owned(),
            ..Finding::good(
                "without a core",
                format!("{}, running or just over", count(tags.len() as u64, "session")),
            )
        }),
        Err(failure) => Some(Finding::bad("without a core", failure.message, failure.hint)),
    }
}

fn find(path: &str, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
