//! One command's lease: when it is renewed, what an answer about it means, and whether the command may be begun.
//!
//! An answer "not held" makes it doubtful, and the next claim shows whether it comes back to us; no answer does not:
//! unknown is not lost. A command is begun only behind the office's word `begun`, which is the fence: from then on nobody
//! else is given it, whatever becomes of the lease.

use std::time::Duration;

use domain::Timestamp;
use supabase::{BeginAnswer, Renewal};
use uuid::Uuid;

use super::moment::Moment;

/// Length of a lease, by the database's clock.
pub(crate) const LEASE_S: u32 = 60;
/// How often it is renewed.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(20);
/// How soon after a failed try it is tried again.
pub(crate) const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How young every lease of ours must be when commands are claimed: what runs out before the claim arrives is given to
/// us once more, under a token that we do not know when the answer is lost.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(30);
/// How old the office's word `begun` may be when a command is begun behind it: within the lease that came with it, so
/// that what was over meanwhile (cancelled, expired in a night's sleep) is not begun.
pub(crate) const BEGUN_GOOD_FOR: Duration = Duration::from_secs(45);

/// The lease of one command in our hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    token: Uuid,
    standing: Standing,
    /// When the last question was sent whose answer said that it is ours.
    kept: Moment,
    renewal: NextRenewal,
    begin: Begin,
    /// When it was taken, and how long from then the command may be begun: both by the office's clock, so that ours
    /// may be wrong.
    expiry: Option<(Moment, Duration)>,
}

/// Whether it is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// As far as we know.
    Held,
    /// An earlier core held it; the answer to the first renewal moves it on.
    Left,
    /// The office says that it is not; the answer to the next claim moves it on.
    Doubtful,
}

/// When the office is asked to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextRenewal {
    /// That long after that moment.
    Due(Moment, Duration),
    /// It was asked at that moment; its answer moves it on.
    UnderWay(Moment),
}

/// Whether the office knows that we begin it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// It was not asked.
    Unasked,
    /// It was asked at that moment; the answer moves it on.
    Asking(Moment),
    /// It was asked in vain, at that moment.
    Unanswered(Moment),
    /// It has said `begun` to what was asked at that moment.
    Begun(Moment),
}

/// What an answer about a lease means for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// Nothing new.
    GoOn,
    /// What waited for the office's word can go on.
    Proceed,
    /// Somebody wants it stopped.
    Cancel,
    /// Its time was over before it was begun.
    Expired,
    /// A claim has to show whether it is still ours.
    Doubt,
}

/// What is to be done before the first effect of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BeginStep {
    /// Begin it now.
    Go,
    /// Ask the office, under this token.
    Ask { token: Uuid },
    /// An answer is awaited.
    Wait,
    /// Its time is over.
    Expired,
}

impl Lease {
    /// Taken by a claim that was sent at `sent`.
    pub fn taken(token: Uuid, begin_within: Option<Duration>, sent: Moment) -> Lease {
        Lease {
            token,
            standing: Standing::Held,
            kept: sent,
            renewal: NextRenewal::Due(sent, RENEW_EVERY),
            begin: Begin::Unasked,
            expiry: begin_within.map(|span| (sent, span)),
        }
    }

    /// Of an earlier core: whether it is still ours is asked at once. The office alone knows whether it has expired.
    pub fn left(token: Uuid, now: Moment) -> Lease {
        Lease {
            standing: Standing::Left,
            renewal: NextRenewal::Due(now, Duration::ZERO),
            ..Lease::taken(token, None, now)
        }
    }

    pub fn token(&self) -> Uuid {
        self.token
    }

    /// It ran out, and the same command came back to us: go on under the new token. A word `begun` stands, since nobody
    /// else can have had the command since; a question under the old token is not answered any more.
    pub fn taken_again(&mut self, token: Uuid, sent: Moment) {
        self.token = token;
        self.standing = Standing::Held;
        self.kept = sent;
        self.renewal = NextRenewal::Due(sent, RENEW_EVERY);
        self.begin = match self.begin {
            Begin::Begun(at) => Begin::Begun(at),
            Begin::Unasked | Begin::Asking(_) | Begin::Unanswered(_) => Begin::Unasked,
        };
    }

