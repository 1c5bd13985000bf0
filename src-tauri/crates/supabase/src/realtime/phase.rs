//! One channel's life on one socket, as a pure function, and what its refusals mean.
//!
//! Applied by [`super::channel`], which keeps the times; nothing here waits.

/// Where a channel is. `join_ref` names the join; frames of an older one mean nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be joined as soon as the owner comes to it.
    Ready,
    /// The join is sent. Moved on by its reply or by the owner's deadline.
    Joining {
        /// Of which join.
        join_ref: String,
    },
    /// Joined; the database subscription is not live yet. Moved on by `system` or by the owner's deadline.
    AwaitingSystem {
        /// Of which join.
        join_ref: String,
    },
    /// Joined; whether doorbells really come through is not proven yet. Moved on by the first that is heard, or by the
    /// owner's deadline after it has rung itself.
    Proving {
        /// Of which join.
        join_ref: String,
    },
    /// Doorbells are heard: one has been.
    Live {
        /// Of which join.
        join_ref: String,
    },
    /// Not joined. Moved on by the owner, when the wait that goes with the cure is over.
    Failed(Fault),
}

/// Why a channel is not joined, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// For people.
    pub why: String,
    /// What helps.
    pub cure: Cure,
}

/// What helps against a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cure {
    /// Trying again.
    Retry,
    /// A new token, then trying again.
    Token,
    /// A new token once; if that does not help, a person (membership, policy, project).
    TokenThenPerson,
    /// Time: the service is crowded.
    Time,
    /// A person: settings of the project.
    Person,
}

/// What can happen to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChannelEvent {
    /// The join was sent.
    JoinSent {
        /// Its reference.
        join_ref: String,
    },
    /// The join was accepted.
    JoinOk {
        /// Is a `system` message to be waited for?
        awaits_system: bool,
    },
    /// The join was refused.
    JoinRefused {
        /// The server's words.
        reason: String,
    },
    /// No reply to the join in time.
    JoinLate,
    /// The database subscription is live.
    SystemOk,
    /// `system` did not come in time; broadcasts are heard all the same.
    SystemLate,
    /// A doorbell came through.
    Heard,
    /// We have rung, and did not hear it in time.
    Unheard,
    /// Whether doorbells still come through is in doubt.
    Doubted,
    /// The server ended the channel (`phx_close`), which we had not asked for.
    Closed {
        /// What a `system` error before it said.
        said: Option<String>,
    },
    /// The channel crashed on the server (`phx_error`).
    Crashed,
    /// The wait is over.
    WaitOver,
}

impl Phase {
    /// The join this phase belongs to.
    pub(super) fn join_ref(&self) -> Option<&str> {
        match self {
            Phase::Joining { join_ref }
            | Phase::AwaitingSystem { join_ref }
            | Phase::Proving { join_ref }
            | Phase::Live { join_ref } => Some(join_ref),
            Phase::Ready | Phase::Failed(_) => None,
        }
    }

    /// Are broadcasts heard?
    pub(super) fn is_joined(&self) -> bool {
        match self {
            Phase::AwaitingSystem { .. } | Phase::Proving { .. } | Phase::Live { .. } => true,
            Phase::Ready | Phase::Joining { .. } | Phase::Failed(_) => false,
        }
    }

