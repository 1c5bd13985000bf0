//! Whether the dialog on a screen is the one of an ask, so that a key may be pressed in it for a person far away.
//!
//! Only the dialog's own rows count: those between its rule and its choices. Above stand other commands, in the
//! agent's words. A command is compared word by word and to its end. Pure. Called by `held` alone.

use std::path::Path;

use domain::ask::PendingAsk;
use domain::session::Ask;
use provider::detect::Dialog;
use serde_json::Value;

/// Cells of a rule from the left edge; what agents write is indented.
const RULE_CELLS_MIN: usize = 4;
/// Above a command, in the permission dialog of a shell.
const SHELL_HEADING: &str = "Bash command";
/// How the heading ends in the permission dialog of a file: "Create file", "Edit file".
const FILE_HEADING: &str = " file";
/// What the program may add below a command.
const NOTICES: &[&str] = &["This command requires approval"];
/// What it says below an address that is to be fetched.
const FETCH_NOTICE: &str = "Claude wants to fetch content from";
/// Signs around the heading of a question.
const TICKS: &[char] = &['☐', '☒', '✔', '←', '→'];

/// What a dialog is to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is the ask's own, whole.
    Its,
    /// It is about something else for certain.
    Another,
    /// It is cut, or cannot be told from another one.
    Unclear,
}

/// A dialog, taken apart.
struct Shown<'a> {
    heading: &'a str,
    /// Between the heading and what is asked of the person.
    body: &'a [String],
    /// From the first choice on.
    choices: &'a [String],
}

/// What the dialog on the screen is to this ask.
pub(crate) fn sight(rows: &[String], dialog: Dialog, ask: &PendingAsk, input: &Value) -> Sight {
    match (ask.kind, dialog) {
        (Ask::Permission, Dialog::Permission) => permission(rows, input),
        (Ask::Question, Dialog::Question) => question(rows, input),
        (Ask::Permission, Dialog::Question) | (Ask::Question, Dialog::Permission) => Sight::Another,
        _ => Sight::Unclear,
    }
}

/// What identifies the dialog on a screen, whatever the width of its rows: its heading, its body and its choices. None
/// where it is not there whole.
pub(crate) fn essence(rows: &[String]) -> Option<String> {
    let shown = Shown::of(rows)?;
    let choices = shown.choices.split(|row| row.trim().is_empty()).next()?;
    let body = shown.body.iter().filter(|row| !is_line(row));
    let parts = body.chain(choices).map(|row| squeezed(&row.replace('❯', "")));
    Some(format!(
        "{}\n{}",
        squeezed(shown.heading),
        parts.collect::<String>()
    ))
}

/// Whether the dialog on the screen is the one that was kept, see [`essence`].
pub(crate) fn is_same(rows: &[String], kept: &str) -> bool {
    essence(rows).as_deref() == Some(kept)
}

/// Whether the dialog asks for the very file that the ask names: below its heading stands the file's path, and nothing
/// else in its row.
pub(crate) fn asks_for_file(rows: &[String], input: &Value, worktree: &Path) -> bool {
    let (Some(shown), Some(file)) = (Shown::of(rows), input["file_path"].as_str()) else {
        return false;
    };
    let named = shown.body.iter().find(|row| !row.trim().is_empty());
    let named = named.map_or("", |row| row.trim());
    let of_file = shown.heading.ends_with(FILE_HEADING) && input["command"].is_null();
    of_file && !named.is_empty() && !file.is_empty() && worktree.join(named) == worktree.join(file)
}

/// Whether the choice with this number (from 0) carries this text.
pub(crate) fn offers(rows: &[String], number: usize, label: &str) -> bool {
    let Some(shown) = Shown::of(rows) else {
        return false;
    };
    let sign = format!("{}.", number + 1);
    let its = |row: &&String| choice_of(row).is_some_and(|choice| choice.starts_with(&sign));
    let wanted = squeezed(&format!("{sign}{label}"));
    shown
        .choices
        .iter()
        .position(|row| its(&row))
        .is_some_and(|at| squeezed(&shown.choices[at..].concat().replace('❯', "")).starts_with(&wanted))
}

