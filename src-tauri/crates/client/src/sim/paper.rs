//! The journal as a model: what a workstation has written down, which a crash does not take. Crate `journal` has a model
//! test of its own; here only what the rules see of it is kept.

use std::collections::{BTreeMap, BTreeSet};

use domain::turn::TurnStage;
use domain::{CommandId, Timestamp};
use journal::{Acknowledgement, PAUSE_MS_MAX, Phase, Received};
use supabase::ClaimedCommand;
use uuid::Uuid;

use super::office::State;

/// A command that was claimed.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub place: u64,
    /// The key of the data folder that claimed it.
    pub folder: Uuid,
    pub row: ClaimedCommand,
    pub phase: Phase,
    /// Of its turn, and in which session that is.
    pub turn: Option<(TurnStage, Uuid)>,
    /// The session that was made for it.
    pub made: Option<Uuid>,
    pub result: Option<Outgoing>,
}

/// A result on its way.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub id: Uuid,
    pub token: Uuid,
    pub end: End,
    pub tries: u32,
    pub next_try_at: Timestamp,
    pub acknowledged: Option<Acknowledgement>,
}

/// What a workstation says of a command's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub status: State,
    pub says: Says,
}

/// What that means for the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// There was none.
    NoEffect,
    /// There was one.
    Effect,
    /// Nobody knows.
    Unknown,
}

/// The disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

#[derive(Debug, Clone, Default)]
pub(super) struct Paper {
    pub entries: BTreeMap<CommandId, Entry>,
    pub sessions: BTreeSet<Uuid>,
    pub broken: bool,
    places: u64,
    results: u128,
}

impl Paper {
    fn writable(&self) -> Result<(), Broken> {
        if self.broken { Err(Broken) } else { Ok(()) }
    }

    pub fn receive(
        &mut self,
        row: &ClaimedCommand,
        folder: Uuid,
        now: Timestamp,
    ) -> Result<Received, Broken> {
        self.writable()?;
        if let Some(entry) = self.entries.get_mut(&row.id) {
            entry.row = row.clone();
            entry.folder = folder;
            return Ok(Received::Known { phase: entry.phase });
        }
        self.places += 1;
        let entry = Entry {
            place: self.places,
            folder,
            row: row.clone(),
            phase: Phase::Received,
            turn: None,
            made: None,
            result: None,
        };
        self.entries.insert(row.id, entry);
        if row.begun {
            let unknown = End {
                status: State::Unconfirmed,
                says: Says::Unknown,
            };
            self.finish(row.id, unknown, folder, now)?;
        }
        Ok(Received::New)
    }

    /// Whether it was taken out: only what was never begun is.
    pub fn let_go(&mut self, id: CommandId) -> Result<bool, Broken> {
        self.writable()?;
        let received = |entry: &Entry| entry.phase == Phase::Received;
        let gone = self.entries.get(&id).is_some_and(received);
        if gone {
            self.entries.remove(&id);
        }
        Ok(gone)
    }

    /// False: it was begun or ended before.
    pub fn mark_started(&mut self, id: CommandId) -> Result<bool, Broken> {
        self.writable()?;
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(false);
        };
        let moved = entry.phase == Phase::Received;
        if moved {
            entry.phase = Phase::Started;
        }
        Ok(moved)
    }

    pub fn turn(&mut self, id: CommandId, stage: TurnStage, session: Uuid) -> Result<(), Broken> {
        self.writable()?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.turn = Some((stage, session));
        }
        Ok(())
    }

    pub fn bind_session(&mut self, id: CommandId, session: Uuid) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|_| !self.broken) {
            entry.made = Some(session);
        }
    }

    pub fn finish(&mut self, id: CommandId, end: End, maker: Uuid, now: Timestamp) -> Result<(), Broken> {
        self.writable()?;
        let result = self.new_result(maker);
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.phase != Phase::Finished
        {
            entry.phase = Phase::Finished;
            entry.result = Some(Outgoing {
                id: result,
                token: entry.row.lease_token,
                end,
                tries: 0,
                next_try_at: now,
                acknowledged: None,
            });
        }
        Ok(())
    }

    pub fn report_again(&mut self, id: CommandId, maker: Uuid, now: Timestamp) -> Result<(), Broken> {
        self.writable()?;
        let result = self.new_result(maker);
        if let Some(entry) = self.entries.get_mut(&id)
            && let Some(outgoing) = &mut entry.result
        {
            *outgoing = Outgoing {
                id: result,
                token: entry.row.lease_token,
                end: outgoing.end,
                tries: 0,
                next_try_at: now,
                acknowledged: None,
            };
        }
        Ok(())
    }

    /// What another data folder has claimed is left to its lease.
    pub fn leave_to_their_leases(&mut self, own: Uuid, now: Timestamp) -> Result<(), Broken> {
        for entry in self.unfinished().into_iter().filter(|entry| entry.folder != own) {
            let id = entry.row.id;
            if self.let_go(id)? {
                continue;
            }
            let unknown = End {
                status: State::Unconfirmed,
                says: Says::Unknown,
            };
            self.finish(id, unknown, own, now)?;
            if let Some(outgoing) = self.entries.get_mut(&id).and_then(|entry| entry.result.as_mut()) {
                outgoing.acknowledged = Some(Acknowledgement::Late);
            }
        }
        Ok(())
    }

    fn new_result(&mut self, maker: Uuid) -> Uuid {
        self.results += 1;
        Uuid::from_u128((maker.as_u128() << 64) | self.results)
    }

    /// What has waited longest for its time.
    /// Also what is due later than any pause lasts: the clock was set back.
    pub fn due(&self, now: Timestamp) -> Option<(CommandId, Outgoing)> {
        let is_due = |at: Timestamp| at <= now || at > now.plus_ms(PAUSE_MS_MAX);
        self.waiting()
            .filter(|(_, outgoing)| is_due(outgoing.next_try_at))
            .min_by_key(|(_, outgoing)| outgoing.next_try_at)
            .map(|(id, outgoing)| (id, outgoing.clone()))
    }

    pub fn waiting(&self) -> impl Iterator<Item = (CommandId, &Outgoing)> {
        self.entries.iter().filter_map(|(id, entry)| {
            let outgoing = entry.result.as_ref()?;
            outgoing.acknowledged.is_none().then_some((*id, outgoing))
        })
    }

    /// The result with this id, while it waits for an answer.
    pub fn outgoing(&mut self, id: CommandId, result: Uuid) -> Option<&mut Outgoing> {
        self.entries
            .get_mut(&id)?
            .result
            .as_mut()
            .filter(|outgoing| outgoing.id == result && outgoing.acknowledged.is_none())
    }

    /// What a start has to decide on, in the order in which it came.
    pub fn unfinished(&self) -> Vec<Entry> {
        let open = |entry: &&Entry| entry.phase != Phase::Finished;
        let mut all: Vec<_> = self.entries.values().filter(open).cloned().collect();
        all.sort_by_key(|entry| entry.place);
        all
    }
}
