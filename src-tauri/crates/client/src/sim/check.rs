//! What must hold in every schedule, whatever goes wrong.

use domain::CommandId;
use journal::Acknowledgement;
use uuid::Uuid;

use super::office::{Completed, Kept, Row, State};
use super::paper::{End, Says};
use super::workstation::Workstation;
use super::world::{Ended, FOUND_AGAIN_AFTER_MS, LEASE_MS, Who, World};

/// How long after its expiry a command may have its effect: the office's word is good for 45 seconds, keys are pressed
/// within 45 seconds of their claim, and the last steps take some.
const EXPIRY_SLACK_MS: i64 = 60_000;
/// How long everything may take when nothing goes wrong any more: an hour until what nobody claims has expired, and what
/// was begun on the way to that.
const SETTLED_AFTER_MS: i64 = 2 * 3_600_000;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A command had an effect a second time.
    EffectTwice(CommandId),
    /// A command had an effect behind a later one for the same session.
    OutOfOrder(CommandId),
    /// A command had its effect when its time was over.
    Expired(CommandId),
    /// A result counted though another workstation had claimed the command since.
    StaleToken(CommandId),
    /// A command has more than one final result.
    TwoResults(CommandId),
    /// A command has no final result, though it was carried out.
    NoResult(CommandId),
    /// A result does not tell what happened.
    Untrue(CommandId),
    /// Work was stopped as lost that the office had given to nobody else and nobody had ended.
    NeedlesslyStopped(CommandId),
    /// A command with effect was begun on two workstations.
    BegunTwice(CommandId),
    /// A command is leased to a workstation that does not know it, though all has been well for a while.
    LiesAbout(CommandId),
    /// Something is held for ever.
    NeverSettles,
}

impl World {
    pub fn had_effect(&self, id: CommandId) -> bool {
        self.effects.contains_key(&id)
    }

    /// Whoever knows of the effect has ended itself, since another core is the client that it was, and has not been started
    /// since: what it knows is in its journal.
    fn is_left_untold(&self, id: CommandId) -> bool {
        let by = self.effects.get(&id).map(Vec::as_slice).unwrap_or_default();
        by.iter().all(|(who, _)| self.stations[*who].retired)
    }

    /// A known limit: what has its effect at once, without the office's word, is not known to a copy of the data folder
    /// that claims it after its lease, when the original has not told it.
    fn is_unseen_from(&self, who: Who, id: CommandId) -> bool {
        let (client, folder) = (self.stations[who].client, self.stations[who].folder);
        let of_it = self.office.leases.values().filter(|lease| lease.command == id.0);
        let mut begun_from = of_it.filter_map(|lease| lease.begun_from);
        let is_original = |other: Who| other != who && self.stations[other].client == client;
        let by = self.effects.get(&id).map(Vec::as_slice).unwrap_or_default();
        !begun_from.any(|from| from != folder) && by.iter().all(|(other, _)| is_original(*other))
    }

    /// A command takes effect.
    pub fn effect(&mut self, who: Who, id: CommandId, session: Option<Uuid>) {
        self.tell(|| format!("EFFECT of {id} at {who}"));
        let now = self.now();
        let row = self.office.rows.get(&id.0).cloned();
        let earlier = self.effects.entry(id).or_default();
        earlier.push((who, now));
        let (times, places) = (earlier.len(), earlier.iter().any(|(other, _)| *other != who));
        if times > 1 {
            self.wrong(Violation::EffectTwice(id));
        }
        if places {
            self.wrong(Violation::BegunTwice(id));
        }
        let Some(row) = row else { return };
        // A known limit: a machine that falls asleep in the milliseconds between the office's word and Enter presses it
        // when it wakes.
        let has_just_woken = now < self.stations[who].asleep_until + 5_000;
        let late = now > row.expires_at + EXPIRY_SLACK_MS;
        if late && !has_just_woken {
            self.wrong(Violation::Expired(id));
        }
        let named = row
            .session
            .filter(|its| Some(*its) == session && row.kind == "send_prompt");
        let passed = named.is_some_and(|session| {
            self.office.rows.values().any(|other| {
                other.session == Some(session)
                    && other.kind == "send_prompt"
                    && other.seq > row.seq
                    && self.effects.contains_key(&CommandId(other.id))
            })
        });
        if passed {
            self.wrong(Violation::OutOfOrder(id));
        }
    }

    /// The office has taken a result.
    pub fn check_report(&mut self, id: CommandId, token: Uuid, said: &Result<Completed, &'static str>) {
        if *said != Ok(Completed::Recorded) {
            return;
        }
        let of_it = self.office.leases.values().filter(|lease| lease.command == id.0);
        let newest = of_it.max_by_key(|lease| lease.attempt).map(|lease| lease.client);
        let its = self.office.leases.get(&token).map(|lease| lease.client);
        if its != newest {
            self.wrong(Violation::StaleToken(id));
        }
    }

