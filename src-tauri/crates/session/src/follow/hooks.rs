//! Hooks and transcript facts: whose they are, and what they say about the turn.

use domain::evidence::Tier;
use domain::session::SessionEvent;
use domain::turn::{Failure, FailureClass, StopSource};
use provider::claude::{
    DatedFact, HookEvent, HookKind, TranscriptFact, background_of, failure_class, notified_of, reset_at,
};
use serde_json::json;

use super::Follower;
use super::facts::ToolUse;
use super::turn::{Stop, Turn};

impl Follower {
    pub(super) fn hook(&mut self, at_ms: u64, event: &HookEvent) {
        let head = &event.head;
        let id = head.prompt_id.as_deref();
        if id.is_some_and(|id| self.past.knows(id)) {
            // Late or doubled: its turn is over. Its sub-agents may still work and ask.
            match &event.kind {
                HookKind::PermissionRequest { tool, input } => self.permission_asked(at_ms, tool, input),
                HookKind::ToolDone { name, input, .. } => self.tool_ended(name, input),
                _ => {}
            }
            return;
        }
        // What the program says as it ends is no work.
        if !matches!(
            event.kind,
            HookKind::SessionEnd { .. } | HookKind::Notification { .. } | HookKind::Other
        ) {
            self.heard();
        }
        match &event.kind {
            HookKind::PromptSubmitted { prompt } => self.prompt_hook(at_ms, prompt, id),
            HookKind::PermissionRequest { tool, input } => self.permission_asked(at_ms, tool, input),
            HookKind::ToolUse { name, input, .. } => {
                let own = head.agent_id.is_none();
                if let Some(turn) = self
                    .running_mut()
                    .filter(|turn| own && turn.rank_of(id).is_some())
                {
                    turn.went_on(at_ms, "hook");
                }
                self.tool_begins(at_ms, name, input);
            }
            HookKind::ToolDone { .. } => self.tool_hook(at_ms, event),
            HookKind::SubagentStart | HookKind::SubagentStop => self.subagent_hook(at_ms, event),
            HookKind::Stop { .. } | HookKind::StopFailure { .. } => {
                // A sub-agent that ends is no end of the turn.
                if head.agent_id.is_none() {
                    self.end_hook(at_ms, event);
                }
            }
            HookKind::SessionEnd { reason } => {
                let reason = reason.clone();
                self.sign(at_ms, "hook", "session-end", |_| {});
                tracing::debug!(reason, "the program's session ended");
            }
            HookKind::Notification { .. } | HookKind::Other => {}
        }
    }

    fn prompt_hook(&mut self, at_ms: u64, prompt: &str, id: Option<&str>) {
        let notified = notified_of(prompt);
        if let Some(turn) = self.running_mut() {
            if turn.rank_of(id).is_some() {
                return;
            }
            if let Some(tasks) = &notified {
                self.woken(at_ms, tasks, id, "hook");
                return;
            }
            // A prompt of ours that is its first, whatever the transcript was taken for before.
            if turn.is_prompt(prompt) && (turn.ids.is_empty() || turn.acknowledged_by != Some("hook")) {
                turn.ids.clear();
                self.adopt(at_ms, id, "hook");
                return;
            }
            if turn.is_ours() {
                // Somebody types while our prompt is on its way, or behind it: that is another turn.
                if !turn.is_taken() {
                    self.screen.idle_since = None;
                    self.apply(&SessionEvent::TurnStarted { turn: None });
                }
                if let Some(id) = id {
                    self.past.add_prompt(id.to_owned());
                }
                return;
            }
        }
        self.begin_typed(at_ms, prompt, "hook", id);
    }

    /// The running turn's prompt has this id.
    fn adopt(&mut self, at_ms: u64, id: Option<&str>, source: &'static str) {
        let Some(turn) = self.running_mut() else { return };
        turn.adopt(at_ms, id.map(str::to_owned), source);
        let early = turn.record.take_early();
        for dated in early {
            self.fact(at_ms, dated);
        }
        self.replay_early_ends();
    }

    fn replay_early_ends(&mut self) {
        let Some(turn) = self.running_mut() else { return };
        for (at_ms, event) in std::mem::take(&mut turn.early_ends) {
            self.end_hook(at_ms, &event);
        }
    }

