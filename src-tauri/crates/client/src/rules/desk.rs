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

/// How much of its lease a claimed command must have left when the journal takes it. After that the office gives it out
/// again.
const LEFT_MIN_S: u32 = 15;
/// Length of the lease that is asked for on a line on which the answer to a claim takes nearly as long as an ordinary
/// lease: there one command at a time is asked for, and may be on its way for long.
pub(crate) const LATE_LEASE_S: u32 = 300;

/// From here on claims on a line that was slow are ordinary ones again.
const SLOW_MAX: u32 = 16;

/// A claim that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asking {
    pub wanted: Wanted,
    /// Length of the leases that are asked for.
    pub lease_s: u32,
}

/// When a claim was sent, and for how long its commands are leased.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Moment,
    lease_s: u32,
}

impl Sent {
    /// Too much of its leases has passed.
    fn is_too_old(self, now: Moment) -> bool {
        self.is_past(self.lease_s, now)
    }

    /// Too much of an ordinary lease would have passed.
    fn is_slow(self, now: Moment) -> bool {
        self.is_past(LEASE_S, now)
    }

    fn is_past(self, lease_s: u32, now: Moment) -> bool {
        let span = Duration::from_secs(u64::from(lease_s.saturating_sub(LEFT_MIN_S)));
        now.is_past(self.at, span)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    leases: BTreeMap<CommandId, Lease>,
    claims: Claims,
    /// The claim that is under way.
    claim_sent: Option<Sent>,
    /// The line was slow: how many commands a claim asks for at most. Grows with answers that come in time.
    slow_max: Option<u32>,
    /// Claimed, in the office's order, and not in the journal yet, with their claim. Nothing more is claimed meanwhile,
    /// and none is begun before those in front of it.
    unwritten: VecDeque<(ClaimedCommand, Sent)>,
}

impl Desk {
    /// Somebody has a reason for a claim. What is given back is to be asked for at once; otherwise the wish is kept.
    pub fn wish_claim(&mut self, ready: bool, room: Room, now: Moment) -> Option<Asking> {
        let may_be_sent = ready && self.unwritten.is_empty() && self.allows_claim(now);
        if !self.claims.wish(may_be_sent) {
            return None;
        }
        let lease_s = self.lease_s();
        self.claim_sent = Some(Sent { at: now, lease_s });
        let most = self.slow_max.unwrap_or(u32::MAX);
        let wanted = match room.wanted() {
            Wanted::Any { limit } => Wanted::Any {
                limit: limit.min(most),
            },
            Wanted::Urgent { limit } => Wanted::Urgent {
                limit: limit.min(most),
            },
        };
        Some(Asking { wanted, lease_s })
    }

    /// Length of the leases that are asked for now.
    pub fn lease_s(&self) -> u32 {
        match self.slow_max {
            Some(_) => LATE_LEASE_S,
            None => LEASE_S,
        }
    }

    /// What the time that a claim took says about the line. That nothing came says little.
    fn judge_line(&mut self, is_slow: bool, brought: usize) {
        self.slow_max = match self.slow_max {
            None if is_slow && brought > 0 => Some(1),
            Some(_) if is_slow => Some(1),
            Some(most) if brought > 0 => Some(most * 2).filter(|most| *most < SLOW_MAX),
            before => before,
        };
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
        let sent = self.claim_sent.take().unwrap_or(Sent {
            at: now,
            lease_s: LEASE_S,
        });
        self.judge_line(sent.is_slow(now), rows.len());
        if sent.is_too_old(now) && !rows.is_empty() {
            tracing::warn!(
                commands = rows.len(),
                "the answer to a claim came too late; less is asked for, with more time"
            );
            // Those that were claimed are given again.
            self.claims.wish(false);
            return;
        }
        self.unwritten.extend(rows.into_iter().map(|row| (row, sent)));
    }

