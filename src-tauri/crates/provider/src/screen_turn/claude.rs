//! Claude Code's two painted renderers (main screen and full screen), as seen with 2.1.197.
//!
//! Everything of the program's own begins at the left edge: `❯` before the echo of a prompt, `●` before a message or
//! a tool call, `✻` before the spinner and the end of a turn, rules around the input box. What an agent writes is
//! indented by two cells below its `●`, so a quotation of such a row is not taken for one.

use std::sync::LazyLock;

use regex::Regex;
use terminal::{Colour, PaintedRow};

use super::block::{Block, Item};
use super::draft::{Draft, Place, matches};
use super::text::{Line, blanks, indent_of, ink_at};

/// Shortest run of `─` that makes a rule, in cells.
const RULE_CELLS_MIN: usize = 8;
/// Before a message or a tool call; the second one on macOS.
const BULLETS: [char; 2] = ['●', '⏺'];
/// Frames of the spinner, which also stands before the end of a turn.
const SPINNER: &str = "[·✢✳✶✻✽*∗+]";
/// Below a tool call, and before a row of the program's own.
const ELBOW: &str = "  ⎿";

/// Beginnings of error rows that stand where a message would. The program paints every text with such a beginning
/// as an error, also an agent's.
const ERRORS_AS_MESSAGES: &[&str] = &["API Error", "Please run /login", "Request too large (max"];
/// Beginnings of error rows below the prompt, for terminals without colours.
const ERRORS_BELOW: &[&str] = &[
    "API Error",
    "Credit balance",
    "Invalid API key",
    "Not logged in",
    "Please run /login",
    "Prompt is too long",
    "You've hit your",
    "You've reached your",
    "Unable to connect",
    "Your organization",
    "OAuth token",
];
/// Beginnings of the program's own words for a turn that a person ended.
const INTERRUPTED: &[&str] = &["Interrupted", "User rejected", "User declined"];
/// A stop hook wanted more than the program allows.
const OVERRULED: &str = "A hook blocked the turn from ending";

