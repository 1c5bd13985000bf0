//! The desk: which commands are in our hands under which lease, which are claimed but not written down yet, and whether
//! more may be claimed. One state machine; the loop does what it says and tells it what came of that.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use domain::CommandId;
use journal::Received;
use supabase::{BeginAnswer, ClaimedCommand, Renewal};
use uuid::Uuid;

use super::claims::{Claims, Room, Wanted};
use super::intake::{Intake, intake};
use super::lease::{BeginStep, LEASE_S, Lease, Means, begin_within};
use super::moment::Moment;

/// How long a claimed command waits for the journal: well inside its lease. After that the office gives it out again.
const UNWRITTEN_MAX: Duration = Duration::from_secs(LEASE_S as u64 - 15);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    leases: BTreeMap<CommandId, Lease>,
    claims: Claims,
    /// When the claim was sent that is under way.
    claim_sent: Option<Moment>,
    /// Claimed, in the office's order, and not in the journal yet, with the moment of their claim. Nothing more is
    /// claimed meanwhile, and none is begun before those in front of it.
    unwritten: VecDeque<(ClaimedCommand, Moment)>,
}

impl Desk {
    /// Somebody has a reason for a claim. What is given back is to be asked for at once; otherwise the wish is kept.
    pub fn wish_claim(&mut self, ready: bool, room: Room, now: Moment) -> Option<Wanted> {
        let may_be_sent = ready && self.unwritten.is_empty() && self.allows_claim(now);
        if !self.claims.wish(may_be_sent) {
            return None;
        }
        self.claim_sent = Some(now);
        Some(room.wanted())
    }

    /// A claim that could not be sent when it was wished may be sent now.
    pub fn claim_is_due(&self, now: Moment) -> bool {
        self.claims.is_wished() && self.unwritten.is_empty() && self.allows_claim(now)
    }

    /// What is in our hands.
    pub fn held(&self) -> impl Iterator<Item = CommandId> {
        let unwritten = self.unwritten.iter().map(|(row, _)| row.id);
        self.leases.keys().copied().chain(unwritten)
    }

    fn allows_claim(&self, now: Moment) -> bool {
        #[cfg(test)]
        if crate::sim::planted(crate::sim::Breach::HeldIsBegunAgain) {
            return true;
        }
        self.leases.values().all(|lease| lease.allows_claim(now))
    }

    /// The claim was answered with these commands, or, with none, it failed.
    pub fn claimed(&mut self, rows: Vec<ClaimedCommand>, now: Moment) {
        self.claims.answered();
        let sent = self.claim_sent.take().unwrap_or(now);
        self.unwritten.extend(rows.into_iter().map(|row| (row, sent)));
    }

    /// The next command for the journal. Those that waited for too long are left to the office.
    pub fn next_unwritten(&mut self, now: Moment) -> Option<&ClaimedCommand> {
        while let Some((row, sent)) = self.unwritten.front()
            && now.is_past(*sent, UNWRITTEN_MAX)
        {
            tracing::warn!(command = %row.id, "the journal took it too late; the office will give it out again");
            self.unwritten.pop_front();
        }
        self.unwritten.front().map(|(row, _)| row)
    }

    /// The journal has taken it: what is to be done with it. What is begun or reported is in our hands from here on.
    pub fn written(&mut self, received: Received) -> Option<(ClaimedCommand, Intake)> {
        let (row, sent) = self.unwritten.pop_front()?;
        let intake = intake(self.leases.contains_key(&row.id), received, row.begun);
        match intake {
            Intake::Begin | Intake::Unknown => {
                let begin_within = begin_within(row.expires_at, row.lease_until);
                let lease = Lease::taken(row.lease_token, begin_within, sent);
                self.leases.insert(row.id, lease);
            }
            Intake::GoOn => {
                if let Some(lease) = self.leases.get_mut(&row.id) {
                    lease.taken_again(row.lease_token, sent);
                }
            }
            Intake::ReportAgain => {}
        }
        Some((row, intake))
    }

    /// For the simulation: the office has said that its lease is ours, and has not taken that back.
    #[cfg(test)]
    pub fn is_ours(&self, id: CommandId) -> bool {
        self.leases.get(&id).is_some_and(Lease::is_ours)
    }

    /// An earlier core had it: it is in our hands again, under a lease that the office is asked about first.
    pub fn hold_again(&mut self, row: &ClaimedCommand, now: Moment) {
        self.leases.insert(row.id, Lease::left(row.lease_token, now));
    }

    /// Its end is in the journal.
    pub fn release(&mut self, command: CommandId) {
        self.leases.remove(&command);
    }

    /// The leases that are to be renewed now. Also of work that has ended but whose end the journal does not take yet:
    /// nobody else shall begin it anew.
    pub fn renew(&mut self, now: Moment) -> Vec<(CommandId, Uuid)> {
        self.leases
            .iter_mut()
            .filter_map(|(id, lease)| lease.renew(now).then(|| (*id, lease.token())))
            .collect()
    }

    /// A renewal was answered; `None`: it was not.
    pub fn renewed(&mut self, id: CommandId, token: Uuid, answer: Option<Renewal>, now: Moment) -> Means {
        let means = match self.leases.get_mut(&id) {
            Some(lease) => lease.renewed(token, answer, now),
            None => Means::GoOn,
        };
        self.doubted(means)
    }