    /// The next command for the journal. Those that waited for too long are left to the office.
    pub fn next_unwritten(&mut self, now: Moment) -> Option<&ClaimedCommand> {
        while let Some((row, sent)) = self.unwritten.front()
            && sent.is_too_old(now)
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
                let begin_within = begin_within(row.expires_at, row.lease_until, sent.lease_s);
                let lease = Lease::taken(row.lease_token, begin_within, sent.at);
                self.leases.insert(row.id, lease);
            }
            Intake::GoOn => {
                if let Some(lease) = self.leases.get_mut(&row.id) {
                    lease.taken_again(row.lease_token, sent.at);
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
    fn a_line_on_which_claims_are_answered_too_late_gets_its_work_one_by_one_until_it_is_quick_again() {
        let mut desk = Desk::default();
        let asks = |desk: &mut Desk, at: u64| {
            let Asking { wanted, lease_s } = desk.wish_claim(true, ROOM, moment(at)).unwrap();
            let Wanted::Any { limit } = wanted else {
                panic!("{wanted:?}")
            };
            (limit, lease_s)
        };
        assert_eq!(asks(&mut desk, 0), (10, LEASE_S));
        desk.claimed(vec![row(1, 11), row(2, 12)], moment(46));
        assert_eq!(
            desk.next_unwritten(moment(46)),
            None,
            "their leases are nearly over"
        );
        assert!(
            desk.claim_is_due(moment(46)),
            "at once, and not with the next poll"
        );
        let expiring = ClaimedCommand {
            expires_at: Some(Timestamp(900_000)),
            lease_until: Timestamp(400_000),
            ..row(1, 11)
        };
        assert_eq!(asks(&mut desk, 100), (1, LATE_LEASE_S));
        desk.claimed(vec![expiring], moment(100 + 284));
        assert_eq!(
            desk.next_unwritten(moment(384)).unwrap().seq,
            1,
            "this one is taken"
        );
        assert_eq!(desk.written(Received::New).unwrap().1, Intake::Begin);
        assert!(
            !desk.is_expired(row(1, 11).id, moment(899)),
            "claimed at 100, to be begun by 900"
        );
        assert!(desk.is_expired(row(1, 11).id, moment(900)));
        desk.release(row(1, 11).id);
        for (number, limit) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10)] {
            let at = 1_000 * number;
            assert_eq!(asks(&mut desk, at).0, limit, "after {} timely ones", number - 1);
            desk.claimed(vec![row(u128::from(number), 11)], moment(at + 1));
            desk.next_unwritten(moment(at + 1));
            desk.written(Received::New);
            desk.release(row(u128::from(number), 11).id);
        }
        assert_eq!(asks(&mut desk, 9_000), (10, LEASE_S));
    }

    /// Every answer takes fifty seconds, half of them on the way there.
    #[test]
    fn on_a_line_that_is_slow_for_ever_every_command_is_done_within_two_attempts() {
        use crate::sim::office::{By, Office, State};
        let (mut office, mut desk) = (Office::default(), Desk::default());
        let by = By {
            client: Uuid::from_u128(1),
            folder: None,
        };
        for number in 0..10 {
            office.enqueue(Uuid::from_u128(number), "list_sessions", None, 0, 3_600_000);
        }
        for round in 0..40 {
            let (sent, back) = (moment(round * 50), moment(round * 50 + 50));
            let Some(Asking { wanted, lease_s }) = desk.wish_claim(true, ROOM, sent) else {
                panic!("nothing is in our hands");
            };
            let Wanted::Any { limit } = wanted else {
                panic!("{wanted:?}")
            };
            office.now = i64::try_from(round).unwrap() * 50_000 + 25_000;
            let lease_ms = i64::from(lease_s) * 1_000;
            let claimed = office
                .claim(by, limit as usize, lease_ms, None, Some(&[]))
                .unwrap();
            let rows = claimed.iter().map(|given| ClaimedCommand {
                attempt: given.row.attempt,
                ..row(given.row.id.as_u128(), given.token.as_u128())
            });
            desk.claimed(rows.collect(), back);
            while desk.next_unwritten(back).is_some() {
                let (row, _) = desk.written(Received::New).unwrap();
                desk.release(row.id);
                let (id, token, result) = (
                    row.id.0,
                    row.lease_token,
                    Uuid::from_u128(9_000 + row.id.0.as_u128()),
                );
                let said = office.complete(id, token, result, Some(State::Succeeded));
                assert_eq!(said, Ok(crate::sim::office::Completed::Recorded));
            }
        }
        for row in office.rows.values() {
            assert!(row.state == State::Succeeded && row.attempt <= 2, "{row:?}");
        }
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