    /// Background work has ended, and the agent was told of it: the turn that started it goes on. What an earlier turn
    /// has left running is nothing of the running one.
    fn woken(&mut self, at_ms: u64, tasks: &[String], id: Option<&str>, source: &'static str) {
        let Some(turn) = self.running_mut().filter(|turn| !turn.sealed) else {
            return;
        };
        if turn.background.is_foreign(tasks) {
            turn.log(at_ms, source, "woken-for-an-earlier-turn", tasks.join(", "));
            if let Some(id) = id {
                self.past.add_prompt(id.to_owned());
            }
            return;
        }
        // A prompt that is not known to have begun cannot have left anything running.
        if !turn.is_taken() || turn.ids.is_empty() {
            return;
        }
        turn.log(at_ms, source, "woken", tasks.join(", "));
        turn.background.woke(tasks);
        turn.background.ended(tasks);
        turn.goes_on();
        self.screen.idle_since = None;
        self.adopt(at_ms, id, source);
    }

    fn tool_hook(&mut self, at_ms: u64, event: &HookEvent) {
        let HookKind::ToolDone {
            name,
            input,
            response,
            duration_ms,
            ok,
            id,
        } = &event.kind
        else {
            return;
        };
        self.tool_ended(name, input);
        let Some(turn) = self.running_mut() else { return };
        if event.head.agent_id.is_none()
            && let Some(task) = background_of(name, response)
        {
            turn.log(at_ms, "hook", "background-work", task.clone());
            turn.background.started(task);
        }
        turn.tool(&ToolUse {
            id: id.as_deref(),
            name,
            input,
            response,
            text: "",
            ok: *ok,
            duration_ms: *duration_ms,
            source: if *ok {
                "hook:PostToolUse"
            } else {
                "hook:PostToolUseFailure"
            },
        });
    }

    fn subagent_hook(&mut self, at_ms: u64, event: &HookEvent) {
        let Some(turn) = self.running_mut() else { return };
        let Some(agent) = &event.head.agent_id else { return };
        if event.kind == HookKind::SubagentStart {
            turn.log(at_ms, "hook", "sub-agent-begins", agent.clone());
            turn.background.agent_started(agent);
        } else {
            turn.log(at_ms, "hook", "sub-agent-ended", agent.clone());
            turn.background.agent_ended(agent);
        }
    }

    /// A stop or a failure of the session's own agent.
    fn end_hook(&mut self, at_ms: u64, event: &HookEvent) {
        let wall = self.wall;
        let Some(turn) = self.running_mut() else {
            // Of a turn that nobody saw begin.
            if self.turn.is_none() {
                self.apply(&SessionEvent::TurnEnded);
            }
            return;
        };
        let id = event.head.prompt_id.as_deref();
        let rank = match (turn.rank_of(id), id) {
            (Some(rank), _) => rank,
            // A version that names no prompts; before ours was taken it is another's.
            (None, None) if turn.is_taken() => 0,
            (None, None) => return,
            (None, Some(_)) => {
                turn.keep_early_end(at_ms, event);
                return;
            }
        };
        match &event.kind {
            HookKind::Stop {
                last_message,
                background,
                again,
            } => {
                let message = if last_message.is_empty() {
                    turn.record.last_text.clone().unwrap_or_default()
                } else {
                    last_message.clone()
                };
                // The list belongs to the newest stop only.
                let mut stop = Stop::new(at_ms, message, rank, StopSource::Told);
                (stop.again, stop.nameless) = (*again, id.is_none());
                if turn.stopped(stop) {
                    turn.background.listed(at_ms, background);
                }
            }
            // One that may be another turn's fails nothing.
            HookKind::StopFailure { .. } if turn.has_namesake => {}
            HookKind::StopFailure { error, detail } => {
                let class = failure_class(error, None, detail);
                let failure = failure_of(class, detail, wall);
                turn.fails(at_ms, failure, None, "hook:StopFailure");
            }
            _ => {}
        }
    }

