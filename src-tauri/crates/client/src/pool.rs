//! Which session carries a prompt: a pure decision over the sessions at hand. The core carries it out.
//!
//! A free session of the agent is taken first; else a new one is started while there is room; else the session that
//! has been idle longest is given up for it; else the command waits in line.

use domain::session::SessionState;
use domain::{AgentId, SessionId, Timestamp};

/// What the decision needs to know of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub agent: AgentId,
    /// The repository it works in.
    pub repository: String,
    /// Where it is in its life.
    pub state: SessionState,
    /// A command has it already, or waits for it to become ready.
    pub taken: bool,
    /// Since when it is idle.
    pub idle_since: Option<Timestamp>,
}

/// Where a prompt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Use this one: it is idle, or will be when its start is over.
    Take(SessionId),
    /// Start a new one.
    Start,
    /// Give this one up; the command stays in line and is placed when it is gone.
    GiveUp(SessionId),
    /// Nothing is free and nothing can be given up.
    Wait,
}

/// Places a prompt for `agent`, in `repository` when it names one.
pub fn place(seats: &[Seat], sessions_max: usize, agent: AgentId, repository: Option<&str>) -> Placement {
    let open = || seats.iter().filter(|seat| !seat.state.is_over());
    let fits = |seat: &&Seat| {
        seat.agent == agent && !seat.taken && repository.is_none_or(|wanted| wanted == seat.repository)
    };
    let mut free: Vec<&Seat> = open().filter(fits).collect();
    // An idle one before one that still starts; among equals the one that was used last: its context is freshest.
    free.sort_by_key(|seat| {
        (
            seat.state != SessionState::Idle,
            std::cmp::Reverse(seat.idle_since),
        )
    });
    if let Some(seat) = free
        .into_iter()
        .find(|seat| matches!(seat.state, SessionState::Idle | SessionState::Starting))
    {
        return Placement::Take(seat.id);
    }
    if open().count() < sessions_max {
        return Placement::Start;
    }
    if open().any(|seat| seat.state == SessionState::Stopping) {
        // One is on its way out already; a second one is not given up for the same prompt.
        return Placement::Wait;
    }
    open()
        .filter(|seat| !seat.taken && is_at_rest(&seat.state))
        .min_by_key(|seat| seat.idle_since)
        .map_or(Placement::Wait, |seat| Placement::GiveUp(seat.id))
}

/// Nothing runs in it that anybody waits for: idle, or stuck at a question of its start (a sign-in, say).
pub fn is_at_rest(state: &SessionState) -> bool {
    match state {
        SessionState::Idle | SessionState::AwaitingPerson { turn: None, .. } => true,
        SessionState::Starting
        | SessionState::Working { .. }
        | SessionState::AwaitingPerson { turn: Some(_), .. }
        | SessionState::Stopping
        | SessionState::Exited { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use domain::session::Ask;
    use uuid::Uuid;

    use super::*;

    const FE: AgentId = AgentId(Uuid::from_u128(1));
    const BE: AgentId = AgentId(Uuid::from_u128(2));

    fn seat(id: u128, agent: AgentId, state: SessionState, idle_since: i64) -> Seat {
        Seat {
            id: SessionId(Uuid::from_u128(id)),
            agent,
            repository: "sample".into(),
            taken: !matches!(state, SessionState::Idle | SessionState::Starting),
            state,
            idle_since: Some(Timestamp(idle_since)),
        }
    }

    fn check(seats: &[Seat], expected: Placement) {
        assert_eq!(place(seats, 2, FE, None), expected, "{seats:?}");
    }

    fn taken(id: u128) -> Placement {
        Placement::Take(SessionId(Uuid::from_u128(id)))
    }

    #[test]
    fn a_free_session_of_the_agent_is_taken_and_the_freshest_first() {
        check(
            &[
                seat(1, FE, SessionState::Idle, 5),
                seat(2, FE, SessionState::Idle, 9),
            ],
            taken(2),
        );
        check(
            &[
                seat(1, FE, SessionState::Starting, 0),
                seat(2, FE, SessionState::Idle, 1),
            ],
            taken(2),
        );
        check(&[seat(1, FE, SessionState::Starting, 0)], taken(1));
    }

    #[test]
    fn a_busy_agent_gets_a_second_session_while_there_is_room() {
        check(
            &[seat(1, FE, SessionState::Working { turn: None }, 0)],
            Placement::Start,
        );
        check(&[seat(1, BE, SessionState::Idle, 0)], Placement::Start);
        check(
            &[seat(1, FE, SessionState::Exited { code: Some(0) }, 0)],
            Placement::Start,
        );
    }

    #[test]
    fn when_full_the_longest_idle_session_is_given_up_and_never_a_busy_one() {
        let busy = || seat(1, FE, SessionState::Working { turn: None }, 0);
        check(
            &[busy(), seat(2, BE, SessionState::Idle, 3)],
            Placement::GiveUp(SessionId(Uuid::from_u128(2))),
        );
        check(
            &[busy(), seat(2, BE, SessionState::Working { turn: None }, 3)],
            Placement::Wait,
        );
        check(
            &[
                seat(1, BE, SessionState::Idle, 0),
                seat(2, BE, SessionState::Stopping, 3),
            ],
            Placement::Wait,
        );
    }

    #[test]
    fn sessions_that_are_stuck_at_a_sign_in_do_not_fill_the_office_for_good() {
        let stuck = |id, since| {
            let state = SessionState::AwaitingPerson {
                turn: None,
                ask: Ask::Login,
            };
            Seat {
                taken: false,
                ..seat(id, FE, state, since)
            }
        };
        check(
            &[stuck(1, 5), stuck(2, 3)],
            Placement::GiveUp(SessionId(Uuid::from_u128(2))),
        );
    }

    #[test]
    fn a_session_in_another_repository_is_not_taken() {
        let seats = [seat(1, FE, SessionState::Idle, 5)];
        assert_eq!(place(&seats, 2, FE, Some("other")), Placement::Start);
        assert_eq!(place(&seats, 2, FE, Some("sample")), taken(1));
    }
}
