//! Ids as types, so that a session's id cannot be passed where an office's is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl $name {
            /// The first eight hex digits: for branch names, log lines and people. Not unique by promise.
            pub fn short(&self) -> String {
                self.0.simple().to_string()[..8].to_owned()
            }
        }
    };
}

id!(/// An office: a team of people, devices and agents.
    OfficeId);
id!(/// A member of the AI team (row of `agents`).
    AgentId);
id!(/// A running core on a workstation (row of `clients`).
    ClientId);
id!(/// One agent process in one PTY, in one worktree; also the provider's own session id (`--session-id`).
    SessionId);
id!(/// A row of `agent_commands`.
    CommandId);
id!(/// A row of `agent_command_results`; made by the client, so that a repeated report is recognised.
    ResultId);
id!(/// One prompt carried to its end in a session.
    TurnId);
id!(/// A user of the office's Auth (`auth.users.id`).
    UserId);
id!(/// A permission or question that an agent has put to people.
    AskId);