    /// The phase after `event`; events that mean nothing in a phase leave it as it is.
    pub(super) fn after(&self, event: &ChannelEvent) -> Phase {
        let failed = |why: &str, cure| {
            Phase::Failed(Fault {
                why: why.to_owned(),
                cure,
            })
        };
        match (self, event) {
            (_, ChannelEvent::JoinSent { join_ref }) => Phase::Joining {
                join_ref: join_ref.clone(),
            },
            (Phase::Joining { join_ref }, ChannelEvent::JoinOk { awaits_system: true }) => {
                Phase::AwaitingSystem {
                    join_ref: join_ref.clone(),
                }
            }
            (Phase::Joining { join_ref }, ChannelEvent::JoinOk { awaits_system: false }) => Phase::Proving {
                join_ref: join_ref.clone(),
            },
            (Phase::Joining { .. }, ChannelEvent::JoinRefused { reason }) => Phase::Failed(Fault {
                why: reason.clone(),
                cure: cure_for(reason),
            }),
            (Phase::Joining { .. }, ChannelEvent::JoinLate) => {
                failed("the join was not answered in time", Cure::Retry)
            }
            (Phase::AwaitingSystem { join_ref }, ChannelEvent::SystemOk | ChannelEvent::SystemLate)
            | (Phase::Live { join_ref }, ChannelEvent::Doubted) => Phase::Proving {
                join_ref: join_ref.clone(),
            },
            (Phase::Proving { join_ref }, ChannelEvent::Heard) => Phase::Live {
                join_ref: join_ref.clone(),
            },
            (Phase::Proving { .. } | Phase::Live { .. }, ChannelEvent::Unheard) => failed(
                "the office's doorbell was rung and not heard here in time",
                Cure::Retry,
            ),
            (_, ChannelEvent::Closed { said }) if self.join_ref().is_some() => failed(
                said.as_deref().unwrap_or("the server ended the channel"),
                cure_for_close(said.as_deref()),
            ),
            (_, ChannelEvent::Crashed) if self.join_ref().is_some() => {
                failed("the channel failed on the server", Cure::Retry)
            }
            (Phase::Failed(_), ChannelEvent::WaitOver) => Phase::Ready,
            (
                Phase::Ready
                | Phase::Joining { .. }
                | Phase::AwaitingSystem { .. }
                | Phase::Proving { .. }
                | Phase::Live { .. }
                | Phase::Failed(_),
                ChannelEvent::JoinOk { .. }
                | ChannelEvent::JoinRefused { .. }
                | ChannelEvent::JoinLate
                | ChannelEvent::SystemOk
                | ChannelEvent::SystemLate
                | ChannelEvent::Heard
                | ChannelEvent::Unheard
                | ChannelEvent::Doubted
                | ChannelEvent::Closed { .. }
                | ChannelEvent::Crashed
                | ChannelEvent::WaitOver,
            ) => self.clone(),
        }
    }
}

/// What helps against a refusal of a join, by the code before its colon.
pub(super) fn cure_for(reason: &str) -> Cure {
    let code = reason.split(':').next().unwrap_or_default().trim();
    match code {
        "InvalidJWTToken" => Cure::Token,
        "Unauthorized" | "MalformedJWT" | "JwtSignatureError" | "JwtSignerError" => Cure::TokenThenPerson,
        "ClientJoinRateLimitReached"
        | "ConnectionRateLimitReached"
        | "ChannelRateLimitReached"
        | "IncreaseConnectionPool"
        | "DatabaseConnectionRateLimitReached" => Cure::Time,
        "PrivateOnly"
        | "RealtimeDisabledForTenant"
        | "RealtimeDisabledForConfiguration"
        | "TenantNotFound"
        | "TopicNameRequired"
        | "unmatched topic" => Cure::Person,
        _ => Cure::Retry,
    }
}