    /// Whether it is to be renewed now; then that is under way.
    pub fn renew(&mut self, now: Moment) -> bool {
        match (self.standing, self.renewal) {
            (Standing::Held | Standing::Left, NextRenewal::Due(from, span)) if now.is_past(from, span) => {
                self.renewal = NextRenewal::UnderWay(now);
                true
            }
            (Standing::Held | Standing::Left | Standing::Doubtful, NextRenewal::Due(..))
            | (_, NextRenewal::UnderWay(_)) => false,
        }
    }

    /// A claim that is sent now takes nothing of ours: this lease lasts until it has arrived, or the claim is to show
    /// what became of it.
    pub fn allows_claim(&self, now: Moment) -> bool {
        match (self.standing, self.renewal) {
            (Standing::Doubtful, _) => true,
            (Standing::Left, _) | (Standing::Held, NextRenewal::UnderWay(_)) => false,
            (Standing::Held, NextRenewal::Due(..)) => !now.is_past(self.kept, FRESH_FOR),
        }
    }

    #[cfg(test)]
    pub fn is_ours(&self) -> bool {
        self.standing == Standing::Held
    }

    pub fn is_doubtful(&self) -> bool {
        self.standing == Standing::Doubtful
    }

    /// The answer to a renewal under `token`; `None`: none came.
    pub fn renewed(&mut self, token: Uuid, answer: Option<Renewal>, now: Moment) -> Means {
        let NextRenewal::UnderWay(sent) = self.renewal else {
            return Means::GoOn;
        };
        if token != self.token {
            return Means::GoOn;
        }
        self.renewal = NextRenewal::Due(now, RENEW_EVERY);
        match answer {
            None => {
                self.renewal = NextRenewal::Due(now, TRY_AGAIN_AFTER);
                Means::GoOn
            }
            Some(Renewal { held: false, .. }) => self.doubt(),
            // What may be begun nowhere any more is held all the same: the claim shows it.
            Some(Renewal { held: true, cancel }) if self.standing == Standing::Doubtful => match cancel {
                true => Means::Cancel,
                false => Means::GoOn,
            },
            Some(Renewal { held: true, cancel }) => {
                let was_left = self.standing == Standing::Left;
                self.standing = Standing::Held;
                self.kept = sent;
                match (cancel, was_left) {
                    (true, _) => Means::Cancel,
                    (false, true) => Means::Proceed,
                    (false, false) => Means::GoOn,
                }
            }
        }
    }

    fn doubt(&mut self) -> Means {
        self.standing = Standing::Doubtful;
        Means::Doubt
    }

    /// The command is about to have its first effect. After [`BeginStep::Ask`] the question is under way.
    pub fn begin(&mut self, now: Moment) -> BeginStep {
        #[cfg(test)]
        if matches!(self.begin, Begin::Begun(_)) && crate::sim::planted(crate::sim::Breach::WordLastsForEver)
        {
            return BeginStep::Go;
        }
        match self.begin {
            _ if self.standing != Standing::Held => BeginStep::Wait,
            Begin::Begun(sent) if !now.is_past(sent, BEGUN_GOOD_FOR) => BeginStep::Go,
            Begin::Asking(_) => BeginStep::Wait,
            Begin::Unanswered(sent) if !now.is_past(sent, TRY_AGAIN_AFTER) => BeginStep::Wait,
            Begin::Unasked | Begin::Unanswered(_) if self.is_expired(now) => BeginStep::Expired,
            Begin::Unasked | Begin::Unanswered(_) | Begin::Begun(_) => {
                self.begin = Begin::Asking(now);
                BeginStep::Ask { token: self.token }
            }
        }
    }

    /// The answer to the question under `token`; `None`: none came.
    pub fn begin_answered(&mut self, token: Uuid, answer: Option<BeginAnswer>, now: Moment) -> Means {
        let Begin::Asking(sent) = self.begin else {
            // Taken again meanwhile: what waits asks anew, under the new token.
            return Means::Proceed;
        };
        if token != self.token {
            return Means::GoOn;
        }
        self.begin = Begin::Unasked;
        match answer {
            Some(BeginAnswer::Begun) => {
                self.begin = Begin::Begun(sent);
                self.kept = sent;
                Means::Proceed
            }
            Some(BeginAnswer::Cancel) => Means::Cancel,
            Some(BeginAnswer::Expired) => Means::Expired,
            Some(BeginAnswer::Lost) => self.doubt(),
            None => {
                self.begin = Begin::Unanswered(now);
                Means::GoOn
            }
        }
    }

