//! What must be true after any mishap, checked from three sides: the office's database, the workstation's journal, and
//! the marks by which the agents tell what they really did.
//!
//! [`breaches`] is a pure function over what was found, so that each rule can be shown to see a breach.

use std::path::Path;

use domain::CommandId;
use journal::{Counts, Journal};
use rustix::fs::{FlockOperation, flock};
use supabase::{AskState, CommandRow, CommandState, ResultRow, ResultStatus};

use crate::processes::{Process, of_folder};
use crate::station::{Door, Job, Station, Wanted};

/// Most asks of the office that are looked at.
const ASKS_MAX: usize = 200;

/// A command of the office and all that was reported of it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its row.
    pub row: CommandRow,
    /// Its results, late ones too.
    pub results: Vec<ResultRow>,
}

/// What was found when everything had come to its end.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What the office says.
    pub told: Vec<Told>,
    /// What the agents marked.
    pub marks: Vec<String>,
    /// Asks that still wait for somebody.
    pub open_asks: Vec<String>,
    /// What a journal still has open: commands, turns, sessions, results that nobody has acknowledged.
    pub journal: Vec<String>,
    /// Processes that live.
    pub processes: Vec<Process>,
    /// Sockets, holders' folders and locks that were left behind.
    pub left: Vec<String>,
}

/// What is wrong, one line each; empty when nothing is.
pub fn breaches(jobs: &[Job], found: &Found) -> Vec<String> {
    let mut wrong = Vec::new();
    for job in jobs {
        match found.told.iter().find(|told| told.row.id == job.id) {
            Some(told) => of_job(job, told, &found.marks, &mut wrong),
            None => wrong.push(format!("command {} is not in the office any more", job.id)),
        }
    }
    for told in &found.told {
        let id = told.row.id;
        if !told.row.state.is_final() {
            wrong.push(format!("command {id} never ended: {:?}", told.row.state));
        }
        let finals = told.results.iter().filter(|result| is_final(result)).count();
        let expected = usize::from(is_reported(told.row.state) && !never_taken(&told.row));
        if finals != expected {
            wrong.push(format!(
                "command {id} ({:?}) has {finals} final results",
                told.row.state
            ));
        }
    }
    wrong.extend(
        found
            .open_asks
            .iter()
            .map(|ask| format!("a dead ask is open: {ask}")),
    );
    wrong.extend(found.journal.iter().cloned());
    let alive = found.processes.iter();
    wrong.extend(alive.map(|process| format!("a process was left: {} {}", process.pid, process.line)));
    wrong.extend(found.left.iter().map(|what| format!("left behind: {what}")));
    wrong
}

fn of_job(job: &Job, told: &Told, marks: &[String], wrong: &mut Vec<String>) {
    let made = |word: &str| {
        let mark = format!("{word}-{}", job.tag);
        marks.iter().filter(|made| **made == mark).count()
    };
    let (begun, ended) = (made("begin"), made("end"));
    let mut fault = |what: &str| {
        let said: Vec<_> = told
            .results
            .iter()
            .map(|result| (&result.outcome, &result.error))
            .collect();
        wrong.push(format!(
            "job {} ({:?}, command {}) {what}: begun {begun}, ended {ended}, state {:?}, told {said:?}",
            job.tag, job.wanted, job.id, told.row.state
        ));
    };
    if begun > 1 || ended > 1 {
        fault("was carried out more than once");
    }
    match told.row.state {
        CommandState::Succeeded if job.wanted != Wanted::Done => fault("was never meant to be done"),
        CommandState::Succeeded if (begun, ended) != (1, 1) => fault("is told as done, and is not"),
        CommandState::Cancelled if !may_be_cancelled(job) => fault("was cancelled by nobody"),
        CommandState::Cancelled if ended > 0 => fault("is told as cancelled, and went to its end"),
        CommandState::Failed if job.wanted != Wanted::Failed && ended > 0 => {
            fault("is told as failed, and went to its end");
        }
        CommandState::Expired | CommandState::Dead if begun > 0 => fault("was given up, and was begun"),
        CommandState::Succeeded
        | CommandState::Unconfirmed
        | CommandState::Failed
        | CommandState::Cancelled
        | CommandState::Expired
        | CommandState::Dead
        | CommandState::Queued
        | CommandState::Leased
        | CommandState::Other => {}
    }
}

fn may_be_cancelled(job: &Job) -> bool {
    job.wanted == Wanted::Cancelled || job.session_may_end
}