/// What helps after a close that we had not asked for, by the `system` error before it. Mostly the token ran out, and
/// often nothing is said.
fn cure_for_close(said: Option<&str>) -> Cure {
    let said = said.unwrap_or_default();
    if said.starts_with("Too many") || said.contains("rate limit") {
        Cure::Time
    } else if said.contains("permission") {
        Cure::TokenThenPerson
    } else if ["unable to connect", "was cancelled", "timeout", "in time"]
        .iter()
        .any(|part| said.contains(part))
    {
        Cure::Retry
    } else {
        Cure::Token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining() -> Phase {
        Phase::Joining {
            join_ref: "3".to_owned(),
        }
    }

    fn live() -> Phase {
        Phase::Live {
            join_ref: "3".to_owned(),
        }
    }

    fn proving() -> Phase {
        Phase::Proving {
            join_ref: "3".to_owned(),
        }
    }

    #[test]
    fn a_channel_becomes_live_only_by_a_doorbell_that_is_heard() {
        let sent = Phase::Ready.after(&ChannelEvent::JoinSent {
            join_ref: "3".to_owned(),
        });
        assert_eq!(sent, joining());
        assert_eq!(
            sent.after(&ChannelEvent::JoinOk { awaits_system: false }),
            proving()
        );
        let waiting = sent.after(&ChannelEvent::JoinOk { awaits_system: true });
        assert!(waiting.is_joined(), "broadcasts are heard from the reply on");
        assert_eq!(waiting.after(&ChannelEvent::SystemOk), proving());
        assert_eq!(
            waiting.after(&ChannelEvent::SystemLate),
            proving(),
            "a missing word must not hold it up for ever"
        );
        assert_eq!(proving().after(&ChannelEvent::Heard), live());
        assert_eq!(
            live().after(&ChannelEvent::Doubted),
            proving(),
            "what is in doubt is not called live"
        );
        for phase in [proving(), live()] {
            assert!(
                matches!(
                    phase.after(&ChannelEvent::Unheard),
                    Phase::Failed(Fault {
                        cure: Cure::Retry,
                        ..
                    })
                ),
                "a channel that hears nothing is joined anew"
            );
        }
    }

    #[test]
    fn a_close_that_nobody_asked_for_wants_a_new_token() {
        let said = Some("Token has expired 3 seconds ago".to_owned());
        let Phase::Failed(fault) = live().after(&ChannelEvent::Closed { said }) else {
            panic!("a closed channel is not joined");
        };
        assert_eq!(
            (fault.cure, fault.why.as_str()),
            (Cure::Token, "Token has expired 3 seconds ago")
        );
        assert!(matches!(
            live().after(&ChannelEvent::Crashed),
            Phase::Failed(Fault {
                cure: Cure::Retry,
                ..
            })
        ));
    }

    #[test]
    fn what_was_said_before_a_close_tells_what_helps() {
        for (said, cure) in [
            (None, Cure::Token),
            (Some("Fields `role` and `exp` are required in JWT"), Cure::Token),
            (Some("Too many messages per second"), Cure::Time),
            (Some("Client presence rate limit exceeded"), Cure::Time),
            (
                Some("You no longer have permission to read from this Channel topic: x"),
                Cure::TokenThenPerson,
            ),
            (Some("Node request timeout"), Cure::Retry),
            (
                Some("Realtime was unable to connect to the project database"),
                Cure::Retry,
            ),
        ] {
            let closed = ChannelEvent::Closed {
                said: said.map(str::to_owned),
            };
            assert!(
                matches!(live().after(&closed), Phase::Failed(fault) if fault.cure == cure),
                "{said:?}"
            );
        }
    }

    #[test]
    fn events_out_of_their_time_change_nothing() {
        for (phase, event) in [
            (Phase::Ready, ChannelEvent::JoinOk { awaits_system: false }),
            (Phase::Ready, ChannelEvent::Closed { said: None }),
            (live(), ChannelEvent::JoinOk { awaits_system: true }),
            (live(), ChannelEvent::JoinLate),
            (live(), ChannelEvent::WaitOver),
            (joining(), ChannelEvent::SystemOk),
            (joining(), ChannelEvent::Heard),
            (Phase::Ready, ChannelEvent::Doubted),
        ] {
            assert_eq!(phase.after(&event), phase, "{event:?}");
        }
    }

    #[test]
    fn refusals_are_told_apart_by_what_helps() {
        for (reason, cure) in [
            (
                "Unauthorized: You do not have permissions to read from this Channel topic: x",
                Cure::TokenThenPerson,
            ),
            ("InvalidJWTToken: Token has expired 5 seconds ago", Cure::Token),
            (
                "JwtSignatureError: Failed to validate JWT signature",
                Cure::TokenThenPerson,
            ),
            (
                "ClientJoinRateLimitReached: Too many joins per second",
                Cure::Time,
            ),
            (
                "PrivateOnly: This project only allows private channels",
                Cure::Person,
            ),
            ("unmatched topic", Cure::Person),
            (
                "RealtimeRestarting: Realtime is restarting, please standby",
                Cure::Retry,
            ),
            ("Unknown Error on Channel", Cure::Retry),
            ("", Cure::Retry),
        ] {
            assert_eq!(cure_for(reason), cure, "{reason}");
        }
    }
}