    /// A claim shows whether it comes back to us.
    fn doubted(&mut self, means: Means) -> Means {
        if means == Means::Doubt {
            self.claims.wish(false);
        }
        means
    }

    /// After a claim: what was doubtful and has not come back is somebody else's now, or over.
    pub fn lost(&self) -> Vec<CommandId> {
        let is_back = |id: CommandId| self.unwritten.iter().any(|(row, _)| row.id == id);
        let is_lost = |(id, lease): &(&CommandId, &Lease)| lease.is_doubtful() && !is_back(**id);
        self.leases.iter().filter(is_lost).map(|(id, _)| *id).collect()
    }

    /// A command is about to have its first effect.
    pub fn begin(&mut self, id: CommandId, now: Moment) -> BeginStep {
        match self.leases.get_mut(&id) {
            Some(lease) => lease.begin(now),
            // Nothing is begun that is not in our hands.
            None => BeginStep::Wait,
        }
    }

    /// The question whether it may be begun was answered; `None`: it was not.
    pub fn begin_answered(
        &mut self,
        id: CommandId,
        token: Uuid,
        answer: Option<BeginAnswer>,
        now: Moment,
    ) -> Means {
        let means = match self.leases.get_mut(&id) {
            Some(lease) => lease.begin_answered(token, answer, now),
            None => Means::GoOn,
        };
        self.doubted(means)
    }

    /// The commands whose beginning is to be asked for again.
    pub fn ask_again(&self, now: Moment) -> Vec<CommandId> {
        let again = |(id, lease): (&CommandId, &Lease)| lease.asks_again(now).then_some(*id);
        self.leases.iter().filter_map(again).collect()
    }

    /// Its time to be begun is over, as far as that is known here.
    pub fn is_expired(&self, id: CommandId, now: Moment) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.is_expired(now))
    }
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;
    use journal::Phase;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    const ROOM: Room = Room { places: 6, line: 0 };

    fn row(id: u128, token: u128) -> ClaimedCommand {
        ClaimedCommand {
            id: Uuid::from_u128(id).into(),
            seq: id as i64,
            office_id: Uuid::nil().into(),
            agent_id: None,
            session_id: None,
            kind: "list_sessions".to_owned(),
            args: json!({}),
            priority: 0,
            attempt: 1,
            lease_token: Uuid::from_u128(token),
            lease_until: Timestamp(60_000),
            cancel_requested_at: None,
            created_at: Timestamp(0),
            expires_at: None,
            begun: false,
        }
    }

    fn moment(s: u64) -> Moment {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        Moment {
            at: *START + Duration::from_secs(s),
            wall: Timestamp(s as i64 * 1_000),
        }
    }

    fn claim(desk: &mut Desk, rows: Vec<ClaimedCommand>, s: u64) {
        assert!(desk.wish_claim(true, ROOM, moment(s)).is_some());
        desk.claimed(rows, moment(s));
    }

    #[test]
    fn what_the_journal_does_not_take_is_not_passed_by_what_came_behind_it() {
        let mut desk = Desk::default();
        claim(&mut desk, vec![row(1, 11), row(2, 12)], 0);
        assert_eq!(desk.next_unwritten(moment(1)).unwrap().seq, 1);
        assert_eq!(
            desk.wish_claim(true, ROOM, moment(2)),
            None,
            "nothing more is claimed"
        );
        assert_eq!(desk.next_unwritten(moment(3)).unwrap().seq, 1, "still the first");
        assert_eq!(desk.written(Received::New).unwrap().1, Intake::Begin);
        assert_eq!(desk.next_unwritten(moment(44)).unwrap().seq, 2);
        assert_eq!(desk.next_unwritten(moment(45)), None, "its lease is nearly over");
        assert!(desk.claims.is_wished(), "the wish was kept");
    }

    #[test]
    fn a_command_that_comes_back_to_us_goes_on_and_one_that_does_not_is_lost() {
        let mut desk = Desk::default();
        claim(&mut desk, vec![row(1, 11), row(2, 12)], 0);
        while desk.next_unwritten(moment(0)).is_some() {
            desk.written(Received::New);
        }
        for (id, token) in desk.renew(moment(20)) {
            let lost = Renewal {
                held: false,
                cancel: true,
            };
            assert_eq!(desk.renewed(id, token, Some(lost), moment(20)), Means::Doubt);
        }
        assert!(desk.claim_is_due(moment(20)));
        claim(&mut desk, vec![row(1, 21)], 20);
        let started = Received::Known {
            phase: Phase::Started,
        };
        assert_eq!(desk.written(started).unwrap().1, Intake::GoOn);
        assert_eq!(desk.lost(), [row(2, 12).id]);
    }

    #[test]
    fn nothing_is_claimed_while_a_lease_of_ours_may_have_run_out() {
        let mut desk = Desk::default();
        claim(&mut desk, vec![row(1, 11)], 0);
        desk.written(Received::New);
        assert_eq!(desk.wish_claim(true, ROOM, moment(35)), None);
        let due = desk.renew(moment(35));
        assert_eq!(due, [(row(1, 11).id, Uuid::from_u128(11))]);
        let held = Renewal {
            held: true,
            cancel: false,
        };
        desk.renewed(due[0].0, due[0].1, Some(held), moment(36));
        assert!(desk.claim_is_due(moment(36)), "the wish was kept");
        desk.release(row(1, 11).id);
        assert!(desk.renew(moment(99)).is_empty());
    }
}
