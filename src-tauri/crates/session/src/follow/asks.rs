//! What the agent asks of a person, from its first sign to its end. An ask is told once, may be told again when more
//! is known about it, and is closed exactly once.

use domain::AskId;
use domain::ask::{Answerer, AskAnswer, CHOICES_MAX};
use domain::evidence::Tier;
use domain::session::{Ask, SessionEvent, SessionState};
use serde_json::{Value, json};

use super::{Follower, News};

/// Asks that may be open at once; more stay in the terminal only.
pub(crate) const OPEN_MAX: usize = 8;
/// Characters of an ask that a person is shown.
const TEXT_CHARS_MAX: usize = 2_000;
/// A dialog without the hook that belongs to it is told as it is after this long.
const HOOK_WAIT_MS: u64 = 1_000;
/// How long a dialog must be gone to count as answered. Longer than a redraw.
const GONE_MS: u64 = 500;
/// The same for a dialog that was never seen, because the hook comes before it is drawn.
const NEVER_SEEN_MS: u64 = 5_000;
/// The tool by which the agent asks questions.
pub(crate) const QUESTION_TOOL: &str = "AskUserQuestion";

/// What is asked, as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AskSeen {
    /// Tells the asks of a session apart.
    pub(crate) key: u64,
    pub(crate) kind: Ask,
    pub(crate) tool: Option<String>,
    pub(crate) input: Value,
    pub(crate) text: String,
    pub(crate) choices: Vec<String>,
}

/// How an ask ended that nobody answered through us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskOver {
    /// By keys in the session's terminal.
    AtTerminal,
    /// Nobody answered.
    Withdrawn(&'static str),
}

#[derive(Debug)]
struct OpenAsk {
    seen: AskSeen,
    since: u64,
    told: bool,
    from_hook: bool,
    dialog_seen: bool,
    gone_since: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Asks {
    open: Vec<OpenAsk>,
    next_key: u64,
    /// The tool that was about to be used last: what a dialog without a hook is about.
    about: Option<(String, Value)>,
}

impl Follower {
    pub(super) fn tool_begins(&mut self, at_ms: u64, name: &str, input: &Value) {
        if let Some(turn) = self.running_mut() {
            turn.log(at_ms, "hook", "tool", format!("{name} {}", shown_input(input)));
        }
        self.may_ask_about(name, input);
    }

    /// A dialog whose hook is lost is about the tool that was to be used last.
    pub(super) fn may_ask_about(&mut self, name: &str, input: &Value) {
        self.asks.about = Some((name.to_owned(), input.clone()));
        for open in &mut self.asks.open {
            let bare = !open.from_hook && !open.told && open.seen.input.is_null();
            if bare && open.seen.kind == kind_of(name) {
                (open.seen.text, open.seen.choices) = words_of(name, input);
                open.seen.input = input.clone();
            }
        }
    }

