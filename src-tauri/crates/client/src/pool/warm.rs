//! What is kept warm: one session per warm role that nobody has used yet, so that the next prompt finds its agent ready.
//!
//! A role is covered while its agent has a free session, used or not: the next prompt goes there anyway. A used
//! session is nobody's spare: after its idle minutes it ends like every other one, and only then a fresh one takes its
//! place. A warm one never stands in anybody's way: it is given up first, and started only when nobody waits.

use std::collections::HashSet;

use domain::session::SessionState;
use domain::{AgentId, SessionId, Timestamp};

use super::Seat;
use super::place::is_free;

/// Age after which a warm session is renewed: sign-ins and settings that it read at its start grow old.
pub const WARM_AGE_MAX_MS: u64 = 60 * 60 * 1_000;

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WarmSteps {
    /// Warm sessions that are not wanted any more, each with the reason.
    pub end: Vec<(SessionId, &'static str)>,
    /// The agent for whom one is started: one start at a time.
    pub start: Option<AgentId>,
}

/// Compares what is warm with the agents that are `wanted` warm, in their order. `may_start` says that nothing speaks
/// against a start now: nobody waits, the memory allows it. All seats belong to one office.
pub fn warm_steps(
    seats: &[Seat],
    wanted: &[AgentId],
    sessions_max: usize,
    may_start: bool,
    now: Timestamp,
) -> WarmSteps {
    let mut steps = WarmSteps::default();
    let mut kept = HashSet::new();
    for seat in seats.iter().filter(|seat| seat.warm && seat.can_go()) {
        let why = if !wanted.contains(&seat.agent) {
            "its role is not kept warm any more"
        } else if seat.stale {
            "its agent's persona has changed"
        } else if now.ms_since(seat.started_at) >= WARM_AGE_MAX_MS {
            "it was started too long ago"
        } else if !kept.insert(seat.agent) {
            "its agent has another warm session"
        } else {
            continue;
        };
        steps.end.push((seat.id, why));
    }
    let starting = seats.iter().any(|seat| seat.state == SessionState::Starting);
    let open = seats.iter().filter(|seat| !seat.state.is_over()).count();
    if may_start && !starting && steps.end.is_empty() && open < sessions_max {
        let covered = |agent: &AgentId| seats.iter().any(|seat| seat.agent == *agent && is_free(seat));
        steps.start = wanted.iter().find(|agent| !covered(agent)).copied();
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::super::sample::{BE, FE, QA, id, seat, warm};
    use super::*;

    const ALL: [AgentId; 3] = [FE, BE, QA];

    fn check(seats: &[Seat], start: Option<AgentId>) {
        let steps = warm_steps(seats, &ALL, 6, true, Timestamp(0));
        assert_eq!((steps.start, steps.end), (start, Vec::new()), "{seats:?}");
    }

    #[test]
    fn the_warm_roles_are_filled_in_order_and_one_at_a_time() {
        check(&[], Some(FE));
        let starting = |agent| Seat {
            state: SessionState::Starting,
            ..warm(1, agent)
        };
        check(&[starting(FE)], None);
        check(&[warm(1, FE)], Some(BE));
        check(&[warm(1, FE), warm(2, BE)], Some(QA));
        check(&[warm(1, FE), warm(2, BE), warm(3, QA)], None);
    }

    #[test]
    fn a_role_whose_agent_works_gets_a_spare_and_one_whose_agent_is_free_does_not() {
        let works = SessionState::Working { turn: None };
        check(&[seat(1, FE, works, 0), warm(2, BE), warm(3, QA)], Some(FE));
        check(
            &[seat(1, FE, SessionState::Idle, 0), warm(2, BE), warm(3, QA)],
            None,
        );
    }

    #[test]
    fn nothing_is_started_in_a_full_house_or_when_something_speaks_against_it() {
        assert_eq!(
            warm_steps(&[warm(1, FE)], &ALL, 1, true, Timestamp(0)),
            WarmSteps::default()
        );
        assert_eq!(
            warm_steps(&[], &ALL, 6, false, Timestamp(0)),
            WarmSteps::default()
        );
    }

    #[test]
    fn what_is_not_wanted_stale_old_or_double_ends_unless_somebody_has_it() {
        let stale = Seat {
            stale: true,
            ..warm(2, BE)
        };
        let taken = Seat {
            taken: true,
            ..warm(3, QA)
        };
        let end_of = |seats: &[Seat], wanted: &[AgentId], now| -> Vec<SessionId> {
            let steps = warm_steps(seats, wanted, 6, true, now);
            steps.end.into_iter().map(|(session, _)| session).collect()
        };
        let now = Timestamp(1_000);
        assert_eq!(
            end_of(&[warm(1, FE), stale.clone(), taken.clone()], &[BE, QA], now),
            [id(1), id(2)]
        );
        assert_eq!(end_of(&[warm(1, FE), warm(4, FE)], &ALL, now), [id(4)]);
        let late = Timestamp(WARM_AGE_MAX_MS as i64);
        assert_eq!(end_of(&[warm(1, FE), taken], &ALL, late), [id(1)]);
    }
}