    /// Work is about to be stopped because its lease is lost.
    pub fn check_loss(&mut self, who: Who, id: CommandId) {
        let station = &self.stations[who];
        let Some(row) = self.office.rows.get(&id.0) else {
            return;
        };
        let of_it = self.office.leases.values().filter(|lease| lease.command == id.0);
        let newest = of_it.max_by_key(|lease| lease.attempt);
        let is_its = newest
            .is_some_and(|newest| (newest.client, newest.folder) == (station.client, Some(station.folder)))
            && self.is_in_force(station);
        let runs = self
            .agents
            .values()
            .any(|agent| agent.who == who && agent.turn.is_some_and(|(its, _)| its == id));
        if runs && row.state == State::Leased && is_its && !row.cancel_wanted {
            self.wrong(Violation::NeedlesslyStopped(id));
        }
    }

    /// What the office has leased to a workstation is known there, or was given to it a moment ago.
    pub fn check_nothing_lies_about(&mut self) {
        let lost = |row: &&Row| {
            let station = self
                .stations
                .iter()
                .find(|station| Some(station.client) == row.client && self.is_in_force(station));
            let known = |station: &Workstation| {
                let id = CommandId(row.id);
                station.desk.held().any(|held| held == id) || station.paper.entries.contains_key(&id)
            };
            let given_at = row.lease_until.unwrap_or(self.now()) - LEASE_MS;
            // What has been given too often waits for the end of its lease.
            let may_be_given = row
                .client
                .and_then(|_| self.office.given_again(station?.by(), Some(&[]), row));
            may_be_given.is_some()
                && !row.cancel_wanted
                && row.expires_at > self.now()
                && given_at < self.healed_at + FOUND_AGAIN_AFTER_MS / 2
                && station.is_some_and(|station| station.is_up && !known(station))
        };
        let lost = self.office.rows.values().find(lost).map(|row| CommandId(row.id));
        if let Some(id) = lost {
            self.wrong(Violation::LiesAbout(id));
        }
    }

    /// It is the client that it goes by, and no copy has taken its place.
    fn is_in_force(&self, station: &Workstation) -> bool {
        let by = station.by();
        !self.office.is_elsewhere(by.client, by.folder)
    }

    pub fn has_settled(&self) -> bool {
        let all_final = self.office.rows.values().all(|row| row.state.is_final());
        all_final
            && self
                .stations
                .iter()
                .filter(|station| !station.retired)
                .all(|station| {
                    station.is_up
                        && station.work.is_empty()
                        && station.endings.is_empty()
                        && station.paper.waiting().next().is_none()
                })
    }

    pub fn has_taken_too_long(&self) -> bool {
        self.healed && self.now() > self.healed_at + SETTLED_AFTER_MS
    }

    /// When everything has settled.
    pub fn check_the_end(&mut self) {
        let ids: Vec<_> = self.office.rows.keys().map(|id| CommandId(*id)).collect();
        for id in ids {
            if let Some(violation) = self.end_of_command(id) {
                self.wrong(violation);
            }
        }
    }

    fn end_of_command(&self, id: CommandId) -> Option<Violation> {
        let row = self.office.rows.get(&id.0)?;
        let finals: Vec<_> = self
            .office
            .results
            .iter()
            .filter(|kept| kept.command == id.0)
            .filter_map(|kept| match kept.kept {
                Kept::Final(state) => Some((kept.id, state)),
                Kept::Begun | Kept::Progress | Kept::Late => None,
            })
            .collect();
        let counted = match finals.as_slice() {
            [] => {
                // Ended by the office: nobody had begun it, or nobody who had has ever come back to say more.
                let unheard = matches!(row.state, State::Cancelled | State::Expired | State::Dead);
                let untold = self.had_effect(id) && !self.is_left_untold(id);
                return (!unheard || untold).then_some(Violation::NoResult(id));
            }
            [(result, state)] if *state == row.state => *result,
            _ => return Some(Violation::TwoResults(id)),
        };
        // What the workstation wrote down is what counts, and it is true.
        let (by, written) = self.stations.iter().enumerate().find_map(|(who, station)| {
            let outgoing = station.paper.entries.get(&id)?.result.as_ref()?;
            (outgoing.id == counted || outgoing.acknowledged == Some(Acknowledgement::Recorded))
                .then_some((who, outgoing.end))
        })?;
        let how = self.agents.values().find_map(|agent| agent.transcript.get(&id));
        let is_prompt = row.kind == "send_prompt";
        // A session whose end was asked for, and told, is gone.
        let its_program = row.session.and_then(|session| self.agents.get(&session));
        let lives_on = row.kind == "terminate"
            && row.state == State::Succeeded
            && its_program.is_some_and(|agent| agent.alive);
        let is_true = written.status == row.state
            && !lives_on
            && (written
                != End {
                    status: State::Cancelled,
                    says: Says::NoEffect,
                }
                || self.cancelled.contains(&id)
                || self.office.reaped.contains(&id.0))
            && match (written.says, self.had_effect(id)) {
                (Says::Unknown, _) | (Says::NoEffect, false) => true,
                (Says::NoEffect, true) => self.is_unseen_from(by, id),
                (Says::Effect, false) => false,
                (Says::Effect, true) => match (row.state, how) {
                    (State::Succeeded, Some(how)) => *how == Ended::Done,
                    (State::Succeeded, None) => !is_prompt,
                    (State::Cancelled, how) => !is_prompt || how == Some(&Ended::Interrupted),
                    (State::Failed, how) => how != Some(&Ended::Done),
                    _ => false,
                },
            };
        (!is_true).then_some(Violation::Untrue(id))
    }
}