    pub(super) fn permission_asked(&mut self, at_ms: u64, tool: &str, input: &Value) {
        let kind = kind_of(tool);
        let (text, choices) = words_of(tool, input);
        let same = |open: &&mut OpenAsk| {
            let known = open.seen.tool.as_deref() == Some(tool) && open.seen.input == *input;
            known || !open.from_hook && open.seen.tool.is_none() && open.seen.kind != Ask::Login
        };
        if let Some(open) = self.asks.open.iter_mut().find(same) {
            if open.from_hook {
                return;
            }
            (open.from_hook, open.told) = (true, true);
            open.seen = AskSeen {
                key: open.seen.key,
                kind,
                tool: Some(tool.to_owned()),
                input: input.clone(),
                text,
                choices,
            };
            let seen = open.seen.clone();
            self.tell(News::Asked(seen));
            self.apply(&SessionEvent::Asked { ask: kind });
            return;
        }
        let tool = Some(tool.to_owned());
        self.open_ask(at_ms, kind, tool, input.clone(), text, choices, true);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of one ask, named at both places of call"
    )]
    fn open_ask(
        &mut self,
        at_ms: u64,
        kind: Ask,
        tool: Option<String>,
        input: Value,
        text: String,
        choices: Vec<String>,
        from_hook: bool,
    ) {
        if self.asks.open.len() >= OPEN_MAX {
            return;
        }
        self.asks.next_key += 1;
        let open = OpenAsk {
            seen: AskSeen {
                key: self.asks.next_key,
                kind,
                tool,
                input,
                text,
                choices,
            },
            since: at_ms,
            told: false,
            from_hook,
            dialog_seen: !from_hook,
            gone_since: None,
        };
        let text = open.seen.text.clone();
        self.asks.open.push(open);
        if let Some(turn) = self.running_mut() {
            let source = if from_hook { "hook" } else { "screen" };
            turn.log(at_ms, source, "asks", text);
        }
        self.apply(&SessionEvent::Asked { ask: kind });
        // Without hooks nothing more can be learnt about it; at start-up nothing is reported either.
        let at_once = from_hook || !self.witnesses.hooks || self.running().is_none();
        if at_once {
            self.tell_asks(u64::MAX);
        }
    }

    /// Tells the asks that have waited long enough for their hook.
    fn tell_asks(&mut self, at_ms: u64) {
        let due = |open: &&mut OpenAsk| !open.told && at_ms >= open.since.saturating_add(HOOK_WAIT_MS);
        let mut news = Vec::new();
        for open in self.asks.open.iter_mut().filter(due) {
            open.told = true;
            news.push(News::Asked(open.seen.clone()));
        }
        news.into_iter().for_each(|news| self.tell(news));
    }

    /// A dialog is on the screen.
    pub(super) fn dialog_shown(&mut self, at_ms: u64, kind: Ask, matched: &str) {
        let before = self.asks.open.first().map(|open| (open.seen.kind, open.seen.key));
        if let Some((other, key)) = before
            && (other == Ask::Login) != (kind == Ask::Login)
        {
            // One question of a first start follows the other.
            self.close_ask(key, Some(AskOver::Withdrawn("another dialog follows")));
        }
        if self.asks.open.is_empty() {
            let about = self.asks.about.clone().filter(|_| self.running().is_some());
            let (tool, input, text, choices) = match about {
                Some((tool, input)) if kind_of(&tool) == kind => {
                    let (text, choices) = words_of(&tool, &input);
                    (None, input, text, choices)
                }
                _ => (
                    None,
                    Value::Null,
                    crate::handle::what_to_do(kind).to_owned(),
                    Vec::new(),
                ),
            };
            let text = if text.is_empty() { matched.to_owned() } else { text };
            self.open_ask(at_ms, kind, tool, input, text, choices, false);
        }
        for open in &mut self.asks.open {
            open.dialog_seen = true;
            open.gone_since = None;
        }
        // A hook has said more precisely what it is.
        if let Some(open) = self.asks.open.first() {
            let ask = open.seen.kind;
            let says = matches!(&self.state, SessionState::AwaitingPerson { ask: now, .. } if *now == ask);
            if !says {
                self.apply(&SessionEvent::Asked { ask });
            }
        }
        self.tell_asks(at_ms);
    }

    /// No dialog is on the screen.
    pub(super) fn dialog_is_gone(&mut self, at_ms: u64, busy: bool) {
        let mut over = Vec::new();
        for open in &mut self.asks.open {
            let gone_since = *open.gone_since.get_or_insert(at_ms);
            let limit = if open.dialog_seen { GONE_MS } else { NEVER_SEEN_MS };
            if at_ms.saturating_sub(gone_since) >= limit {
                over.push(open.seen.key);
            }
        }
        let cancelled = self.running().is_some_and(|turn| turn.signs.cancel_requested);
        let how = match (cancelled, busy) {
            (true, _) => AskOver::Withdrawn("the turn was interrupted"),
            (false, true) => AskOver::AtTerminal,
            (false, false) => AskOver::Withdrawn("the agent does not ask any more"),
        };
        for key in over {
            self.close_ask(key, Some(how.clone()));
        }
    }

