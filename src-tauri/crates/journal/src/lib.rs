//! The local journal (SQLite): inbox, outbox, sessions, turns