    pub(super) fn fact(&mut self, at_ms: u64, dated: DatedFact) {
        let known = |id: &str| self.past.knows(id);
        if dated.prompt.as_deref().is_some_and(known) {
            return;
        }
        let Some(turn) = self.running_mut() else { return };
        let id = dated.prompt.as_deref();
        let own = turn.rank_of(id).is_some();
        match &dated.fact {
            TranscriptFact::UserPrompt { text } if !own => {
                let first = turn.ids.is_empty() && turn.is_prompt(text);
                match id {
                    Some(_) if first => {
                        let id = dated.prompt.clone();
                        self.adopt(at_ms, id.as_deref(), "transcript");
                    }
                    // A person's own prompt, behind or before ours.
                    Some(id) if turn.is_taken() && turn.is_ours() && !turn.is_prompt(text) => {
                        self.past.add_prompt(id.to_owned());
                    }
                    _ => {}
                }
            }
            TranscriptFact::Notified { tasks } if !own => self.woken(at_ms, tasks, id, "transcript"),
            _ if own => {
                let untraced = turn.has_namesake;
                self.own_fact(at_ms, dated.fact, untraced);
            }
            // What cannot be traced back to any prompt counts only once ours is known, and makes nothing certain.
            _ if id.is_none() && !turn.ids.is_empty() => self.own_fact(at_ms, dated.fact, true),
            _ => turn.record.keep_early(dated),
        }
    }

    fn own_fact(&mut self, at_ms: u64, fact: TranscriptFact, untraced: bool) {
        let wall = self.wall;
        let Some(turn) = self.running_mut() else { return };
        match fact {
            TranscriptFact::UserPrompt { .. } | TranscriptFact::Notified { .. } => {}
            TranscriptFact::AssistantText { text, .. } => turn.said(at_ms, text, untraced),
            TranscriptFact::Prodded { by_stop_hook } if !untraced => turn.prodded(at_ms, by_stop_hook),
            TranscriptFact::Overruled if !untraced => {
                turn.log(at_ms, "transcript", "stop-hook-overruled", String::new());
                turn.record.overruled = true;
                turn.contradicted = true;
            }
            TranscriptFact::Prodded { .. } | TranscriptFact::Overruled => {}
            TranscriptFact::ApiError {
                status,
                error,
                message,
            } => {
                let class = failure_class(&error, status, &message);
                turn.log(at_ms, "transcript", "api-error", message.clone());
                // One that may be another turn's fails nothing.
                if !untraced {
                    turn.record.failure = Some((failure_of(class, &message, wall), status));
                }
            }
            TranscriptFact::Interrupted => {
                if !untraced {
                    turn.log(at_ms, "transcript", "interrupted", String::new());
                    if turn.record.ended.is_none() {
                        // While a stop hook was still deciding: the stop was none.
                        (turn.stop, turn.signs.stopped) = (None, None);
                    }
                    turn.signs.interrupted = true;
                    turn.evidence
                        .add("interrupted", true, Tier::Observed, "transcript");
                }
            }
            TranscriptFact::TurnDuration { ms, pending_agents } => {
                turn.log(at_ms, "transcript", "turn-duration", format!("{ms} ms"));
                turn.record.ended = Some(pending_agents);
                turn.record.untraced |= untraced;
                turn.evidence.add("turn_ms", ms, Tier::Observed, "transcript");
            }
            TranscriptFact::ToolUse { .. } | TranscriptFact::ToolResult { .. } => {
                let used = match &fact {
                    TranscriptFact::ToolUse { name, input, .. } => Some((name.clone(), input.clone())),
                    _ => None,
                };
                if used.is_some() && !untraced {
                    turn.did_more(at_ms);
                }
                turn.tool_fact(fact);
                if let Some((name, input)) = used {
                    self.may_ask_about(&name, &input);
                }
            }
        }
    }
}

impl Turn {
    pub(super) fn fails(&mut self, at_ms: u64, failure: Failure, status: Option<u16>, source: &'static str) {
        if self.signs.failure.is_some() {
            return;
        }
        self.log(at_ms, source, "failure", failure.detail.clone());
        let mut claim = json!({ "class": failure.class, "message": failure.detail });
        if let Some(status) = status {
            claim["status"] = status.into();
        }
        if let Some(at) = failure.retry_at {
            claim["resets_at"] = at.0.into();
        }
        self.evidence.add("failure", claim, Tier::Observed, source);
        self.signs.failure = Some(failure);
    }
}

pub(super) fn failure_of(class: FailureClass, words: &str, wall: Option<domain::Timestamp>) -> Failure {
    let limited = matches!(class, FailureClass::RateLimit | FailureClass::Overloaded);
    Failure {
        class,
        detail: words.to_owned(),
        retry_at: wall.filter(|_| limited).and_then(|now| reset_at(words, now)),
    }
}