impl<'a> Shown<'a> {
    fn of(rows: &'a [String]) -> Option<Shown<'a>> {
        let first = rows
            .iter()
            .rposition(|row| choice_of(row).is_some_and(|choice| choice.starts_with("1. ")))?;
        let rule = rows[..first].iter().rposition(|row| is_rule(row))?;
        let above = &rows[rule + 1..first];
        let heading = above.iter().position(|row| !row.trim().is_empty())?;
        Some(Shown {
            heading: above[heading].trim(),
            body: &above[heading + 1..],
            choices: &rows[first..],
        })
    }
}

fn permission(rows: &[String], input: &Value) -> Sight {
    let Some(shown) = Shown::of(rows) else {
        return Sight::Unclear;
    };
    let is_shell = shown.heading.starts_with(SHELL_HEADING);
    // Commands are indented further.
    let asks = |row: &String| row.starts_with(" Do you want to ") || row.starts_with("Do you want to ");
    let Some(end) = shown.body.iter().rposition(asks) else {
        return Sight::Unclear;
    };
    let body = &shown.body[..end];
    if let Some(command) = input["command"].as_str() {
        if !is_shell {
            return Sight::Another;
        }
        return match after(body, command) {
            Ok(rest) if is_known(rest, input["description"].as_str().unwrap_or_default()) => Sight::Its,
            Ok(_) => Sight::Unclear,
            Err(clear) if clear && !command.chars().any(|c| c.is_control() && c != '\n') => Sight::Another,
            Err(_) => Sight::Unclear,
        };
    }
    if is_shell {
        return Sight::Another;
    }
    match input["url"].as_str().map(|url| after(body, url)) {
        Some(Ok(rest)) if words(rest).join(" ").starts_with(FETCH_NOTICE) => Sight::Its,
        // Of a file only the name would be compared, and a part of what goes into it.
        _ => Sight::Unclear,
    }
}

/// What stands below the whole text. The error says whether already the first row is another one's.
fn after<'a>(body: &'a [String], text: &str) -> Result<&'a [String], bool> {
    let mut rows = body.iter().enumerate().filter(|(_, row)| !row.trim().is_empty());
    let (mut end, mut first) = (0, true);
    for line in text.lines() {
        let wanted: Vec<&str> = line.split_whitespace().collect();
        let (mut at, mut within) = (0, 0);
        while at < wanted.len() {
            let Some((number, row)) = rows.next() else {
                return Err(false);
            };
            let mut shown = row.split_whitespace().peekable();
            while let Some(word) = shown.next() {
                let rest = wanted.get(at).map(|wanted| &wanted[within..]);
                match rest {
                    Some(rest) if rest == word => (at, within) = (at + 1, 0),
                    // The row ends within a long word.
                    Some(rest) if shown.peek().is_none() && rest.starts_with(word) => within += word.len(),
                    _ => return Err(first && !row.contains('…')),
                }
            }
            (end, first) = (number + 1, false);
        }
    }
    match first {
        true => Err(false),
        false => Ok(&body[end..]),
    }
}

/// Whether what stands below a command is its description and what the program adds: nothing of a longer command.
fn is_known(rest: &[String], description: &str) -> bool {
    let rest = words(rest).join(" ");
    let description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    let behind = |rest: &str| rest.is_empty() || NOTICES.contains(&rest);
    behind(&rest)
        || rest
            .strip_prefix(&description)
            .is_some_and(|rest| behind(rest.trim_start()))
}

fn question(rows: &[String], input: &Value) -> Sight {
    let (Some(shown), [asked]) = (
        Shown::of(rows),
        input["questions"].as_array().map_or(&[][..], Vec::as_slice),
    ) else {
        return Sight::Unclear;
    };
    let heading = squeezed(shown.heading.trim_matches(TICKS));
    let body = squeezed(&shown.body.concat());
    let text = squeezed(asked["question"].as_str().unwrap_or_default());
    let header = squeezed(asked["header"].as_str().unwrap_or_default());
    match !text.is_empty() && body == text && (header.is_empty() || heading == header) {
        true => Sight::Its,
        false if body.contains('…') || text.starts_with(&body) || body.contains(&text) => Sight::Unclear,
        false => Sight::Another,
    }
}

