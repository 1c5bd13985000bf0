//! Finding the input box. How a program draws it is told by its manifest; four shapes cover those that were measured.

use std::ops::Range;

use super::frame::{Frame, RuleSign};
use super::matcher::Condition;
use super::meaning::InputBox;

/// How an input box looks.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A prompt row right below a rule, and another rule below it.
    BetweenRules(RuleSign),
    /// The lowest row that begins with a prompt; what follows is blank or indented, and the cursor is in it. Its
    /// footer stands below the last blank row.
    PromptRow,
    /// The lowest run of rows that begin with a bar, with the cursor in it; so many of its last rows are a label.
    Bar {
        /// Rows below the text that belong to the box but are not text.
        label_rows: usize,
    },
    /// No box at all: the row of a visible cursor, with nothing below it.
    CursorRow,
}

/// One way in which a program draws its input box.
#[derive(Debug, Clone)]
pub(super) struct BoxSign {
    pub(super) shape: Shape,
    /// What its first row begins with: exactly, blanks included.
    pub(super) prompts: Vec<String>,
    /// Rows below the box that are not blank, at most. More of them, and it is no input box.
    pub(super) footer_rows_max: usize,
    /// Grey texts of an empty box, by their beginnings. Only believed while the cursor waits in front of them.
    pub(super) placeholders: Vec<String>,
    /// Any of these: nothing was typed.
    pub(super) empty: Vec<Condition>,
    /// Where there are any: one of these, or it is no input box.
    pub(super) when: Vec<Condition>,
    /// Any of these: it is no input box.
    pub(super) unless: Vec<Condition>,
}

/// An input box on a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    /// First row that belongs to it, its rule included.
    pub(super) top: usize,
    /// The rows with its text.
    pub(super) inside: Range<usize>,
    /// First row below it.
    pub(super) footer: usize,
    /// Column where text begins in its first row.
    text_col: usize,
    /// The text in it, rows joined by line feeds.
    text: String,
    /// Which of the manifest's boxes it is.
    pub(super) sign: usize,
}

impl BoxSign {
    /// Where this box is on the screen.
    pub(super) fn locate(&self, frame: &Frame<'_>, sign: usize) -> Option<Located> {
        let rows = frame.rows();
        let found = match &self.shape {
            Shape::BetweenRules(rule) => self.between_rules(rows, rule),
            Shape::PromptRow => self.prompt_row(rows, usize::from(frame.screen.cursor.row)),
            Shape::Bar { label_rows } => self.bar(rows, usize::from(frame.screen.cursor.row), *label_rows),
            Shape::CursorRow => self.cursor_row(frame),
        }?;
        let below = rows[found.footer..].iter().filter(|row| !is_blank(row)).count();
        let found = Located { sign, ..found };
        (below <= self.footer_rows_max).then_some(found)
    }

    /// The lowest pair of rules with a prompt row right below the upper one.
    fn between_rules(&self, rows: &[String], rule: &RuleSign) -> Option<Located> {
        let bottom = rows.iter().rposition(|row| rule.is_rule(row))?;
        let top = rows[..bottom].iter().rposition(|row| rule.is_rule(row))?;
        let prompt = self.prompt_of(rows.get(top + 1).filter(|_| top + 1 < bottom)?)?;
        Some(Located {
            top,
            inside: top + 1..bottom,
            footer: bottom + 1,
            text_col: prompt.chars().count() + 1,
            text: text_behind(&rows[top + 1..bottom], prompt),
            sign: 0,
        })
    }

    fn prompt_row(&self, rows: &[String], cursor: usize) -> Option<Located> {
        let top = rows.iter().rposition(|row| self.prompt_of(row).is_some())?;
        let prompt = self.prompt_of(&rows[top])?;
        let end = rows.iter().rposition(|row| !is_blank(row))? + 1;
        if rows[top + 1..end]
            .iter()
            .any(|row| !row.is_empty() && !row.starts_with(' '))
        {
            return None;
        }
        let footer = (top + 1..end)
            .rev()
            .find(|at| is_blank(&rows[*at]))
            .unwrap_or(end);
        (top..footer).contains(&cursor).then(|| Located {
            top,
            inside: top..footer,
            footer,
            text_col: prompt.chars().count(),
            text: text_behind(&rows[top..footer], prompt),
            sign: 0,
        })
    }

