//! When commands are claimed, and how many. One claim at a time; a cause that comes while one is under way, or while none
//! may be sent, makes one more later.

use domain::CommandId;

/// Commands taken by one claim.
const CLAIM_MAX: usize = 10;
/// Commands that are asked for even when everything is taken.
const CLAIM_MIN: usize = 2;
/// Commands that are taken beyond the free places.
const LINE_AHEAD: usize = 4;
/// Commands that may wait in our line for a session; beyond that they stay in the office for other clients.
const LINE_MAX: usize = 50;
/// Kinds that need no place and free what others wait for: taken also when our line is full, when it is they that can
/// empty it. The database puts them before prompts.
pub(crate) const URGENT_KINDS: [&str; 3] = ["approve", "cancel", "terminate"];

/// Commands that a claim names as known. A client with more of them asks for nothing to be given again: what an answer
/// that was lost has taken waits for the end of its lease then.
pub(crate) const KNOWN_MAX: usize = 200;

/// What a claim names as known: what is in our hands, and what is finished while the office has not answered the report
/// of it. Nothing where these are too many to be named; what is not named would be given to us again. Of `unanswered`
/// one more than [`KNOWN_MAX`] is enough.
pub(crate) fn known(
    held: impl Iterator<Item = CommandId>,
    unanswered: impl Iterator<Item = CommandId>,
) -> Option<Vec<CommandId>> {
    let known: Vec<_> = held.chain(unanswered).take(KNOWN_MAX + 1).collect();
    (known.len() <= KNOWN_MAX).then_some(known)
}

/// How full the house is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Sessions that could carry a command now.
    pub places: usize,
    /// Commands that wait for one.
    pub line: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// So many of any kind.
    Any { limit: u32 },
    /// So many of [`URGENT_KINDS`].
    Urgent { limit: u32 },
}

impl Room {
    pub fn is_full(self) -> bool {
        self.line >= LINE_MAX
    }

    /// As many as there are places, and a few for the line: the rest stays in the office for other clients. Never fewer
    /// than [`CLAIM_MIN`], so that a cancel gets through a full house.
    pub fn wanted(self) -> Wanted {
        let count = |commands: usize| u32::try_from(commands).unwrap_or(u32::MAX);
        if self.is_full() {
            return Wanted::Urgent {
                limit: count(CLAIM_MAX),
            };
        }
        let limit = (self.places + LINE_AHEAD).saturating_sub(self.line);
        Wanted::Any {
            limit: count(limit.clamp(CLAIM_MIN, CLAIM_MAX)),
        }
    }

    /// Whether a claim that brought `rows` is followed by another: a full batch means that there may be more.
    pub fn may_be_more(self, rows: usize) -> bool {
        rows >= CLAIM_MIN && self.line < LINE_AHEAD || rows >= CLAIM_MAX
    }
}

/// Whether a claim is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Claims {
    #[default]
    Resting,
    /// One is to be sent as soon as it may be.
    Wished,
    /// Its answer moves it on.
    UnderWay,
    /// One more is to follow.
    UnderWayAndWished,
}

impl Claims {
    /// Somebody has a reason for a claim. True: it is sent now.
    pub fn wish(&mut self, may_be_sent: bool) -> bool {
        match self {
            Claims::UnderWay | Claims::UnderWayAndWished => {
                *self = Claims::UnderWayAndWished;
                false
            }
            Claims::Resting | Claims::Wished if may_be_sent => {
                *self = Claims::UnderWay;
                true
            }
            Claims::Resting | Claims::Wished => {
                *self = Claims::Wished;
                false
            }
        }
    }

    /// The answer came, or will not come.
    pub fn answered(&mut self) {
        *self = match self {
            Claims::UnderWay | Claims::Resting => Claims::Resting,
            Claims::UnderWayAndWished | Claims::Wished => Claims::Wished,
        };
    }

    pub fn is_wished(self) -> bool {
        self == Claims::Wished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_come_meanwhile_make_one_more_claim() {
        let mut claims = Claims::default();
        assert!(claims.wish(true));
        assert!(!claims.wish(true) && !claims.wish(true));
        claims.answered();
        assert!(claims.is_wished());
        assert!(claims.wish(true));
        claims.answered();
        assert!(!claims.is_wished());
        assert!(!claims.wish(false), "not now");
        assert!(claims.is_wished(), "but not forgotten");
    }

    #[test]
    fn what_cannot_be_named_whole_is_not_named_at_all() {
        let ids = |from: u128, count: usize| {
            (from..)
                .take(count)
                .map(|id| CommandId(uuid::Uuid::from_u128(id)))
        };
        assert_eq!(known(ids(1, 2), ids(9, 1)).unwrap().len(), 3);
        assert_eq!(
            known(ids(1, 0), ids(9, 0)),
            Some(Vec::new()),
            "nothing is known: all is given again"
        );
        assert!(known(ids(1, KNOWN_MAX - 1), ids(900, 1)).is_some());
        assert_eq!(known(ids(1, KNOWN_MAX - 1), ids(900, 2)), None);
    }

    #[test]
    fn a_full_house_asks_for_little_and_a_full_line_for_what_empties_it() {
        let wanted = |places, line| Room { places, line }.wanted();
        assert_eq!(wanted(0, 0), Wanted::Any { limit: 4 });
        assert_eq!(wanted(0, 6), Wanted::Any { limit: 2 });
        assert_eq!(wanted(9, 0), Wanted::Any { limit: 10 });
        assert_eq!(wanted(9, 50), Wanted::Urgent { limit: 10 });
        let more = |rows, line| Room { places: 1, line }.may_be_more(rows);
        assert!(more(2, 0) && !more(1, 0) && !more(9, 4) && more(10, 4));
    }
}