/// A row that may be a choice, without the sign of the chosen one.
fn choice_of(row: &str) -> Option<&str> {
    let row = row.trim_start();
    Some(row.strip_prefix('❯').unwrap_or(row).trim_start()).filter(|row| !row.is_empty())
}

/// A line between the parts of a dialog: as long as the screen is wide.
fn is_line(row: &str) -> bool {
    row.trim().chars().all(|c| matches!(c, '╌' | '┄' | '─'))
}

fn is_rule(row: &str) -> bool {
    row.chars().take_while(|c| matches!(c, '─' | '▔')).count() >= RULE_CELLS_MIN
}

fn words(rows: &[String]) -> Vec<&str> {
    rows.iter().flat_map(|row| row.split_whitespace()).collect()
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use domain::{AskId, SessionId, Timestamp};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const RULE: &str = "────────────────────────────────────────";

    fn pending(kind: Ask) -> PendingAsk {
        PendingAsk {
            id: AskId(Uuid::nil()),
            session: SessionId(Uuid::nil()),
            turn: None,
            kind,
            tool: None,
            text: String::new(),
            choices: Vec::new(),
            asked_at: Timestamp(0),
            at_terminal: false,
        }
    }

    /// The dialog of a command, below the row of another one that still waits.
    fn dialog(above: &str, command: &[&str]) -> Vec<String> {
        let above = format!("● Bash({above})");
        let mut rows = vec![above.as_str(), "  ⎿  Waiting…", "", RULE, " Bash command", ""];
        let command: Vec<String> = command.iter().map(|row| format!("   {row}")).collect();
        rows.extend(command.iter().map(String::as_str));
        rows.extend([
            "",
            " Do you want to proceed?",
            " ❯ 1. Yes",
            "   2. Yes, always",
            "   3. No",
        ]);
        rows.into_iter().map(str::to_owned).collect()
    }

    fn seen(rows: &[String], input: Value) -> Sight {
        sight(rows, Dialog::Permission, &pending(Ask::Permission), &input)
    }

    #[test]
    fn a_command_above_the_dialog_is_not_the_one_that_is_asked_about() {
        let rows = dialog("rm -rf build", &["curl example.test | sh", "Fetch it"]);
        assert_eq!(seen(&rows, json!({"command": "rm -rf build"})), Sight::Another);
        let its = json!({"command": "curl example.test | sh", "description": "Fetch it"});
        assert_eq!(seen(&rows, its), Sight::Its);
        assert_eq!(seen(&rows, json!({"file_path": "/w/x.txt"})), Sight::Another);
    }

    #[test]
    fn a_command_is_compared_to_its_end_and_word_by_word() {
        let ask = json!({"command": "rm -rf build", "description": "Tidy up"});
        assert_eq!(
            seen(&dialog("", &["rm -rf build", "Tidy up"]), ask.clone()),
            Sight::Its
        );
        for other in [
            &["rm -rf build-all", "Tidy up"][..],
            &["rm -rf build", "/", "Tidy up"],
            &["rm -rf build /", "Tidy up"],
            &["rm -rfbuild", "Tidy up"],
            &["rm -rf build", "rm -rf /", "Tidy up"],
            &["rm -rf bu…", "Tidy up"],
            &["rm -rf"],
        ] {
            assert_ne!(
                seen(&dialog("rm -rf build", other), ask.clone()),
                Sight::Its,
                "{other:?}"
            );
        }
        // A description that would make another command of it stands in a row of its own.
        let disguised = json!({"command": "rm -rf build", "description": "-all"});
        assert_ne!(seen(&dialog("", &["rm -rf build -all"]), disguised), Sight::Its);
    }

    #[test]
    fn a_wrapped_command_is_known_and_a_dialog_whose_top_is_out_of_sight_is_not() {
        let ask = json!({"command": "echo a-very-long-word and more\nsecond line"});
        let rows = dialog("", &["echo a-very-lo", "ng-word and", "more", "second line"]);
        assert_eq!(seen(&rows, ask.clone()), Sight::Its);
        let noticed = dialog("", &["ls", "This command requires approval"]);
        assert_eq!(seen(&noticed, json!({"command": "ls"})), Sight::Its);
        assert_eq!(seen(&rows[4..], ask), Sight::Unclear, "its rule is not there");
        assert_eq!(seen(&dialog("", &[]), json!({"command": ""})), Sight::Unclear);
    }

    /// The dialog of a file, in a terminal of this many columns.
    fn file_dialog(file: &str, content: &[&str], columns: usize) -> Vec<String> {
        let text = content
            .iter()
            .enumerate()
            .map(|(at, row)| format!("  {} {row}", at + 1));
        let mut rows = vec!["● Write(other.txt)".to_owned(), "─".repeat(columns)];
        rows.extend([" Create file".to_owned(), format!(" {file}"), "╌".repeat(columns)]);
        rows.extend(text);
        rows.push("╌".repeat(columns));
        rows.push(format!(" Do you want to create {file}?"));
        let below = [
            " ❯ 1. Yes",
            "   2. Yes, and all edits",
            "   3. No",
            "",
            " Esc to cancel",
        ];
        rows.extend(below.map(str::to_owned));
        rows
    }

    #[test]
    fn the_dialog_of_a_file_is_the_one_that_was_kept_as_long_as_nothing_of_it_changes() {
        let rows = file_dialog("y.txt", &["hello", "world"], 80);
        let kept = essence(&rows).unwrap();
        assert!(is_same(&rows, &kept));
        assert!(
            is_same(&file_dialog("y.txt", &["hello", "world"], 120), &kept),
            "wider"
        );
        let chosen: Vec<String> = rows
            .iter()
            .map(|row| row.replace("❯ 1.", "  1.").replace("  3.", "❯ 3."))
            .collect();
        assert!(is_same(&chosen, &kept), "a person has moved down in it");
        assert!(!is_same(&file_dialog("z.txt", &["hello", "world"], 80), &kept));
        assert!(!is_same(&file_dialog("y.txt", &["hello", "word"], 80), &kept));
        assert!(!is_same(
            &file_dialog("y.txt", &["hello", "world", "more"], 80),
            &kept
        ));
        assert!(!is_same(&dialog("", &["rm -rf build"]), &kept));
        assert!(!is_same(&rows[2..], &kept), "its rule is not there");
        assert_eq!(essence(&rows[..8]), None, "its choices are not there");
    }

    #[test]
    fn a_file_is_asked_for_by_its_whole_path() {
        let rows = file_dialog("sub/y.txt", &["hello"], 80);
        let asks =
            |rows: &[String], file: &str| asks_for_file(rows, &json!({ "file_path": file }), "/w".as_ref());
        assert!(asks(&rows, "sub/y.txt") && asks(&rows, "/w/sub/y.txt"));
        assert!(!asks(&rows, "y.txt") && !asks(&rows, "/v/sub/y.txt") && !asks(&rows, ""));
        assert!(!asks_for_file(&rows, &Value::Null, "/w".as_ref()));
        assert!(!asks(&dialog("", &["y.txt"]), "y.txt"), "a command of that name");
    }

    #[test]
    fn a_question_is_recognised_with_its_heading_also_when_it_is_wrapped() {
        let input = json!({"questions": [{"question": "Which one?", "header": "Database",
            "options": [{"label": "A"}, {"label": "B"}]}]});
        let rows = |text: &str| {
            format!("{RULE}\n{text}")
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let seen = |text: &str| sight(&rows(text), Dialog::Question, &pending(Ask::Question), &input);
        let shown = " ☐ Database\n\nWhich\none?\n\n❯ 1. A\n     first\n  2. B\n  3. Type something.";
        assert_eq!(seen(shown), Sight::Its);
        assert!(
            offers(&rows(shown), 1, "B") && !offers(&rows(shown), 1, "A") && !offers(&rows(shown), 4, "A")
        );
        assert_eq!(
            seen(" ☐ Folder\n\nDelete everything?\n\n❯ 1. Yes"),
            Sight::Another
        );
        assert_eq!(seen(" ☐ Folder\n\nWhich one?\n\n❯ 1. A"), Sight::Unclear);
        let permission = sight(&rows(shown), Dialog::Permission, &pending(Ask::Question), &input);
        assert_eq!(permission, Sight::Another);
    }
}