    /// A tool has come to its answer: it is not asked about any more.
    pub(super) fn tool_ended(&mut self, tool: &str, input: &Value) {
        let is_it = |open: &&OpenAsk| {
            let known = open.seen.tool.as_deref() == Some(tool);
            // The answers are put beside the questions.
            known
                && (open.seen.input == *input
                    || open.seen.input["questions"] == input["questions"] && tool == QUESTION_TOOL)
        };
        if let Some(key) = self.asks.open.iter().find(is_it).map(|open| open.seen.key) {
            self.close_ask(key, Some(AskOver::AtTerminal));
        }
    }

    pub(super) fn close_asks(&mut self, why: &'static str) {
        let keys: Vec<u64> = self.asks.open.iter().map(|open| open.seen.key).collect();
        for key in keys {
            self.close_ask(key, Some(AskOver::Withdrawn(why)));
        }
    }

    /// The program does not wait for an answer of ours any more: it was answered at the terminal, or its connection to
    /// us is lost. Whether its dialog goes away tells which.
    pub(crate) fn ask_released(&mut self, key: u64) {
        if let Some(open) = self.asks.open.iter_mut().find(|open| open.seen.key == key) {
            open.dialog_seen = true;
        }
    }

    /// Closes an ask, once. `how` is told; nothing is told of one that its owner closes itself.
    pub(crate) fn close_ask(&mut self, key: u64, how: Option<AskOver>) -> bool {
        let Some(place) = self.asks.open.iter().position(|open| open.seen.key == key) else {
            return false;
        };
        let open = self.asks.open.remove(place);
        self.asks.about = None;
        if let Some(how) = how.filter(|_| open.told) {
            self.tell(News::AskOver(key, how));
        }
        if self.asks.open.is_empty() && matches!(self.state, SessionState::AwaitingPerson { .. }) {
            let typed = self.running().is_some_and(|turn| !turn.is_ours());
            self.apply(&SessionEvent::Answered);
            if typed {
                self.apply(&SessionEvent::TurnStarted { turn: None });
            }
        }
        true
    }

    /// Somebody has answered: that is part of what backs the turn.
    pub(crate) fn answered(&mut self, at_ms: u64, ask: AskId, answer: Option<&AskAnswer>, by: &Answerer) {
        let Some(turn) = self.running_mut() else { return };
        turn.log(at_ms, "actor", "answered", by.who.clone());
        let claim = json!({ "ask": ask, "answer": answer, "way": by.way, "who": by.who });
        turn.evidence.add("answer", claim, Tier::Observed, "person");
    }

    /// The open ask about this use of a tool.
    pub(crate) fn ask_about(&self, tool: &str, input: &Value) -> Option<u64> {
        let is_it = |open: &&OpenAsk| open.seen.tool.as_deref() == Some(tool) && open.seen.input == *input;
        self.asks.open.iter().find(is_it).map(|open| open.seen.key)
    }
}

fn kind_of(tool: &str) -> Ask {
    if tool == QUESTION_TOOL {
        Ask::Question
    } else {
        Ask::Permission
    }
}

