//! Codex' screen, as seen with 0.169.0: `›` before the echo of a prompt on a band of its own colour, `•` before a
//! message or a tool call, `■` before an error, `Worked for …` at the end of a turn. The last `›` is the input box,
//! or the chosen line of a dialog. The first row may repeat the prompt of what is scrolled off.

use std::sync::LazyLock;

use regex::Regex;
use terminal::{Colour, PaintedRow};

use super::block::{Block, Item};
use super::draft::{Draft, Place, matches};
use super::text::{Line, blanks, indent_of, ink_at};

static END: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^(─ )?\s*Worked for <?[0-9]").ok());
/// `• Working (3s • esc to interrupt)` and the like.
static SPINS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[•◦] .*\(.*esc to interrupt\)").ok());
static TOOL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(Ran|Running|Explored|Exploring|Edited|Added|Deleted|Called|Calling|Updated Plan|Proposed|Viewed|Searched|You approved|✔|✗)\b?").ok()
});
/// The program's own words for a cancelled turn.
const INTERRUPTED: &str = "Conversation interrupted";

/// The conversation in blocks.
pub(super) fn blocks(rows: &[PaintedRow], cols: usize) -> Vec<Block> {
    let mut reading = Draft::new(cols, false);
    let end = rows
        .iter()
        .rposition(|row| row.text.starts_with('›'))
        .unwrap_or(rows.len());
    for row in &rows[..end] {
        take(&mut reading, row, &blanks(row));
    }
    reading.finish()
}

fn take(reading: &mut Draft, row: &PaintedRow, text: &str) {
    if let Some(prompt) = text.strip_prefix('›') {
        reading.begin_prompt(prompt.trim());
    } else if matches(&SPINS, text) {
        reading.close();
    } else if let Some(words) = text.strip_prefix("■ ") {
        if words.starts_with(INTERRUPTED) {
            reading.add_whole(Item::Interrupted, Place::Below);
        } else {
            let ink = ink_at(row, 1).map_or(Colour::Default, |style| style.fg);
            reading.begin(Place::Failure, Line::of(row, 2, ink));
        }
    } else if let Some(body) = text.strip_prefix("• ") {
        let bold = ink_at(row, 1).is_some_and(|style| style.bold);
        if bold && matches(&TOOL, body) {
            reading.add_whole(Item::Tool, Place::Below);
        } else {
            reading.begin(Place::Message, Line::of(row, 2, Colour::Default));
        }
    } else if matches(&END, text) && !text.starts_with(char::is_alphanumeric) {
        reading.close();
        reading.block().ended = true;
    } else {
        take_text(reading, row, text);
    }
}

fn take_text(reading: &mut Draft, row: &PaintedRow, text: &str) {
    let banded = row.style_at(0).is_some_and(|style| style.bg != Colour::Default);
    match reading.place {
        // The prompt's own rows have its band; what has none is the rest of an answer below the repeated prompt.
        Place::Prompt if banded || text.is_empty() => reading.prompt_goes_on(text.trim()),
        Place::Prompt if text.starts_with("  ") => {
            reading.begin(Place::Message, Line::of(row, 2, Colour::Default));
        }
        Place::Message if text.trim_start().starts_with('└') => reading.close(),
        Place::Message => reading
            .lines
            .push(Line::of(row, indent_of(text), Colour::Default)),
        Place::Failure if text.is_empty() => reading.close(),
        Place::Failure => {
            let ink = ink_at(row, 0).map_or(Colour::Default, |style| style.fg);
            reading.lines.push(Line::of(row, 0, ink));
        }
        _ => {}
    }
}
