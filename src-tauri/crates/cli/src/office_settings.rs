//! `semo office settings`: shows the settings that an office has for all its workstations, and changes them.

use provider::detect::OfficePatterns;
use serde_json::{Map, Value, json};

use crate::arguments::OfficeSettings;
use crate::exit::{Exit, Failure};
use crate::office::Office;
use crate::print::{self, out};
use crate::world::World;

/// Settings that hold lists: `a,b` is one, too.
const LISTS: [&str; 3] = ["warm_roles", "completion_patterns", "error_patterns"];

/// Runs the order.
pub async fn run(world: &World, order: &OfficeSettings) -> Result<Exit, Failure> {
    let changes = changes(&order.changes)?;
    check_patterns(&changes)?;
    let office = Office::open(world).await?;
    let row = if changes.is_empty() {
        office.row
    } else {
        office
            .rest
            .update_office_settings(office.row.id, &Value::Object(changes))
            .await
            .map_err(|error| refused(&error))?
    };
    if order.json {
        out!(
            "{}",
            json!({ "office": row.id, "name": row.name, "settings": row.settings })
        )?;
    } else {
        print::block(&in_words(&row.name, &row.settings))?;
    }
    Ok(Exit::Ok)
}

fn refused(error: &supabase::RestError) -> Failure {
    use supabase::RestError as E;
    let (exit, hint) = match error {
        E::Unreachable { .. } => (Exit::Unreachable, ""),
        E::Forbidden { .. } => (Exit::Failed, "Only an owner of the office changes its settings."),
        E::Rejected { .. } | E::Conflict { .. } => (Exit::Usage, "Nothing was changed."),
        E::NotFound { .. } => (
            Exit::Failed,
            "The office's database is older than this program; apply migrations/supabase to it.",
        ),
        E::Unauthorized { .. } | E::Malformed { .. } => (Exit::Failed, ""),
    };
    Failure {
        hint: hint.to_owned(),
        ..Failure::of(exit, error)
    }
}

/// `key=value` as JSON where it is JSON, a list where the setting is one, else a text; `key=` takes the setting away.
fn changes(arguments: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut changes = Map::new();
    for argument in arguments {
        let Some((key, value)) = argument.split_once('=') else {
            return Err(Failure::new(
                Exit::Usage,
                format!("`{argument}`: there is no `=`"),
                "Write key=value, or key= to take a setting away.",
            ));
        };
        let read: Option<Value> = serde_json::from_str(value).ok();
        let value = match read {
            _ if value.is_empty() => Value::Null,
            Some(list @ Value::Array(_)) => list,
            _ if LISTS.contains(&key) => value
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(Value::from)
                .collect(),
            Some(value) => value,
            None => Value::from(value),
        };
        changes.insert(key.to_owned(), value);
    }
    Ok(changes)
}

/// Refuses patterns that no workstation could use, before anybody gets them.
fn check_patterns(changes: &Map<String, Value>) -> Result<(), Failure> {
    let (_, faults) = OfficePatterns::parse(&Value::Object(changes.clone()));
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    if told.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, told.join("; "), "Nothing was changed."))
}

fn in_words(name: &str, settings: &Value) -> String {
    let mut lines = vec![format!("settings of {name}")];
    match settings.as_object() {
        Some(fields) if !fields.is_empty() => {
            lines.extend(fields.iter().map(|(key, value)| format!("  {key} = {value}")));
        }
        _ => lines.push("  none; each workstation uses its own".to_owned()),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_what_they_are() {
        let read = |text: &str| changes(&[text.to_owned()]).unwrap();
        assert_eq!(read("sessions_max=4")["sessions_max"], 4);
        assert_eq!(read("warm_roles=FE, QA")["warm_roles"], json!(["FE", "QA"]));
        assert_eq!(
            read(r#"error_patterns=["a,b","c"]"#)["error_patterns"],
            json!(["a,b", "c"])
        );
        assert_eq!(read("error_patterns=7")["error_patterns"], json!(["7"]));
        assert_eq!(read("idle_minutes=")["idle_minutes"], Value::Null);
        assert_eq!(read("idle_minutes=soon")["idle_minutes"], "soon");
        assert_eq!(changes(&["x".to_owned()]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused_before_it_is_sent() {
        let check = |text: &str| check_patterns(&changes(&[text.to_owned()]).unwrap());
        for text in [r#"completion_patterns=["(("]"#, r#"error_patterns=[".*"]"#] {
            let failure = check(text).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains("_patterns[0]"), "{}", failure.message);
        }
        for text in [
            r#"completion_patterns=["^Ready for review$"]"#,
            "completion_patterns=",
            "sessions_max=4",
        ] {
            assert!(check(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn settings_are_told_in_words() {
        assert!(in_words("Home", &json!({"sessions_max": 4})).contains("  sessions_max = 4\n"));
        assert!(in_words("Home", &json!({})).contains("none"));
    }
}
