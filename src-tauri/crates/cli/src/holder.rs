//! The program that holds terminals, `semo-holder`: where it is, and what is left of it on a data folder where no core
//! runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::fault::chain;
use journal::Journal;
use terminal::{Held, Holders};

use crate::exit::{Exit, Failure};
use crate::running::Claim;
use crate::world::World;

/// Name of the program, beside this one.
const PROGRAM: &str = "semo-holder";
/// Between the request to end and the kill, for what no core looks after.
const GRACE: Duration = Duration::from_secs(5);
/// Seconds in an hour.
const HOUR: u64 = 3_600;

/// The program: that of the settings, else the one beside this one.
pub fn program(world: &World) -> PathBuf {
    let named = world.settings.holder.program.clone();
    named.unwrap_or_else(|| {
        let own = std::env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent).map(found_beside);
        beside.unwrap_or_else(|| PROGRAM.into())
    })
}

/// Test programs lie one folder below the programs that are built with them.
fn found_beside(dir: &Path) -> PathBuf {
    let beside = dir.join(PROGRAM);
    let above = dir.parent().map(|dir| dir.join(PROGRAM));
    match above.filter(|above| !beside.is_file() && above.is_file()) {
        Some(above) => above,
        None => beside,
    }
}

/// What became of the holders on a data folder.
#[derive(Debug, Default)]
pub struct Left {
    /// Ended with everything their programs had started; proven.
    pub ended: Vec<String>,
    /// Their programs were over already; what lay around is cleared.
    pub cleared: Vec<String>,
    /// Still there, and why.
    pub remain: Vec<(String, String)>,
}

/// Tags of holders on this data folder, running or left over.
pub fn tags(world: &World) -> Result<Vec<String>, Failure> {
    let dir = world.paths.holders();
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    // The epoch is of no matter to somebody who only looks.
    let holders = Holders::of_processes(program(world), dir, 0, Duration::from_secs(HOUR));
    holders.tags().map_err(|error| Failure::of(Exit::Failed, &error))
}

/// Ends what an earlier core has left running. Takes the data folder first, so that no core starts meanwhile; fails when
/// one runs.
pub async fn end_left(world: &World) -> Result<Left, Failure> {
    let _claim = Claim::take(&world.paths).await?;
    let mut left = Left::default();
    let tags = tags(world)?;
    if tags.is_empty() {
        return Ok(left);
    }
    let now = world.clock.now();
    // A journal that cannot be used must not keep anybody from ending what runs: the time is later than all launches.
    let epoch = Journal::open(&world.paths.journal()).and_then(|journal| journal.launch(now));
    let epoch = epoch.unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "the launch is not in the journal");
        u64::try_from(now.0).unwrap_or(u64::MAX)
    });
    let alone = Duration::from_secs(u64::from(world.settings.holder.alone_hours) * HOUR);
    let holders = Holders::of_processes(program(world), world.paths.holders(), epoch, alone);
    for tag in tags {
        match holders.attach(&tag).await {
            Held::Attached(terminal) => {
                let was_over = terminal.exited().borrow().is_some();
                match terminal.stop(GRACE).await {
                    Ok(proof) if proof.is_proven() && was_over => left.cleared.push(tag),
                    Ok(proof) if proof.is_proven() => left.ended.push(tag),
                    Ok(proof) => {
                        let survivors = proof.survivors.len();
                        let why = format!("{survivors} of its processes could not be ended");
                        left.remain.push((tag, why));
                    }
                    Err(error) => left.remain.push((tag, chain(&error))),
                }
            }
            Held::Gone { .. } => left.cleared.push(tag),
            Held::Unknown { why } => left.remain.push((tag, why)),
        }
    }
    Ok(left)
}
