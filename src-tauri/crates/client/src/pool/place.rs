//! Which session carries a prompt.
//!
//! A free session of the agent that has worked for it is taken first: its context is freshest. Then a warm one, then a
//! new one while there is room; else something unused is given up for it; else the command waits in line.

use std::cmp::Reverse;

use domain::session::SessionState;
use domain::{AgentId, SessionId};

use super::{Seat, is_at_rest};

/// What a command wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose session.
    pub agent: AgentId,
    /// In which repository; the agent's newest, or the default one, when absent.
    pub repository: Option<String>,
    /// From which branch or commit; never one that runs already.
    pub base: Option<String>,
    /// A session that nobody has used: `create_session` asks for one.
    pub fresh: bool,
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Sessions at once.
    pub sessions_max: usize,
    /// Whether the memory takes one more.
    pub memory: bool,
}

/// Where a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Use this one: it is idle, or will be when its start is over.
    Take(SessionId),
    /// Start a new one.
    Start,
    /// Give this one up; the command stays in line and is placed when it is gone.
    GiveUp(SessionId),
    /// Nothing is free and nothing can be given up.
    Wait(WaitsFor),
    /// There is no place, and none will be made for a session that only stands ready.
    Full,
}

/// What a command in line waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// A session is on its way out.
    Leaving,
    /// All sessions work.
    Place,
    /// The memory does not take one more.
    Memory,
}

/// Places a command among the sessions of its office.
pub fn place(seats: &[Seat], room: Room, wish: &Wish) -> Placement {
    let open = || seats.iter().filter(|seat| !seat.state.is_over());
    let free = open()
        .filter(|seat| fits(seat, wish))
        // An idle one before one that still starts; a used one before a warm one; then the one that was used last.
        .min_by_key(|seat| {
            (
                seat.state != SessionState::Idle,
                seat.warm,
                Reverse(seat.idle_since),
            )
        });
    if let Some(seat) = free {
        return Placement::Take(seat.id);
    }
    if open().count() < room.sessions_max && room.memory {
        return Placement::Start;
    }
    if open().any(|seat| seat.state == SessionState::Stopping) {
        // One is on its way out already; a second one is not given up for the same place.
        return Placement::Wait(WaitsFor::Leaving);
    }
    match to_give_up(seats).find(|seat| seat.warm || !wish.fresh) {
        Some(seat) => Placement::GiveUp(seat.id),
        None if wish.fresh => Placement::Full,
        None if open().count() < room.sessions_max => Placement::Wait(WaitsFor::Memory),
        None => Placement::Wait(WaitsFor::Place),
    }
}

fn fits(seat: &Seat, wish: &Wish) -> bool {
    seat.agent == wish.agent
        && !seat.taken
        // A used one with an old persona is renewed with its conversation; a warm one is not worth that.
        && !(seat.stale && seat.warm)
        && matches!(seat.state, SessionState::Idle | SessionState::Starting)
        && wish.base.is_none()
        && (seat.warm || !wish.fresh)
        && wish
            .repository
            .as_ref()
            .is_none_or(|wanted| *wanted == seat.repository)
}

/// Whether a command can go there while its agent is paused: into a healthy session that has worked for the agent
/// and goes on with that. A warm one is a start like any other, and one with an old persona would be started anew.
pub fn needs_no_start(seats: &[Seat], placement: Placement) -> bool {
    let Placement::Take(session) = placement else {
        return false;
    };
    let ready = |seat: &Seat| seat.state == SessionState::Idle && !seat.warm && !seat.stale;
    seats.iter().any(|seat| seat.id == session && ready(seat))
}

/// What can be ended to make room, the least loss first: warm ones, then those that have been idle longest.
pub fn to_give_up(seats: &[Seat]) -> impl Iterator<Item = &Seat> {
    let mut free: Vec<&Seat> = seats.iter().filter(|seat| seat.can_go()).collect();
    free.sort_by_key(|seat| (!seat.warm, seat.idle_since));
    free.into_iter()
}

/// The sessions that are too many when at most `sessions_max` are allowed, as far as they can be ended now.
pub fn surplus(seats: &[Seat], sessions_max: usize) -> Vec<SessionId> {
    let staying = |seat: &&Seat| !seat.state.is_over() && seat.state != SessionState::Stopping;
    let too_many = seats.iter().filter(staying).count().saturating_sub(sessions_max);
    to_give_up(seats).take(too_many).map(|seat| seat.id).collect()
}

/// Whether a session counts as free for its agent: idle or starting, nobody has it.
pub(super) fn is_free(seat: &Seat) -> bool {
    !seat.taken && (is_at_rest(&seat.state) || seat.state == SessionState::Starting)
}

