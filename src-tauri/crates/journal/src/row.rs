//! Between columns and values: ids, times and JSON as they stand in the tables.

use domain::Timestamp;
use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a statement did not give what was asked for; made a [`crate::JournalError`] where the path is known.
pub(crate) enum Fault {
    /// The row with this id is not there.
    Unknown(String),
    /// A column holds what this program never writes.
    Malformed(String),
    /// More than this program keeps.
    TooMuch(String),
    /// SQLite refused.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

/// A column as it is.
pub(crate) fn get<T: FromSql>(row: &Row<'_>, column: &str) -> Result<T, Fault> {
    row.get(column).map_err(Fault::Sqlite)
}

/// A text column read as an id or a phase.
pub(crate) fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: &str) -> Result<T, Fault> {
    let text: String = get(row, column)?;
    text.parse()
        .map_err(|_| Fault::Malformed(format!("column {column} holds `{text}`")))
}

/// Like [`parsed`], for a column that may be null.
pub(crate) fn parsed_option<T: std::str::FromStr>(row: &Row<'_>, column: &str) -> Result<Option<T>, Fault> {
    let text: Option<String> = get(row, column)?;
    text.map(|text| {
        text.parse()
            .map_err(|_| Fault::Malformed(format!("column {column} holds `{text}`")))
    })
    .transpose()
}

/// A JSON text column that may be null.
pub(crate) fn json_option<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<Option<T>, Fault> {
    let text: Option<String> = get(row, column)?;
    text.map(|text| {
        serde_json::from_str(&text).map_err(|error| Fault::Malformed(format!("column {column}: {error}")))
    })
    .transpose()
}

/// A JSON text column.
pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Fault> {
    json_option(row, column)?.ok_or_else(|| Fault::Malformed(format!("column {column} is null")))
}

/// A time column.
pub(crate) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, Fault> {
    get(row, column).map(Timestamp)
}

/// A time column that may be null.
pub(crate) fn time_option(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, Fault> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp))
}

/// The text of a value that has a JSON form.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::Malformed(error.to_string()))
}

/// The text of an optional JSON value.
pub(crate) fn text_of(value: Option<&Value>) -> Option<String> {
    value.map(Value::to_string)
}

/// Reads every row of a statement with `read`.
pub(crate) fn all<T>(
    statement: &mut rusqlite::Statement<'_>,
    parameters: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}
