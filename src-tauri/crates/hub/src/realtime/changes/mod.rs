//! postgres_changes: what a channel asked for, and who may be told about a changed row.
//!
//! A change is told only to roles that can read the row at that moment, and only with columns they may read; for a
//! DELETE there is no row to check, so where row level security holds it carries the primary key alone. Rows are
//! captured by triggers within the transaction that changes them: what is rolled back was never told.
//!
//! What a member asks for costs the others nothing they would notice: row changes have a loop of their own (`lane`), a
//! filter is compared only for rows that its owner may read, within a budget of his own, and ends where that is not
//! enough.

mod ask;
mod binding;
mod deliver;
mod filter;
mod follow;
mod lane;
mod penalty;
mod row;
mod subscribe;

pub(crate) use binding::{Binding, read};
pub(crate) use deliver::BEHIND;
pub(crate) use follow::{Follow, Followed};
pub(crate) use lane::{Lane, Wake};
pub(crate) use penalty::Penalties;
pub(crate) use subscribe::{Unsubscribed, subscribe};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use {
    filter::{Condition, Op, read as read_filter},
    follow::{Question, operator},
};