/// What a person is shown of an ask, and what may be chosen.
fn words_of(tool: &str, input: &Value) -> (String, Vec<String>) {
    if kind_of(tool) == Ask::Permission {
        return (shown_input(input), Vec::new());
    }
    let questions = input["questions"].as_array().map_or(&[][..], Vec::as_slice);
    let texts: Vec<&str> = questions
        .iter()
        .filter_map(|one| one["question"].as_str())
        .collect();
    let choices = match questions {
        // Several questions, or several answers to one, cannot be answered by one choice.
        [one] if one["multiSelect"] != true => {
            let options = one["options"].as_array().map_or(&[][..], Vec::as_slice);
            let labels = options.iter().filter_map(|option| option["label"].as_str());
            labels.take(CHOICES_MAX).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    (plain(&texts.join("\n")), choices)
}

/// A tool's input for a person: its command or file, or the beginning of all of it.
fn shown_input(input: &Value) -> String {
    let text = ["command", "file_path", "url", "pattern"]
        .iter()
        .find_map(|field| input[*field].as_str().map(str::to_owned))
        .unwrap_or_else(|| input.to_string());
    plain(&text)
}

/// Nothing of it may be hidden from whoever allows it: a control character is shown by its picture, and a cut is told.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        '\u{7f}' => '\u{2421}',
        c if c.is_ascii_control() => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{2426}'),
        c if c.is_control() => '\u{2426}',
        c => c,
    };
    let mut chars = text.chars();
    let mut kept: String = chars.by_ref().take(TEXT_CHARS_MAX).map(shown).collect();
    let more = chars.count();
    if more > 0 {
        kept.push_str(&format!(
            "\n… (cut: {more} more characters; read all of it in the terminal)"
        ));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_ask_is_hidden_from_whoever_allows_it() {
        let (text, _) = words_of("Bash", &json!({"command": "ls\r\u{1b}[2K; rm -rf ~"}));
        assert_eq!(text, "ls\u{240d}\u{241b}[2K; rm -rf ~");
        let long = "x".repeat(TEXT_CHARS_MAX + 7);
        let (text, _) = words_of("Bash", &json!({ "command": long }));
        assert!(
            text.ends_with("(cut: 7 more characters; read all of it in the terminal)"),
            "{text}"
        );
    }

    #[test]
    fn only_one_plain_question_has_choices() {
        let one = json!({"question": "Which?", "options": [{"label": "A"}, {"label": "B"}]});
        let (text, choices) = words_of(QUESTION_TOOL, &json!({"questions": [one]}));
        assert_eq!(
            (text.as_str(), choices),
            ("Which?", vec!["A".to_owned(), "B".to_owned()])
        );
        let (text, choices) = words_of(QUESTION_TOOL, &json!({"questions": [one, one]}));
        assert_eq!((text.as_str(), choices.len()), ("Which?\nWhich?", 0));
        let mut several = one.clone();
        several["multiSelect"] = true.into();
        assert!(
            words_of(QUESTION_TOOL, &json!({"questions": [several]}))
                .1
                .is_empty()
        );
        assert_eq!(words_of(QUESTION_TOOL, &Value::Null).0, "");
    }

    #[test]
    fn a_sub_agent_that_outlives_its_turn_can_still_ask() {
        use crate::follow::tests::event;
        use crate::follow::{Observation, Witnesses};
        use provider::claude::HookKind;
        let mut follower = Follower::new(Witnesses::ALL);
        follower.past.add_prompt("old".to_owned());
        let input = json!({"command": "touch x"});
        let asks = HookKind::PermissionRequest {
            tool: "Bash".into(),
            input: input.clone(),
        };
        follower.observe(10, Observation::Hook(&event(Some("old"), asks)));
        let asked = std::iter::from_fn(|| follower.news()).find_map(|news| match news {
            News::Asked(seen) => Some(seen.key),
            _ => None,
        });
        assert!(asked.is_some(), "it is told");
        assert_eq!(
            follower.ask_about("Bash", &input),
            asked,
            "its request can be held"
        );
        let done = HookKind::ToolDone {
            name: "Bash".into(),
            input,
            response: Value::Null,
            duration_ms: None,
            ok: true,
            id: None,
        };
        follower.observe(20, Observation::Hook(&event(Some("old"), done)));
        let over = std::iter::from_fn(|| follower.news())
            .any(|news| matches!(news, News::AskOver(key, AskOver::AtTerminal) if Some(key) == asked));
        assert!(over, "answered at the terminal");
    }
}