fn is_final(result: &ResultRow) -> bool {
    match result.status {
        ResultStatus::Succeeded
        | ResultStatus::Unconfirmed
        | ResultStatus::Failed
        | ResultStatus::Cancelled => true,
        ResultStatus::Progress | ResultStatus::Late | ResultStatus::Other => false,
    }
}

/// States that a client's report brings about; the others are the office's own.
fn is_reported(state: CommandState) -> bool {
    match state {
        CommandState::Succeeded
        | CommandState::Unconfirmed
        | CommandState::Failed
        | CommandState::Cancelled => true,
        CommandState::Queued
        | CommandState::Leased
        | CommandState::Expired
        | CommandState::Dead
        | CommandState::Other => false,
    }
}

/// Cancelled while it still waited: nobody had it, nobody reports it.
fn never_taken(row: &CommandRow) -> bool {
    row.state == CommandState::Cancelled && row.attempt == 0
}

/// Looks everywhere, after the workstations have ended. `more`: commands that are no jobs.
pub async fn look(door: &Door<'_>, stations: &[&Station], jobs: &[Job], more: &[CommandId]) -> Found {
    let mut found = Found::default();
    let ids: Vec<CommandId> = jobs
        .iter()
        .map(|job| job.id)
        .chain(more.iter().copied())
        .collect();
    for id in ids {
        let Some(row) = door.rest.command(id).await.expect("the office answers") else {
            continue;
        };
        let results = door.rest.results(&[id]).await.expect("the office answers");
        found.told.push(Told { row, results });
    }
    let asks = door
        .rest
        .asks(door.office, ASKS_MAX)
        .await
        .expect("the office answers");
    let open = asks.rows.iter().filter(|ask| ask.state == AskState::Pending);
    found.open_asks = open.map(|ask| format!("{} {}", ask.id, ask.text)).collect();
    for station in stations {
        let folder = station.place.dir.path();
        found.marks.extend(station.marks());
        found.processes.extend(of_folder(folder));
        found
            .left
            .extend(left_in(&station.data(), &folder.join("sample")));
        found
            .journal
            .extend(open_in(&station.data().join("journal.sqlite")));
    }
    found
}

/// Checks all, and says where each breach is.
pub async fn check(what: &str, door: &Door<'_>, stations: &[&Station], jobs: &[Job], more: &[CommandId]) {
    let found = look(door, stations, jobs, more).await;
    let wrong = breaches(jobs, &found);
    if !wrong.is_empty() {
        let logs: Vec<String> = stations.iter().map(|station| station.keep_log()).collect();
        panic!(
            "{what}: {} breaches:\n{}\nlogs: {}",
            wrong.len(),
            wrong.join("\n"),
            logs.join(", ")
        );
    }
}

/// What a journal still has open.
fn open_in(path: &Path) -> Vec<String> {
    if !path.exists() {
        return Vec::new();
    }
    let journal = Journal::open(path).expect("the journal of a core that has ended can be opened");
    let counts = journal.counts().expect("it can be read");
    let closed = Counts {
        finished: counts.finished,
        ..Counts::default()
    };
    if counts == closed {
        Vec::new()
    } else {
        vec![format!("the journal still has open: {counts:?}")]
    }
}

/// Sockets, holders and locks below `data` and in the repository.
fn left_in(data: &Path, repository: &Path) -> Vec<String> {
    use std::os::unix::fs::FileTypeExt;
    let mut left = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_socket() {
                left.push(format!("the socket {}", entry.path().display()));
            } else if kind.is_dir() && entry.file_name() != "postgres" {
                folders.push(entry.path());
            }
        }
    }
    let holders = std::fs::read_dir(data.join("holders"))
        .into_iter()
        .flatten()
        .flatten();
    left.extend(
        holders
            .filter(|entry| entry.path().is_dir())
            .map(|entry| format!("the holder's folder {}", entry.path().display())),
    );
    let git = repository.join(".git");
    for lock in [data.join("core.lock"), git.join("semo.lock")] {
        if lock.exists() && !is_free(&lock) {
            left.push(format!("the lock {}", lock.display()));
        }
    }
    if git.join("index.lock").exists() || git.join("config.lock").exists() {
        left.push(format!("a lock of git's in {}", git.display()));
    }
    left
}