    /// A question in vain is to be asked again.
    pub fn asks_again(&self, now: Moment) -> bool {
        match self.begin {
            Begin::Unanswered(at) => now.is_past(at, TRY_AGAIN_AFTER),
            Begin::Unasked | Begin::Asking(_) | Begin::Begun(_) => false,
        }
    }

    /// Its time to be begun is over, as far as that is known here, and the office has not said `begun`. By the clock
    /// that never jumps alone: where the other one is ahead the machine has slept, or somebody has set it, and the
    /// office tells which of the two when the command is to be begun.
    pub fn is_expired(&self, now: Moment) -> bool {
        let is_over = |(sent, span): (Moment, Duration)| now.at.saturating_duration_since(sent.at) >= span;
        !matches!(self.begin, Begin::Begun(_)) && self.expiry.is_some_and(is_over)
    }
}

/// How long after its claim a command may be begun. Both times are the database's: it gave the lease at `lease_until`
/// less its length, `lease_s`.
pub(crate) fn begin_within(
    expires_at: Option<Timestamp>,
    lease_until: Timestamp,
    lease_s: u32,
) -> Option<Duration> {
    let claimed_at = lease_until.plus_ms(-i64::from(lease_s) * 1_000);
    expires_at.map(|at| Duration::from_millis(at.ms_since(claimed_at)))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn start() -> Moment {
        Moment {
            at: Instant::now(),
            wall: Timestamp(1_700_000_000_000),
        }
    }

    fn after(start: Moment, s: u64) -> Moment {
        Moment {
            at: start.at + Duration::from_secs(s),
            wall: start.wall.plus_ms(s as i64 * 1_000),
        }
    }

    fn held(cancel: bool) -> Option<Renewal> {
        Some(Renewal { held: true, cancel })
    }

    const LOST: Option<Renewal> = Some(Renewal {
        held: false,
        cancel: true,
    });

    fn token(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn it_is_renewed_every_twenty_seconds_and_soon_again_when_no_answer_came() {
        let t0 = start();
        let mut lease = Lease::taken(token(1), None, t0);
        assert!(!lease.renew(after(t0, 19)));
        assert!(lease.renew(after(t0, 20)));
        assert!(!lease.renew(after(t0, 21)), "one question at a time");
        assert_eq!(
            lease.renewed(token(1), None, after(t0, 22)),
            Means::GoOn,
            "no answer is no loss"
        );
        assert!(!lease.renew(after(t0, 26)) && lease.renew(after(t0, 27)));
        assert_eq!(lease.renewed(token(1), held(true), after(t0, 28)), Means::Cancel);
    }

    #[test]
    fn after_a_nights_sleep_it_is_renewed_before_anything_is_claimed() {
        let t0 = start();
        let lease = Lease::taken(token(1), None, t0);
        let woken = Moment {
            at: t0.at,
            wall: t0.wall.plus_ms(8 * 3_600_000),
        };
        assert!(lease.allows_claim(after(t0, 5)) && !lease.allows_claim(woken));
        assert!(lease.clone().renew(woken), "though the steady clock stood still");
    }

    #[test]
    fn what_may_not_be_begun_stays_doubtful_though_a_renewal_that_was_under_way_finds_it_held() {
        let t0 = start();
        let mut lease = Lease::taken(token(1), None, t0);
        assert!(lease.renew(after(t0, 20)));
        assert_eq!(lease.begin(after(t0, 20)), BeginStep::Ask { token: token(1) });
        let lost = Some(BeginAnswer::Lost);
        assert_eq!(lease.begin_answered(token(1), lost, after(t0, 21)), Means::Doubt);
        assert_eq!(lease.renewed(token(1), held(false), after(t0, 21)), Means::GoOn);
        assert!(lease.is_doubtful() && lease.allows_claim(after(t0, 60)));
    }

    #[test]
    fn what_is_not_ours_is_doubtful_until_a_claim_brings_it_back() {
        let t0 = start();
        let mut lease = Lease::taken(token(1), None, t0);
        assert!(lease.renew(after(t0, 20)));
        assert_eq!(lease.renewed(token(1), LOST, after(t0, 20)), Means::Doubt);
        assert!(lease.is_doubtful() && lease.allows_claim(after(t0, 21)));
        assert_eq!(lease.begin(after(t0, 21)), BeginStep::Wait);
        lease.taken_again(token(2), after(t0, 21));
        assert_eq!(
            lease.begin(after(t0, 22)),
            BeginStep::Ask { token: token(2) },
            "under the new token"
        );
        assert_eq!(
            lease.renewed(token(1), LOST, after(t0, 22)),
            Means::GoOn,
            "an old answer"
        );
    }

    #[test]
    fn nothing_is_begun_without_the_offices_word_and_a_word_does_not_last() {
        let t0 = start();
        let mut lease = Lease::taken(token(1), None, t0);
        assert_eq!(lease.begin(t0), BeginStep::Ask { token: token(1) });
        assert_eq!(lease.begin(t0), BeginStep::Wait);
        assert_eq!(lease.begin_answered(token(1), None, after(t0, 1)), Means::GoOn);
        assert_eq!(lease.begin(after(t0, 2)), BeginStep::Wait);
        assert!(lease.asks_again(after(t0, 6)));
        assert_eq!(lease.begin(after(t0, 6)), BeginStep::Ask { token: token(1) });
        let begun = Some(BeginAnswer::Begun);
        assert_eq!(
            lease.begin_answered(token(1), begun, after(t0, 7)),
            Means::Proceed
        );
        assert_eq!(lease.begin(after(t0, 50)), BeginStep::Go);
        assert_eq!(lease.begin(after(t0, 51)), BeginStep::Ask { token: token(1) });
        for (answer, means) in [
            (BeginAnswer::Cancel, Means::Cancel),
            (BeginAnswer::Expired, Means::Expired),
            (BeginAnswer::Lost, Means::Doubt),
        ] {
            let mut lease = Lease::taken(token(1), None, t0);
            lease.begin(t0);
            assert_eq!(lease.begin_answered(token(1), Some(answer), t0), means);
            assert_ne!(lease.begin(t0), BeginStep::Go);
        }
    }

    #[test]
    fn a_lease_of_an_earlier_core_is_asked_for_before_anything_is_begun_or_claimed() {
        let t0 = start();
        let mut lease = Lease::left(token(1), t0);
        assert_eq!(lease.begin(t0), BeginStep::Wait);
        assert!(!lease.allows_claim(t0) && lease.renew(t0));
        assert_eq!(lease.renewed(token(1), held(false), t0), Means::Proceed);
        assert_eq!(lease.begin(t0), BeginStep::Ask { token: token(1) });
    }

    #[test]
    fn it_expires_by_the_offices_clock_whatever_ours_says() {
        let until = Timestamp(60_000);
        assert_eq!(begin_within(None, until, LEASE_S), None);
        assert_eq!(
            begin_within(Some(Timestamp(-5)), until, LEASE_S),
            Some(Duration::ZERO)
        );
        let span = begin_within(Some(Timestamp(10_000)), until, LEASE_S);
        assert_eq!(span, Some(Duration::from_secs(10)));
        let t0 = start();
        let mut lease = Lease::taken(token(1), span, t0);
        assert!(!lease.is_expired(after(t0, 9)));
        assert_eq!(lease.begin(after(t0, 10)), BeginStep::Expired);
    }

    #[test]
    fn a_clock_that_was_set_forward_expires_nothing_without_the_offices_word() {
        let t0 = start();
        let mut lease = Lease::taken(token(1), Some(Duration::from_secs(3_600)), t0);
        let set_forward = Moment {
            at: t0.at,
            wall: t0.wall.plus_ms(86_400_000),
        };
        assert!(!lease.is_expired(set_forward));
        assert_eq!(lease.begin(set_forward), BeginStep::Ask { token: token(1) });
        let expired = Some(BeginAnswer::Expired);
        assert_eq!(
            lease.begin_answered(token(1), expired, set_forward),
            Means::Expired
        );
    }
}
