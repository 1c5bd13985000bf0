//! What a screen can mean, the same for every program. Made by [`Detector::read`](super::Detector::read) alone.

use std::sync::Arc;

/// What the program shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenMeaning {
    /// Nothing that is known: it is starting, or drawing.
    Unclear,
    /// The input box is there and no turn runs.
    Ready(InputBox),
    /// A turn runs.
    Busy(InputBox),
    /// Something only a person may answer.
    Dialog(Dialog),
    /// Nobody is signed in, or the first start's questions are open.
    NotSignedIn,
    /// It cannot go on; with its own words.
    Fault(String),
}

impl ScreenMeaning {
    /// In one or two words, for people and logs: `ready`, `busy`, `dialog permission`.
    pub fn name(&self) -> &'static str {
        match self {
            ScreenMeaning::Unclear => "unclear",
            ScreenMeaning::Ready(_) => "ready",
            ScreenMeaning::Busy(_) => "busy",
            ScreenMeaning::Dialog(dialog) => dialog.name(),
            ScreenMeaning::NotSignedIn => "not signed in",
            ScreenMeaning::Fault(_) => "fault",
        }
    }
}

/// The input box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputBox {
    /// The text in it, rows joined by line feeds, as far as it is visible.
    pub text: String,
    /// Whether it holds nothing that was typed (a grey suggestion is not typed).
    pub empty: bool,
}

/// Dialogs by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialog {
    /// May files of this folder be trusted?
    Trust,
    /// May an API key from the environment be used?
    ApiKey,
    /// The warning before all permissions are bypassed.
    Bypass,
    /// May a tool be used?
    Permission,
    /// The agent asks something and offers choices.
    Question,
    /// A usage limit was reached; what now?
    Limit,
    /// Any other menu.
    Other,
}

impl Dialog {
    /// For people and logs.
    pub fn name(self) -> &'static str {
        match self {
            Dialog::Trust => "dialog trust",
            Dialog::ApiKey => "dialog key",
            Dialog::Bypass => "dialog bypass",
            Dialog::Permission => "dialog permission",
            Dialog::Question => "dialog question",
            Dialog::Limit => "dialog limit",
            Dialog::Other => "menu",
        }
    }
}

/// A screen as it was read: what it means, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What it means.
    pub meaning: ScreenMeaning,
    /// The rule that decided, as `<program>/<rule>`: `claude/dialog-permission`. `<program>/none` when no rule did.
    pub rule: Arc<str>,
    /// The text the rule found, at most [`MATCHED_CHARS_MAX`] characters.
    pub matched: String,
    /// The row it stood in, 0 at the top; none for the window's title and where no rule decided.
    pub row: Option<u16>,
}

/// Longest text a reading carries along, in characters.
pub const MATCHED_CHARS_MAX: usize = 200;