fn is_free(lock: &Path) -> bool {
    let file = std::fs::File::open(lock).expect("a lock file can be opened");
    flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{OfficeId, Timestamp};
    use uuid::Uuid;

    fn job(wanted: Wanted) -> Job {
        Job {
            id: Uuid::new_v4().into(),
            tag: "t".to_owned(),
            wanted,
            session_may_end: false,
        }
    }

    fn told(job: &Job, state: CommandState, finals: &[ResultStatus]) -> Told {
        let row = CommandRow {
            id: job.id,
            seq: 1,
            office_id: OfficeId(Uuid::nil()),
            agent_id: None,
            client_id: None,
            session_id: None,
            kind: "send_prompt".to_owned(),
            args: serde_json::Value::Null,
            idempotency_key: String::new(),
            state,
            priority: 0,
            attempt: 1,
            cancel_requested_at: None,
            created_by: None,
            created_at: Timestamp(0),
            expires_at: None,
            finished_at: None,
        };
        let result = |status: &ResultStatus| ResultRow {
            id: Uuid::new_v4().into(),
            command_id: job.id,
            office_id: OfficeId(Uuid::nil()),
            client_id: None,
            attempt: 1,
            status: *status,
            outcome: None,
            output: None,
            error: None,
            evidence: None,
            timings: None,
            created_at: Timestamp(0),
        };
        Told {
            row,
            results: finals.iter().map(result).collect(),
        }
    }

    #[test]
    fn each_breach_is_seen_and_what_is_right_is_none() {
        use CommandState as State;
        use ResultStatus as Status;
        let check = |wanted, state, finals: &[Status], marks: &[&str], expected: Option<&str>| {
            let job = job(wanted);
            let found = Found {
                told: vec![told(&job, state, finals)],
                marks: marks.iter().map(|mark| (*mark).to_owned()).collect(),
                ..Found::default()
            };
            let wrong = breaches(std::slice::from_ref(&job), &found).join("\n");
            match expected {
                Some(part) => assert!(wrong.contains(part), "{part} is missing in {wrong:?}"),
                None => assert_eq!(wrong, "", "{wanted:?} {state:?}"),
            }
        };
        let whole = ["begin-t", "end-t"];
        check(Wanted::Done, State::Succeeded, &[Status::Succeeded], &whole, None);
        check(
            Wanted::Done,
            State::Succeeded,
            &[Status::Succeeded, Status::Late],
            &whole,
            None,
        );
        check(
            Wanted::Done,
            State::Unconfirmed,
            &[Status::Unconfirmed],
            &["begin-t"],
            None,
        );
        check(
            Wanted::Cancelled,
            State::Cancelled,
            &[Status::Cancelled],
            &["begin-t"],
            None,
        );
        check(Wanted::Done, State::Expired, &[], &[], None);
        check(Wanted::Done, State::Leased, &[], &[], Some("never ended"));
        check(
            Wanted::Done,
            State::Succeeded,
            &[],
            &whole,
            Some("has 0 final results"),
        );
        check(
            Wanted::Done,
            State::Succeeded,
            &[Status::Succeeded, Status::Failed],
            &whole,
            Some("has 2 final results"),
        );
        check(
            Wanted::Done,
            State::Succeeded,
            &[Status::Succeeded],
            &["begin-t"],
            Some("told as done, and is not"),
        );
        check(
            Wanted::Unconfirmed,
            State::Succeeded,
            &[Status::Succeeded],
            &whole,
            Some("never meant to be done"),
        );
        let twice = ["begin-t", "begin-t", "end-t"];
        check(
            Wanted::Done,
            State::Unconfirmed,
            &[Status::Unconfirmed],
            &twice,
            Some("more than once"),
        );
        check(
            Wanted::Done,
            State::Failed,
            &[Status::Failed],
            &whole,
            Some("told as failed, and went to its end"),
        );
        check(
            Wanted::Done,
            State::Cancelled,
            &[Status::Cancelled],
            &[],
            Some("cancelled by nobody"),
        );
        check(
            Wanted::Cancelled,
            State::Cancelled,
            &[Status::Cancelled],
            &whole,
            Some("went to its end"),
        );
        check(
            Wanted::Done,
            State::Expired,
            &[],
            &["begin-t"],
            Some("was given up, and was begun"),
        );
    }

    #[test]
    fn what_is_left_behind_is_seen() {
        let found = Found {
            open_asks: vec!["may I".to_owned()],
            journal: vec!["the journal still has open: x".to_owned()],
            processes: vec![Process {
                pid: 1,
                line: "agent".to_owned(),
            }],
            left: vec!["the socket s".to_owned()],
            ..Found::default()
        };
        assert_eq!(breaches(&[], &found).len(), 4);
        let lost = job(Wanted::Done);
        assert!(
            breaches(std::slice::from_ref(&lost), &Found::default())[0]
                .contains("not in the office any more")
        );

        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("holders/tag")).unwrap();
        let _socket =
            std::os::unix::net::UnixListener::bind(folder.path().join("holders/tag/socket")).unwrap();
        assert_eq!(left_in(folder.path(), folder.path()).len(), 2);
    }
}