#[cfg(test)]
mod tests {
    use domain::session::Ask;

    use super::super::sample::{BE, FE, QA, id, seat, warm};
    use super::*;

    const ROOM: Room = Room {
        sessions_max: 2,
        memory: true,
    };

    fn wish(agent: AgentId) -> Wish {
        Wish {
            agent,
            repository: None,
            base: None,
            fresh: false,
        }
    }

    fn check(seats: &[Seat], expected: Placement) {
        assert_eq!(place(seats, ROOM, &wish(FE)), expected, "{seats:?}");
    }

    fn working() -> SessionState {
        SessionState::Working { turn: None }
    }

    #[test]
    fn a_free_session_of_the_agent_is_taken_and_the_freshest_first() {
        let idle = SessionState::Idle;
        check(
            &[seat(1, FE, idle.clone(), 5), seat(2, FE, idle.clone(), 9)],
            Placement::Take(id(2)),
        );
        check(
            &[seat(1, FE, SessionState::Starting, 0), seat(2, FE, idle, 1)],
            Placement::Take(id(2)),
        );
        check(&[seat(1, FE, SessionState::Starting, 0)], Placement::Take(id(1)));
    }

    #[test]
    fn a_warm_session_comes_after_a_used_one_and_before_a_new_one() {
        let used = seat(1, FE, SessionState::Idle, 5);
        check(&[warm(2, FE), used], Placement::Take(id(1)));
        check(&[warm(2, FE)], Placement::Take(id(2)));
        check(&[warm(2, FE), seat(1, FE, working(), 0)], Placement::Take(id(2)));
        check(&[warm(2, BE)], Placement::Start);
        let stale = Seat {
            stale: true,
            ..warm(2, FE)
        };
        check(&[stale], Placement::Start);
    }

    #[test]
    fn a_busy_agent_gets_a_second_session_while_there_is_room() {
        check(&[seat(1, FE, working(), 0)], Placement::Start);
        check(&[seat(1, BE, SessionState::Idle, 0)], Placement::Start);
        check(
            &[seat(1, FE, SessionState::Exited { code: Some(0) }, 0)],
            Placement::Start,
        );
    }

    #[test]
    fn a_paused_agent_gets_only_what_is_ready_and_was_used() {
        let used = seat(1, FE, SessionState::Idle, 5);
        let starts = seat(2, FE, SessionState::Starting, 0);
        let stale = Seat {
            stale: true,
            ..seat(3, FE, SessionState::Idle, 5)
        };
        let seats = [used, starts, stale, warm(4, FE)];
        for (number, goes) in [(1, true), (2, false), (3, false), (4, false)] {
            assert_eq!(
                needs_no_start(&seats, Placement::Take(id(number))),
                goes,
                "{number}"
            );
        }
        assert!(!needs_no_start(&seats, Placement::Start));
        assert!(!needs_no_start(&seats, Placement::GiveUp(id(1))));
    }

    #[test]
    fn in_a_full_house_a_warm_session_goes_first_then_the_one_that_was_idle_longest() {
        let busy = || seat(1, BE, working(), 0);
        check(&[busy(), warm(2, BE)], Placement::GiveUp(id(2)));
        check(
            &[seat(1, BE, SessionState::Idle, 1), warm(2, QA)],
            Placement::GiveUp(id(2)),
        );
        let starting = Seat {
            state: SessionState::Starting,
            ..warm(2, QA)
        };
        check(&[busy(), starting], Placement::GiveUp(id(2)));
        check(
            &[
                seat(1, BE, SessionState::Idle, 5),
                seat(2, BE, SessionState::Idle, 3),
            ],
            Placement::GiveUp(id(2)),
        );
        check(
            &[busy(), seat(2, BE, working(), 3)],
            Placement::Wait(WaitsFor::Place),
        );
        check(
            &[
                seat(1, BE, SessionState::Idle, 0),
                seat(2, BE, SessionState::Stopping, 3),
            ],
            Placement::Wait(WaitsFor::Leaving),
        );
    }

    #[test]
    fn sessions_that_are_stuck_at_a_sign_in_do_not_fill_the_office_for_good() {
        let stuck = |number, since| {
            let state = SessionState::AwaitingPerson {
                turn: None,
                ask: Ask::Login,
            };
            Seat {
                taken: false,
                ..seat(number, FE, state, since)
            }
        };
        check(&[stuck(1, 5), stuck(2, 3)], Placement::GiveUp(id(2)));
    }

