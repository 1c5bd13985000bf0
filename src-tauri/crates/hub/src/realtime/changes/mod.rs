//! postgres_changes: what a channel asked for, and who may be told about a changed row.
//!
//! A change is told only to roles that can read the row at that moment, and only with columns they may read; for a
//! DELETE there is no row to check, so where row level security holds it carries the primary key alone. Rows are
//! captured by triggers within the transaction that changes them: what is rolled back was never told.

mod binding;
mod deliver;
mod filter;
mod follow;
mod row;
mod subscribe;

pub(crate) use binding::{Binding, read};
pub(crate) use deliver::deliver;
pub(crate) use follow::Follow;
pub(crate) use subscribe::{Unsubscribed, subscribe};

#[cfg(feature = "fuzzing")]
pub(crate) use filter::read as read_filter;
