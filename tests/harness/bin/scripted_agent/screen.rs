//! What the agent paints: finished rows that scroll away at the top, and below them the input box between two rules
//! with its footer, painted anew at each change.

use std::io::Write;
use std::sync::{Mutex, MutexGuard};

use rustix::termios::tcgetwinsize;

/// Rows of typed text that the box shows at most.
const BOX_ROWS_MAX: usize = 8;

pub struct Screen {
    state: Mutex<State>,
}

struct State {
    title: String,
    /// What stands in the box.
    text: String,
    /// Shown above the box while a turn runs.
    working: bool,
    /// Shown in place of the box.
    dialog: Option<Vec<String>>,
    /// Rows of the frame above the cursor's row.
    above: usize,
    started: bool,
}

impl Screen {
    pub fn new(title: &str) -> Screen {
        Screen {
            state: Mutex::new(State {
                title: title.to_owned(),
                text: String::new(),
                working: false,
                dialog: None,
                above: 0,
                started: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The first frame.
    pub fn start(&self) {
        let mut state = self.state();
        state.started = true;
        let head = "\x1b[?2004h\x1b[?1004hScripted Agent v2.1.197\r\n\r\n";
        state.paint(head, "");
    }

    pub fn text(&self) -> String {
        self.state().text.clone()
    }

    pub fn typed(&self, text: &str) {
        let mut state = self.state();
        state.text.push_str(text);
        state.paint("", "");
    }

    pub fn backspace(&self) {
        let mut state = self.state();
        state.text.pop();
        state.paint("", "");
    }

    pub fn clear_line(&self) {
        let mut state = self.state();
        let keep = state.text.rfind('\n').map_or(0, |at| at + 1);
        state.text.truncate(keep);
        state.paint("", "");
    }

    pub fn clear(&self) {
        let mut state = self.state();
        state.text.clear();
        state.paint("", "");
    }

    /// Puts text back into the empty box, as after an early cancel.
    pub fn put_back(&self, text: &str) {
        let mut state = self.state();
        if state.text.is_empty() {
            state.text = text.to_owned();
        }
        state.paint("", "");
    }

    pub fn take_text(&self) -> String {
        let mut state = self.state();
        let text = std::mem::take(&mut state.text);
        state.paint("", "");
        text
    }

    pub fn working(&self, working: bool) {
        let mut state = self.state();
        state.working = working;
        state.paint("", "");
    }

    pub fn dialog(&self, rows: Option<Vec<String>>) {
        let mut state = self.state();
        state.dialog = rows;
        state.paint("", "");
    }

    /// The prompt as a row of the conversation.
    pub fn prompt_row(&self, prompt: &str) {
        let mut rows = String::new();
        for (number, line) in prompt.lines().enumerate() {
            let sign = if number == 0 { "❯ " } else { "  " };
            rows.push_str(&format!(
                "\x1b[48;5;237m\x1b[38;5;239m{sign}\x1b[38;5;231m{line}\x1b[39m\x1b[49m\r\n"
            ));
        }
        self.rows(&format!("{rows}\r\n"));
    }

    /// A message of the agent.
    pub fn message(&self, text: &str) {
        self.rows(&format!(
            "\x1b[38;5;231m●\x1b[39m {}\r\n\r\n",
            text.replace('\n', "\r\n  ")
        ));
    }

    pub fn tool(&self, name: &str, input: &str, output: &str) {
        let first = output.lines().next().unwrap_or("(No output)");
        self.rows(&format!(
            "\x1b[38;5;114m●\x1b[39m \x1b[1m{name}\x1b[22m({input})\r\n  ⎿  {first}\r\n\r\n"
        ));
    }

    /// Rows above the box, as they are.
    pub fn rows(&self, rows: &str) {
        self.state().paint(rows, "");
    }

    /// Bytes as they are, with the box taken away before and painted again behind them.
    pub fn raw(&self, write: impl FnOnce(&mut dyn Write)) {
        let mut state = self.state();
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(state.away().as_bytes());
        write(&mut out);
        // Whatever was printed: end its sequence, leave its modes, take the whole screen.
        let _ = out.write_all(b"\x18\x1b\\\x07\x1b[m\x1b[r\x1b[?1049l\x1b[?25h\x1b[2J\x1b[H");
        drop(out);
        state.above = 0;
        state.paint("", "");
    }
}

impl State {
    /// What removes the frame that is on the screen.
    fn away(&self) -> String {
        match self.above {
            0 => "\r\x1b[J".to_owned(),
            rows => format!("\r\x1b[{rows}A\x1b[J"),
        }
    }

    fn paint(&mut self, finished: &str, behind: &str) {
        if !self.started && finished.is_empty() {
            return;
        }
        let cols = tcgetwinsize(std::io::stdout()).map_or(80, |size| usize::from(size.ws_col.max(8)));
        // As the real one: at rest, and without a cursor, while it waits for a person.
        let asks = self.dialog.is_some();
        let sign = if self.working && !asks { '⠂' } else { '✳' };
        let mut out = format!(
            "\x1b[?25l{}{finished}\x1b]0;{sign} {}\x07",
            self.away(),
            self.title
        );
        let mut rows = Vec::new();
        if self.working && self.dialog.is_none() {
            rows.push("\x1b[38;5;174m✻ Beaming…\x1b[39m".to_owned());
            rows.push(String::new());
        }
        let cursor_row;
        let mut cursor_col = 2;
        let rule = "─".repeat(cols);
        match &self.dialog {
            Some(dialog) => {
                rows.push(rule);
                rows.extend(dialog.iter().cloned());
                cursor_row = rows.len() - 1;
            }
            None => {
                rows.push(rule.clone());
                let room = cols.saturating_sub(3).max(1);
                let mut typed: Vec<String> = Vec::new();
                for line in self.text.split('\n') {
                    let chars: Vec<char> = line.chars().collect();
                    if chars.is_empty() {
                        typed.push(String::new());
                    }
                    typed.extend(
                        chars
                            .chunks(room / 2 + 1)
                            .map(|part| part.iter().collect::<String>()),
                    );
                }
                let hidden = typed.len().saturating_sub(BOX_ROWS_MAX);
                for (number, line) in typed[hidden..].iter().enumerate() {
                    let sign = if number == 0 { "❯\u{a0}" } else { "  " };
                    rows.push(format!("{sign}{line}"));
                    cursor_col = 2 + line.chars().count();
                }
                cursor_row = rows.len() - 1;
                rows.push(rule);
                rows.push(match (self.working, self.text.is_empty()) {
                    (true, _) => "  \x1b[38;5;246mesc to interrupt\x1b[39m".to_owned(),
                    (false, true) => "  \x1b[38;5;246m? for shortcuts\x1b[39m".to_owned(),
                    (false, false) => String::new(),
                });
            }
        }
        out.push_str(&rows.join("\r\n"));
        let below = rows.len() - 1 - cursor_row;
        if below > 0 {
            out.push_str(&format!("\x1b[{below}A"));
        }
        let cursor = if asks { "" } else { "\x1b[?25h" };
        out.push_str(&format!("\r\x1b[{cursor_col}C{cursor}{behind}"));
        self.above = cursor_row;
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(out.as_bytes());
        let _ = stdout.flush();
    }
}