    #[test]
    fn a_session_in_another_repository_or_for_another_base_is_not_taken() {
        let seats = [seat(1, FE, SessionState::Idle, 5), warm(2, FE)];
        let room = Room {
            sessions_max: 3,
            ..ROOM
        };
        let in_repository = |name: &str| Wish {
            repository: Some(name.into()),
            ..wish(FE)
        };
        assert_eq!(place(&seats, room, &in_repository("other")), Placement::Start);
        assert_eq!(
            place(&seats, room, &in_repository("sample")),
            Placement::Take(id(1))
        );
        let from = Wish {
            base: Some("v1".into()),
            fresh: true,
            ..wish(FE)
        };
        assert_eq!(place(&seats, room, &from), Placement::Start);
    }

    #[test]
    fn a_session_that_only_stands_ready_takes_a_warm_one_and_pushes_no_used_one_out() {
        let fresh = Wish {
            fresh: true,
            ..wish(FE)
        };
        let used = seat(1, FE, SessionState::Idle, 5);
        assert_eq!(
            place(&[used.clone(), warm(2, FE)], ROOM, &fresh),
            Placement::Take(id(2))
        );
        assert_eq!(
            place(&[used.clone(), warm(2, BE)], ROOM, &fresh),
            Placement::GiveUp(id(2))
        );
        let full = [used, seat(2, BE, SessionState::Idle, 1)];
        assert_eq!(place(&full, ROOM, &fresh), Placement::Full);
    }

    #[test]
    fn without_memory_nothing_is_started_and_what_is_unused_goes_first() {
        let tight = Room {
            memory: false,
            ..ROOM
        };
        assert_eq!(place(&[warm(1, BE)], tight, &wish(FE)), Placement::GiveUp(id(1)));
        assert_eq!(
            place(&[seat(1, BE, working(), 0)], tight, &wish(FE)),
            Placement::Wait(WaitsFor::Memory)
        );
        assert_eq!(
            place(&[warm(1, FE)], tight, &wish(FE)),
            Placement::Take(id(1)),
            "what runs already may be used"
        );
    }

    /// Over every small office that chance brings: nothing that somebody has is taken or given up, the limit holds, and
    /// a command only waits when nothing else can be done.
    #[test]
    fn whatever_the_office_looks_like_a_placement_harms_nobody() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let count = random.random_range(0..7_u128);
            let seats: Vec<Seat> = (0..count)
                .map(|number| {
                    let state = match random.random_range(0..6) {
                        0 => SessionState::Starting,
                        1 => working(),
                        2 => SessionState::Stopping,
                        3 => SessionState::Exited { code: None },
                        _ => SessionState::Idle,
                    };
                    Seat {
                        taken: random.random_bool(0.4),
                        warm: random.random_bool(0.4),
                        stale: random.random_bool(0.2),
                        ..seat(
                            number,
                            [FE, BE, QA][random.random_range(0..3)],
                            state,
                            random.random_range(0..9),
                        )
                    }
                })
                .collect();
            let room = Room {
                sessions_max: random.random_range(1..6),
                memory: random.random_bool(0.7),
            };
            let wish = Wish {
                fresh: random.random_bool(0.3),
                ..wish(FE)
            };
            let open = seats.iter().filter(|seat| !seat.state.is_over()).count();
            let of = |id: SessionId| seats.iter().find(|seat| seat.id == id).unwrap();
            match place(&seats, room, &wish) {
                Placement::Take(id) => assert!(
                    of(id).agent == FE && !of(id).taken && (of(id).warm || !wish.fresh),
                    "{seats:?}"
                ),
                Placement::Start => assert!(open < room.sessions_max && room.memory, "{seats:?}"),
                Placement::GiveUp(id) => {
                    assert!(of(id).can_go() && (of(id).warm || !wish.fresh), "{seats:?}");
                    assert!(open >= room.sessions_max || !room.memory, "{seats:?}");
                }
                Placement::Wait(WaitsFor::Leaving) => {
                    assert!(seats.iter().any(|seat| seat.state == SessionState::Stopping));
                }
                Placement::Wait(_) => assert!(!seats.iter().any(Seat::can_go), "{seats:?}"),
                Placement::Full => assert!(wish.fresh, "{seats:?}"),
            }
        }
    }

    #[test]
    fn when_fewer_are_allowed_the_unused_ones_go_and_the_working_ones_stay() {
        let seats = [
            seat(1, FE, working(), 0),
            seat(2, BE, SessionState::Idle, 9),
            warm(3, QA),
            seat(4, QA, SessionState::Idle, 2),
        ];
        assert_eq!(surplus(&seats, 3), [id(3)]);
        assert_eq!(surplus(&seats, 2), [id(3), id(4)]);
        assert_eq!(surplus(&seats[..1], 0), []);
    }
}
