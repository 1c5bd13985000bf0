//! The words of the product and the rules that need nothing but values: ids, commands, the state machines of
//! session and turn, what counts as done, evidence, persona, policy.
//!
//! Invariant: no I/O, no async, no clock, no randomness. Whoever needs the time passes it in.

pub mod ask;
pub mod command;
pub mod evidence;
pub mod fault;
pub mod ids;
pub mod marker;
pub mod persona;
pub mod policy;
pub mod session;
pub mod time;
pub mod turn;

pub use command::{Command, CommandFault};
pub use ids::{AgentId, AskId, ClientId, CommandId, OfficeId, ResultId, SessionId, TurnId, UserId};
pub use time::{Clock, SinceBoot, Timestamp};
