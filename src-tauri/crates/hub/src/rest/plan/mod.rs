//! From the tree of a query and the schema to what is to be done, with every name checked.
//!
//! Pure: no database is asked. After this no text of a client is left that could become SQL: names are from the
//! schema, everything else is a value. Called by `routes`; `sql` writes the result down.

mod call;
mod change;
mod levels;
mod node;
mod read;
mod relation;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod sample;
#[cfg(test)]
mod tests;

pub(super) use self::call::{Arguments, Call, Given, choose};
pub(super) use self::change::{Change, Conflict, Resolution, Returning, Wanted, change};
pub(super) use self::node::{By, Cell, Condition, Node, OrderBy, Show, Source};
pub(super) use self::read::{ROWS_MAX, Root, read};
pub(super) use self::relation::no_table;
