//! The office's protocols from the client side: Auth (sign-in, one refresher), REST (rows and functions) and
//! Realtime (doorbells). Works against a real Supabase project and against our hub alike.
//!
//! Invariants: nothing here knows what a command means, keeps a session or decides what to run. No token and no
//! password is ever logged or shown by `Debug`. What comes from the network is outside input: it can be refused, it
//! never panics. Called by `client` (the loop), `cli` and `api`.
//!
//! Realtime is a hint, REST is the truth: every event here means "look", and a caller polls regardless.

pub mod auth;
mod key;
pub mod office;
pub mod project;
pub mod realtime;
pub mod rest;
#[cfg(test)]
mod stub;

pub use auth::{
    Auth, AuthError, FileTokenStore, Kept, KeptTokens, Keychain, MemoryTokenStore, StoreError, StoreLock,
    StoreTrouble, SystemKeychain, TokenStore, Tokens, TokensAt, write_private,
};
pub use office::{
    AgentDraft, AgentRow, AskClose, AskClosing, AskDraft, AskRow, AskState, BeginAnswer, CancelAnswer, Claim,
    ClaimedCommand, ClientRow, CommandRow, CommandState, CompleteArgs, Completion, FinalStatus,
    NO_SUCH_FUNCTION, NewCommand, OfficeRow, Registration, Renewal, ResultRow, ResultStatus, SessionDraft,
    SessionRow,
};
pub use project::{Project, ProjectError};
pub use realtime::{
    ConnectionState, EVENT_QUEUE_MAX, InsertWatch, Realtime, RealtimeEvent, RealtimeHandle, Topic,
};
pub use rest::{Readable, Rest, RestError, Select};