    fn bar(&self, rows: &[String], cursor: usize, label_rows: usize) -> Option<Located> {
        let barred = |row: &str| {
            let shown = row.trim_start();
            self.prompts
                .iter()
                .find(|prompt| shown.starts_with(prompt.as_str()))
        };
        let bottom = rows.iter().rposition(|row| barred(row).is_some())?;
        let above = rows[..bottom].iter().rposition(|row| barred(row).is_none());
        let top = above.map_or(0, |above| above + 1);
        let inside = top..(bottom + 1).saturating_sub(label_rows).max(top);
        if !inside.contains(&cursor) {
            return None;
        }
        let texts = rows[inside.clone()].iter().map(|row| {
            let shown = row.trim_start();
            let glyph = barred(row).map_or(0, String::len);
            shown[glyph..].trim()
        });
        let texts: Vec<&str> = texts.skip_while(|text| text.is_empty()).collect();
        let first = rows[inside.clone()].iter().find(|row| {
            let glyph = barred(row).map_or(0, String::len);
            !row.trim_start()[glyph..].trim().is_empty()
        });
        // Where the first text stands; a placeholder has the cursor right there.
        let text_col = first.map_or(0, |row| {
            let indent = row.chars().take_while(|c| c.is_whitespace()).count();
            let behind = row
                .chars()
                .skip(indent + 1)
                .take_while(|c| c.is_whitespace())
                .count();
            indent + 1 + behind
        });
        Some(Located {
            top,
            inside,
            footer: bottom + 1,
            text_col,
            text: texts.join("\n").trim().to_owned(),
            sign: 0,
        })
    }

    /// The part of the cursor's row left of it: what is right of it may be left from what stood there before.
    fn cursor_row(&self, frame: &Frame<'_>) -> Option<Located> {
        let cursor = &frame.screen.cursor;
        let rows = frame.rows();
        let row = usize::from(cursor.row);
        let last = rows.iter().rposition(|row| !is_blank(row))?;
        if !cursor.visible || row < last || row >= rows.len() || row == 0 {
            return None;
        }
        let left: String = rows[row].chars().take(usize::from(cursor.col)).collect();
        let prompt = self
            .prompts
            .iter()
            .find(|prompt| left.starts_with(prompt.as_str()));
        let text = prompt.map_or(left.as_str(), |prompt| &left[prompt.len()..]);
        Some(Located {
            top: row,
            inside: row..row + 1,
            footer: row + 1,
            text_col: prompt.map_or(0, |prompt| prompt.chars().count()),
            text: text.trim().to_owned(),
            sign: 0,
        })
    }

    /// The prompt that a row begins with.
    fn prompt_of(&self, row: &str) -> Option<&str> {
        let begins = |prompt: &&String| row.starts_with(prompt.as_str()) || row == prompt.trim_end();
        self.prompts.iter().find(begins).map(String::as_str)
    }

    /// What is in the box.
    pub(super) fn read(&self, frame: &Frame<'_>, found: &Located) -> InputBox {
        let text = found.text.clone();
        let cursor = &frame.screen.cursor;
        let at_start = found.inside.contains(&usize::from(cursor.row))
            && usize::from(cursor.col) <= found.text_col
            && self
                .placeholders
                .iter()
                .any(|grey| text.starts_with(grey.as_str()));
        let empty = text.is_empty() || at_start || self.empty.iter().any(|sign| sign.find(frame).is_some());
        InputBox { text, empty }
    }
}

fn text_behind(rows: &[String], prompt: &str) -> String {
    let mut lines = rows.iter().enumerate().map(|(at, row)| {
        let row = if at == 0 {
            row.strip_prefix(prompt).unwrap_or(row)
        } else {
            row
        };
        row.trim()
    });
    let first = lines.next().unwrap_or_default();
    // A prompt that ends in a blank is cut off at the end of an empty row.
    let first = if first == prompt.trim() { "" } else { first };
    let text: Vec<&str> = std::iter::once(first).chain(lines).collect();
    text.join("\n").trim().to_owned()
}

fn is_blank(row: &str) -> bool {
    row.trim().is_empty()
}