static END: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(
        r"^{SPINNER} \p{{L}}[\p{{L}}-]* for( [0-9]+[dhms]\b.*)?$"
    ))
    .ok()
});
static SPINS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"^{SPINNER} .*…( *\(.*)?$")).ok());
static RETRIES: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"^{SPINNER} .*Retrying in ")).ok());
static TOOL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[A-Z][\w .:-]*\(").ok());
static HOOKS_RAN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^Ran [0-9]+ [\w ]*hooks?\b").ok());
static CHOICE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^❯ [0-9]+\. ").ok());

/// The conversation in blocks.
pub(super) fn blocks(rows: &[PaintedRow], cols: usize) -> Vec<Block> {
    let mut styles = rows.iter().flat_map(|row| &row.runs).map(|run| run.style);
    let colours = styles.any(|style| style.fg != Colour::Default);
    let mut reading = Reading {
        draft: Draft::new(cols, !colours),
        colours,
    };
    let texts: Vec<String> = rows.iter().map(blanks).collect();
    for (index, (row, text)) in rows.iter().zip(&texts).enumerate() {
        let above = index.checked_sub(1).map_or("", |above| texts[above].as_str());
        let below = texts[index + 1..].iter().find(|text| !text.is_empty());
        reading.take(row, text, above, below.map_or("", String::as_str));
    }
    let mut blocks = reading.draft.finish();
    // Rows above the first echo are the tail of an answer only when the program says that it ended there.
    let is_tail = |block: &Block| block.prompt.is_some() || block.is_over();
    blocks.retain(is_tail);
    blocks
}

struct Reading {
    draft: Draft,
    /// Whether there are colours at all.
    colours: bool,
}

impl Reading {
    /// Takes in one row; `above` is the row before it, `below` the next one that is not blank.
    fn take(&mut self, row: &PaintedRow, text: &str, above: &str, below: &str) {
        let draft = &mut self.draft;
        if is_rule(text) {
            draft.close();
            draft.place = match draft.place {
                Place::Box => Place::Outside,
                _ if below.starts_with(['❯', '!']) && !matches(&CHOICE, below) => Place::Box,
                _ => Place::Outside,
            };
            return;
        }
        if draft.place == Place::Box {
            return;
        }
        if is_echo(row, text, draft.place) {
            draft.begin_prompt(text.trim_start_matches('❯').trim());
        } else if draft.place == Place::Outside {
            // A footer or a dialog: what follows is conversation again only after an echo.
        } else if text.starts_with(BULLETS) {
            self.bullet(row, text, below);
        } else if matches(&END, text) {
            draft.close();
            draft.block().ended = true;
        } else if matches(&RETRIES, text) {
            draft.close();
        } else if matches(&SPINS, text) {
            // It may stand in the middle of a message for good, where emulators disagree about a wide character.
        } else if text.starts_with(ELBOW) && self.is_own(row, text) {
            self.elbow(row, text, above);
        } else {
            self.text(row, text);
        }
    }

    fn bullet(&mut self, row: &PaintedRow, text: &str, below: &str) {
        let draft = &mut self.draft;
        let body = text.chars().skip(1).collect::<String>();
        let body = body.trim();
        let bold = ink_at(row, 1).is_some_and(|style| style.bold);
        if ERRORS_AS_MESSAGES.iter().any(|error| body.starts_with(error)) {
            // An error has a colour of its own, which is no decoration.
            let ink = ink_at(row, 1).map_or(Colour::Default, |style| style.fg);
            draft.begin(Place::Failure, Line::of(row, 2, ink));
        } else if is_interrupt(body) && below.starts_with(ELBOW) && row.text.chars().nth(1) == Some('\u{a0}')
        {
            // With a no-break space, which a message has not: questions that were left unanswered.
            draft.add_whole(Item::Interrupted, Place::Below);
        } else if body.starts_with(OVERRULED) {
            draft.add_whole(Item::Overruled, Place::Below);
        } else if matches(&HOOKS_RAN, body) && below.starts_with(ELBOW) {
            draft.go_to(Place::Below);
        } else if matches(&TOOL, body) && (bold || below.starts_with(ELBOW))
            || bold && below.starts_with(ELBOW)
        {
            draft.add_whole(Item::Tool, Place::Tool);
        } else {
            draft.begin(Place::Message, Line::of(row, 2, Colour::Default));
        }
    }

    /// A row below a tool call, or a row of the program's own below the prompt.
    fn elbow(&mut self, row: &PaintedRow, text: &str, above: &str) {
        let draft = &mut self.draft;
        let body = text.trim_start_matches(ELBOW).trim();
        let gutter = ink_at(row, 2).unwrap_or_default();
        let ink = ink_at(row, 3).unwrap_or_default();
        if is_interrupt(body) {
            return draft.add_whole(Item::Interrupted, Place::Below);
        }
        // What a tool printed stands right below its call.
        if !above.trim().is_empty() && draft.place == Place::Tool {
            return;
        }
        let known = ERRORS_BELOW.iter().any(|error| body.starts_with(error));
        let coloured = ink.fg != gutter.fg && ink.fg != Colour::Default;
        draft.go_to(Place::Below);
        if known && (coloured || !self.colours) || coloured && draft.block().items.is_empty() {
            draft.begin(Place::Failure, Line::of(row, 5, ink.fg));
        }
    }

    /// Whether a row with an elbow is the program's own and not part of a message. Where there are no colours, only
    /// the note of an interruption is believed.
    fn is_own(&self, row: &PaintedRow, text: &str) -> bool {
        let coloured = ink_at(row, 2).is_some_and(|style| style.fg != Colour::Default);
        let told = is_interrupt(text.trim_start_matches(ELBOW).trim_start());
        self.draft.place != Place::Message || coloured || !self.colours && told
    }

    fn text(&mut self, row: &PaintedRow, text: &str) {
        let goes_on = text.is_empty() || self.is_prompt(row, text);
        let draft = &mut self.draft;
        match draft.place {
            Place::Prompt if goes_on => draft.prompt_goes_on(text.trim()),
            Place::Prompt => draft.close(),
            Place::Message => draft.lines.push(Line::of(row, indent_of(text), Colour::Default)),
            Place::Failure => {
                let ink = ink_at(row, 0).map_or(Colour::Default, |style| style.fg);
                draft.lines.push(Line::of(row, indent_of(text), ink));
            }
            // The rest of an answer whose beginning is out of reach.
            Place::Between if draft.blocks.is_empty() && text.starts_with("  ") => {
                draft.begin(Place::Message, Line::of(row, 2, Colour::Default));
            }
            Place::Between | Place::Tool | Place::Below | Place::Box | Place::Outside => {}
        }
    }

    /// Whether a row goes on with the prompt above it: it stands on the echo's band, or, without colours, is indented
    /// like it.
    fn is_prompt(&self, row: &PaintedRow, text: &str) -> bool {
        let banded = row.style_at(0).is_some_and(|style| style.bg != Colour::Default);
        let indent = text.len() - text.trim_start().len();
        banded || !self.colours && (1..=self.draft.cols / 2).contains(&indent)
    }
}

/// A rule of the input box or of a dialog; the upper one may carry the session's name at its end.
fn is_rule(text: &str) -> bool {
    text.chars().take_while(|c| *c == '─').count() >= RULE_CELLS_MIN
}

/// The echo of a prompt, or of a shell line. In a dialog, a choice at the left edge looks the same but for the
/// colour behind it.
fn is_echo(row: &PaintedRow, text: &str, place: Place) -> bool {
    let begins = text.starts_with("❯ ") || text.starts_with("! ") || text == "❯";
    let banded = row.style_at(0).is_some_and(|style| style.bg != Colour::Default);
    begins && (banded || place != Place::Outside || !matches(&CHOICE, text))
}

fn is_interrupt(body: &str) -> bool {
    INTERRUPTED.iter().any(|words| body.starts_with(words))
}
