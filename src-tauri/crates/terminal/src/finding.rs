//! Finding the holder of an earlier core, and telling apart what holds on, what is gone, and what is not known.
//!
//! Unknown is not dead: a holder that does not answer may still have a working agent. Only what is proven (a record with
//! pid, start time and boot, a socket at which nobody listens, the list of processes) is called gone, and only what
//! carries the tag or stands in the record is ever ended.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::folder::{Folder, Record, Who, boot_id};
use crate::greeting::{Greeted, greet};
use crate::holders::Processes;
use crate::line::{HeldBy, Way, Welcomed};
use crate::process::{self, ProcessId};
use crate::pty::Terminal;
use crate::stop;
use crate::wire::{Hello, PROTOCOL, PROTOCOL_OLDEST};

/// How long a holder may take to answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(4);
/// Looks at a holder that goes away while we look.
const LOOKS_MAX: u32 = 3;
/// Between two of them.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long leftovers may take to end by themselves.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(2);

/// What was found.
pub(crate) enum Found {
    /// It obeys us, and sends what it keeps.
    Attached(Terminal),
    Gone {
        why: String,
    },
    Unknown {
        why: String,
    },
}

/// Looks for the holder of `tag`.
pub(crate) fn find(with: &Processes, tag: &str) -> Found {
    let boot = match boot_id() {
        Ok(boot) => boot,
        Err(error) => return unknown(format!("the id of this boot cannot be read: {error}")),
    };
    let deadline = Instant::now() + ANSWER_WAIT_MAX;
    let mut why = "its holder goes away and comes back".to_owned();
    for _ in 0..LOOKS_MAX {
        let folder = match Folder::find(&with.dir, tag) {
            Ok(Some(folder)) => folder,
            Ok(None) => return prove_gone(tag, None, None, "it has no folder".to_owned()),
            Err(error) => {
                return unknown(format!(
                    "its folder in {} cannot be opened: {error}",
                    with.dir.display()
                ));
            }
        };
        match look(with, tag, folder, &boot, deadline) {
            Look::Found(found) => return *found,
            Look::Again(reason) => why = reason,
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    unknown(why)
}

enum Look {
    Found(Box<Found>),
    /// It was just about to change.
    Again(String),
}

fn found(found: Found) -> Look {
    Look::Found(Box::new(found))
}

fn unknown(why: String) -> Found {
    Found::Unknown { why }
}

fn look(with: &Processes, tag: &str, folder: Folder, boot: &str, deadline: Instant) -> Look {
    let record = match folder.record() {
        Ok(record) => record,
        Err(error) => return found(unknown(format!("its record cannot be read: {error}"))),
    };
    if let Some(record) = &record {
        if record.boot != boot {
            // None of its processes can run: its pids mean nothing now.
            let why = "this machine has been started anew since".to_owned();
            return found(prove_gone(tag, None, Some(&folder), why));
        }
        if !record.lives(boot) {
            // Held by a holder whose starter has died before it could write its own name here.
            if !folder.claim() {
                return Look::Again("its holder has not come up yet".to_owned());
            }
            return found(prove_gone(tag, record.root, Some(&folder), how_it_went(record)));
        }
        if let Who::Starter(process) = record.holder {
            let why = format!("process {} is about to start it", process.pid);
            return found(unknown(why));
        }
    }
    // Without a whole record the socket tells: somebody listens there only while the holder runs.
    let stream = match folder.connect() {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            if record.is_some() {
                return Look::Again("its holder runs, and nobody answers at its socket".to_owned());
            }
            if !folder.claim() {
                return Look::Again("its holder has not come up yet".to_owned());
            }
            let why = "its record is not whole, and nobody is at its socket".to_owned();
            return found(prove_gone(tag, None, Some(&folder), why));
        }
        Err(error) => return found(unknown(format!("its holder cannot be reached: {error}"))),
    };
    attach(with, tag, folder, stream, deadline)
}

fn how_it_went(record: &Record) -> String {
    let pid = record.holder.process().pid;
    match (&record.ended, record.holder) {
        (Some(ended), _) => ended.clone(),
        (None, Who::Starter(_)) => format!("process {pid} ended before it had started its holder"),
        (None, Who::Holder(_)) => format!("its holder, process {pid}, has ended"),
    }
}

fn attach(
    with: &Processes,
    tag: &str,
    folder: Folder,
    mut stream: std::os::unix::net::UnixStream,
    deadline: Instant,
) -> Look {
    let is_ours = rustix::net::sockopt::socket_peercred(&stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid());
    if !is_ours {
        return found(unknown("somebody else's process is at its socket".to_owned()));
    }
    let hello = Hello {
        lowest: PROTOCOL_OLDEST,
        highest: PROTOCOL,
        tag: tag.to_owned(),
        epoch: with.epoch,
        from: 0,
        plan: None,
    };
    let left = deadline.saturating_duration_since(Instant::now()).max(LOOK_AGAIN);
    match greet(&mut stream, hello, left) {
        Ok(Greeted::Welcome(welcome, rest)) if (PROTOCOL_OLDEST..=PROTOCOL).contains(&welcome.protocol) => {
            let welcomed = Welcomed {
                by: HeldBy {
                    root: welcome.root,
                    tag: tag.to_owned(),
                    holder: Some(welcome.holder),
                },
                way: Some(Way {
                    folder,
                    epoch: with.epoch,
                }),
                protocol: welcome.protocol,
                stream,
                rest,
                child: None,
                start: welcome.start,
            };
            found(match Terminal::of(welcomed, welcome.size) {
                Ok(terminal) => Found::Attached(terminal),
                Err(error) => unknown(error.to_string()),
            })
        }
        Ok(Greeted::Welcome(welcome, _)) => found(unknown(format!(
            "its holder speaks protocol {}",
            welcome.protocol
        ))),
        Ok(Greeted::Refused(refused)) => found(unknown(format!("its holder refuses: {}", refused.why))),
        Ok(Greeted::Silence) => Look::Again("its holder ends every connection without a word".to_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            let waited = ANSWER_WAIT_MAX.as_secs();
            found(unknown(format!(
                "its holder does not answer (waited {waited} s); it may be stopped or overloaded"
            )))
        }
        Err(error) => found(unknown(format!("its holder cannot be understood: {error}"))),
    }
}

/// No holder runs: ends what is left of its program, proves it, and removes the folder.
fn prove_gone(tag: &str, root: Option<ProcessId>, folder: Option<&Folder>, why: String) -> Found {
    let left = root.filter(|root| process::lives(*root));
    match stop::stop_tree(left, tag, None, LEFTOVERS_GRACE) {
        Ok(proof) if proof.is_proven() => {
            if let Some(Err(error)) = folder.map(Folder::remove) {
                tracing::warn!(tag, %error, "the folder of a holder that is gone could not be removed");
            }
            let ended = proof.seen.len();
            let why = match ended {
                0 => why,
                _ => format!("{why}; {ended} of its processes were still there and have been ended"),
            };
            Found::Gone { why }
        }
        Ok(proof) => {
            let pids: Vec<String> = proof.survivors.iter().map(|left| left.pid.to_string()).collect();
            unknown(format!(
                "{why}, but these processes of it cannot be ended: {}",
                pids.join(", ")
            ))
        }
        Err(error) => unknown(format!("{why}, but {error}")),
    }
}
