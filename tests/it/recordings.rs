//! Every recorded terminal comes to the outcomes that a careful person would write below it, through the same emulator,
//! detectors and follower as a live session. The table says which, and why where it is not plain to see.

use std::collections::BTreeSet;
use std::path::PathBuf;

use domain::session::SessionState;
use harness::claude::workspace;
use provider::detect::Detectors;
use provider::recording::{Recorded, RecordedEvent, Recording};
use session::TurnExplanation;
use session::replay::{Replay, replay};

/// Recording, what its screen meant at the end, and how its turns ended, in their order.
const TABLE: &[(&str, &str, &str)] = &[
    ("00-dialogs-a-key-min", "ready", ""),
    ("00-dialogs-a2-key-notapproved", "ready", ""),
    ("00-dialogs-b-authtoken", "ready", ""),
    ("00-dialogs-c-sandboxed", "ready", ""),
    // it refuses to run as root and ends
    ("00-dialogs-d-bypass-root", "fault", ""),
    ("00-dialogs-d2-bypass-root-sandbox", "ready", ""),
    ("00-dialogs-d3-bypass-root-sandbox-accepted", "ready", ""),
    ("00-dialogs-e-confdir", "ready", ""),
    ("00-dialogs-f-nothing-authtoken", "ready", ""),
    // the theme questions were answered, but nobody is signed in
    ("00-dialogs-onb", "not signed in", ""),
    // it cannot reach its services and ends
    ("00-first-start-fresh-home", "fault", ""),
    ("01-simple-120x40", "exited", "done"),
    ("03-simple-200x50", "ready", "done"),
    ("04-long-scroll-120x40", "ready", "done"),
    ("05-bash-echo-nodialog", "ready", "done"),
    ("06-bash-dialog-allow", "ready", "done"),
    // the stream was cut; what came of it holds no marker
    ("10-cut", "ready", "unconfirmed"),
    ("10-cutonce", "ready", "done"),
    ("10-err400credit", "ready", "failed billing"),
    // Esc during the retries: the prompt stands in the box again
    ("10-err401", "ready", "cancelled"),
    ("10-err401-authtoken", "ready", "failed auth"),
    // 171 s of retries are no failure yet; the last one is
    ("10-err401-default-full", "ready", "failed auth"),
    ("10-err401-maxretry1", "ready", "failed auth"),
    // the same
    ("10-err429", "ready", "cancelled"),
    ("10-err429-maxretry1", "ready", "failed rate_limit"),
    // the same
    ("10-err500", "ready", "cancelled"),
    ("10-err500-maxretry2", "ready", "failed server"),
    ("10-err529", "ready", "failed overloaded"),
    ("10-err529-maxretry1", "ready", "failed overloaded"),
    // the same
    ("10-refused", "ready", "cancelled"),
    ("10-refused-maxretry1", "ready", "failed connection"),
    // in this order: fenced three times, quoted, listed, numbered, heading, bold, italic, link, struck, indented,
    // table, mention, end of a sentence, alone, with a full stop, below a line, not last, nested, in a list; what is
    // fenced or indented without colours is painted like plain text, and a person who reads it would say done as well
    (
        "101-marker-forms",
        "ready",
        "2 x done, 5 x unconfirmed, 2 x done, 2 x unconfirmed, done, 3 x unconfirmed, done, unconfirmed, done, 3 x unconfirmed",
    ),
    // an agent's quotations; what begins with the words of an error is painted as one by the program itself
    (
        "102-quoted-program-rows",
        "ready",
        "failed server, 5 x unconfirmed, done, unconfirmed, failed rate_limit",
    ),
    ("102-simple-80x24", "ready", "done"),
    ("104-long-40x12", "ready", "2 x done"),
    ("107-esc-at-dialog", "ready", "cancelled"),
    ("108-write-dialog", "ready", "done"),
    // rejected by the person, who ends the turn with it
    ("108-write-dialog-no-second-turn", "ready", "cancelled, done"),
    ("109-question", "ready", "done"),
    // it waits for an answer
    ("109-question-open", "dialog question", "running"),
    // it waits for an answer
    ("110-dialog-open", "dialog permission", "running"),
    (
        "111-errors",
        "ready",
        "failed auth, 2 x failed context, failed server, done, failed server, failed billing",
    ),
    ("111-errors-60", "ready", "done, failed rate_limit, failed auth"),
    ("112-limit-seven-day", "ready", "failed rate_limit"),
    // the first Enter was swallowed: both prompts became one
    ("112-limit-then-next", "ready", "done"),
    ("12-err401-oauth", "ready", "failed auth"),
    ("12-limit-apikey", "ready", "failed rate_limit"),
    // one turn; the menu behind it is the program's own
    ("12-limit-five-hour-oauth", "dialog limit", "failed rate_limit"),
    ("120-esc-before-first-token", "ready", "cancelled"),
    ("121-esc-midstream-80", "ready", "cancelled"),
    ("122-esc-during-bash", "ready", "cancelled"),
    ("123-esc-during-retry", "ready", "cancelled"),
    // the recording ends, the turn does not
    ("124-ends-in-the-middle", "busy", "running"),
    ("126-resize-and-again", "ready", "2 x done"),
    // a shell line that the agent answers is a turn; /clear, /cost and /exit are none
    ("131-shell-and-slash", "exited", "4 x done"),
    // without colours three markers in one message cannot be told from code
    (
        "132-no-color",
        "ready",
        "done, unconfirmed, failed server, failed billing, done",
    ),
    // ended by a signal in the middle of a turn
    ("133-kill", "exited", "failed provider_exit"),
    ("134-bypass", "ready", "2 x done"),
    ("135-accept-edits", "ready", "done, unconfirmed"),
    ("136-plan-mode", "ready", "done"),
    // two queued prompts got one answer; the first has none of its own
    ("137-two-queued", "ready", "done, unconfirmed, done"),
    // refused by the person
    ("138-no-to-bash", "ready", "cancelled, done"),
    // left unanswered by the person
    ("139-esc-at-question", "ready", "cancelled, done"),
    // it waits for an answer
    ("141-dialog-outside-folder", "dialog permission", "running"),
    ("142-big", "ready", "2 x done"),
    ("143-recovers", "ready", "done"),
    // four equal prompts
    ("144-same-prompt", "ready", "done, 2 x unconfirmed, done"),
    ("145-ctrlc-twice-busy", "exited", "cancelled"),
    // typed before the program was up: never submitted
    ("146-typed-early", "ready", ""),
    // Enter was swallowed: the prompt stands in the box
    ("147-enter-swallowed-40", "ready", ""),
    ("153a-before", "exited", "4 x done"),
    // four old markers are printed, none of them belongs to a turn of this session
    ("153b-resume", "ready", ""),
    // old markers above, a turn without one below
    ("153c-resume-turn", "ready", "unconfirmed, done"),
    ("160-inline-17-100", "ready", "unconfirmed"),
    ("160-inline-7-60", "ready", "unconfirmed"),
    ("160-inline-8-50", "ready", "unconfirmed"),
    ("162-code-md-60", "ready", "unconfirmed"),
    ("163-cjk-200", "ready", "done"),
    ("163-cjk-60", "ready", "done"),
    ("164-pr-url-60", "ready", "done"),
    ("164-pr-url-80", "ready", "done"),
    ("165-five-tools-60", "ready", "done"),
    ("165-five-tools-80", "ready", "done"),
    // markers in a prompt are no answer, nor is a quoted end
    ("166-long-prompt", "ready", "done, unconfirmed"),
    // the fourth prompt's echo is lost; code looks like text, so three markers are none
    (
        "168-screenreader",
        "ready",
        "done, unconfirmed, failed server, cancelled, done, unconfirmed, 2 x done, unconfirmed, failed billing",
    ),
    (
        "168-screenreader-60",
        "ready",
        "4 x done, failed auth, unconfirmed",
    ),
    ("169-sync", "ready", "done, unconfirmed"),
    (
        "170-fullscreen",
        "ready",
        "2 x done, unconfirmed, cancelled, failed server",
    ),
    // the echo of the prompt has left a screen without history
    ("170-fullscreen-long-60", "ready", "3 x done"),
    ("170-fullscreen-short", "ready", "2 x done, unconfirmed"),
    ("181-permission-hook-silent", "ready", "done"),
    // errors of hooks are none of the turn's
    ("186-hook-endpoint-down", "ready", "2 x done, failed billing"),
    // interrupted, then a turn of its own
    ("20-ctrlc-midstream", "ready", "cancelled, done"),
    // interrupted before any answer: the prompt was put back
    ("22-ctrlc-before-first-token", "ready", "cancelled, done"),
    // it ended without a turn
    ("23-ctrlc-twice-idle", "exited", ""),
    // /clear is no turn
    ("25-clear", "ready", "2 x done"),
    // painted anew four times, still one turn
    ("26-resize-midstream", "ready", "done"),
    ("27-persona", "ready", "done"),
    // left-overs and swallowed Enters are no turns; several lines typed raw are two
    ("30-input-methods", "ready", "25 x done"),
    // file completion ate one Enter; the last prompt was queued behind a running turn
    ("31-input-guards", "ready", "16 x done"),
    // typed before the program was up: never submitted
    ("32-early-0-paste", "ready", ""),
    // the same
    ("32-early-300-paste", "ready", ""),
    // Enter was swallowed: prompt and `/exit` became one prompt
    ("40-hooks-text", "ready", "done"),
    ("41-hooks-bash-dialog", "exited", "done"),
    // the same
    ("42-hooks-err400", "ready", "failed billing"),
    // the same
    ("43-hooks-err401", "ready", "failed auth"),
    // the same
    ("45-hooks-err500", "ready", "failed server"),
    // refused by the person: the turn ends with it
    ("48-hooks-permission-notification", "exited", "cancelled"),
    ("49-hooks-idle-notification", "exited", "done"),
    // /clear in between is no turn
    ("50-status-file", "ready", "2 x done, cancelled, failed billing"),
    // /clear is no turn
    ("51-hooks-command", "exited", "done"),
    ("53a-session-id", "exited", "3 x done"),
    ("60-inline-wrap-120", "ready", "unconfirmed"),
    // here the marker begins a row, in the middle of a sentence
    ("60-inline-wrap-40", "ready", "unconfirmed"),
    ("60-inline-wrap-80", "ready", "unconfirmed"),
    ("61-splitmark-80", "ready", "done"),
    // the last of three markers is code within a line
    ("62-code-md-100", "ready", "unconfirmed"),
    ("63-cjk-120", "ready", "done"),
    // a stale spinner row stays in the middle of the answer
    ("63-cjk-80", "ready", "done"),
    ("64-pr-url-200", "ready", "done"),
    // the prompt's own marker is no answer
    ("66-two-line-prompt", "ready", "done"),
    ("67-cols12-inline", "ready", "done"),
    ("68-screenreader", "ready", "done"),
    ("68-screenreader-bash-dialog", "ready", "done"),
    ("69-syncoutput", "ready", "done"),
    ("70-fullscreen-altscreen", "ready", "done"),
    ("71-repeat-default-30", "ready", "8 x done"),
    ("71-repeat-fullscreen-14", "ready", "8 x done"),
    ("71-repeat-screenreader-30", "ready", "8 x done"),
    ("71-repeat-sync-30", "ready", "8 x done"),
    ("80-permhook-allow", "ready", "done"),
    // the tool was refused, and the agent still closes its message with the marker
    ("82-permhook-deny", "ready", "done"),
    // a stop hook denied the end nine times and was overruled: two signs disagree
    ("83-stophook-block", "ready", "unconfirmed"),
    // four equal prompts; /clear twice in between
    ("85-persona-reload", "ready", "4 x done"),
    ("90-codex-noreplies", "ready", ""),
    ("90-codex-replies", "ready", ""),
    // interrupted in the middle; a refused key; a limit
    (
        "91-codex-session",
        "exited",
        "3 x done, cancelled, failed auth, failed rate_limit",
    ),
    ("93-codex-approval", "ready", "done"),
    // the last one was cancelled during silent retries; /quit is no turn
    (
        "94-gemini-session",
        "exited",
        "2 x done, cancelled, failed auth, cancelled",
    ),
    // its renderer drops the marker's brackets: it is never to be seen
    (
        "95-opencode-noreplies",
        "exited",
        "2 x unconfirmed, cancelled, failed auth",
    ),
];

fn folder() -> PathBuf {
    workspace().join("tests/recordings")
}

fn recording(name: &str) -> Recording {
    let file = folder().join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    Recording::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn played(name: &str) -> Replay {
    replay(&recording(name), &Detectors::bundled())
}

/// How the turns ended: `done, 2 x failed auth`.
fn outcomes(played: &Replay) -> String {
    let words: Vec<String> = played.explanation.turns.iter().map(outcome).collect();
    let same = words.chunk_by(|one, other| one == other);
    let counted = same.map(|run| match run.len() {
        1 => run[0].clone(),
        count => format!("{count} x {}", run[0]),
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn outcome(turn: &TurnExplanation) -> String {
    match turn.outcome.as_deref() {
        None => "running".to_owned(),
        Some("failed") => format!("failed {}", turn.class.as_deref().unwrap_or_default()),
        Some(word) => word.to_owned(),
    }
}

fn names() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).expect("the folder of recordings");
    let files = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    files
        .filter_map(|file| file.strip_suffix(".jsonl").map(str::to_owned))
        .collect()
}

#[test]
fn every_recording_comes_to_the_outcomes_of_the_table() {
    let mut wrong = Vec::new();
    for (name, at_its_end, expected) in TABLE {
        let played = played(name);
        let found = outcomes(&played);
        if (played.last_meaning.as_str(), found.as_str()) != (*at_its_end, *expected) {
            wrong.push(format!(
                "{name}\n  should be: {expected} [{at_its_end}]\n  is:        {found} [{}]",
                played.last_meaning
            ));
        }
        let state = &played.explanation.state;
        let fits = match *at_its_end {
            "ready" | "dialog limit" => *state == SessionState::Idle,
            "busy" => matches!(state, SessionState::Working { .. }),
            "exited" => matches!(state, SessionState::Exited { .. }),
            "fault" => !matches!(state, SessionState::Idle | SessionState::Working { .. }),
            _ => matches!(state, SessionState::AwaitingPerson { .. }),
        };
        if !fits {
            wrong.push(format!("{name}: {state:?} on a screen that means {at_its_end}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        TABLE.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_table_and_the_folder_name_the_same_recordings() {
    let table: BTreeSet<String> = TABLE.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    assert_eq!(table.len(), TABLE.len(), "one is listed twice");
    assert_eq!(table, names());
}

/// The same recording, its output cut into pieces of the sizes that `next` gives.
fn cut(recording: &Recording, mut next: impl FnMut() -> usize) -> Recording {
    let mut cut = recording.clone();
    cut.events.clear();
    for event in &recording.events {
        let Recorded::Output(bytes) = &event.what else {
            cut.events.push(event.clone());
            continue;
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(next().clamp(1, rest.len()));
            let what = Recorded::Output(piece.to_vec());
            cut.events.push(RecordedEvent {
                at_ms: event.at_ms,
                what,
            });
            rest = after;
        }
    }
    cut
}

#[test]
fn how_reads_were_cut_changes_nothing() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % 40) as usize
    };
    let detectors = Detectors::bundled();
    for name in [
        "06-bash-dialog-allow",
        "10-err529",
        "22-ctrlc-before-first-token",
        "31-input-guards",
        "63-cjk-80",
        "68-screenreader-bash-dialog",
        "71-repeat-fullscreen-14",
        "71-repeat-sync-30",
        "83-stophook-block",
        "93-codex-approval",
        "95-opencode-noreplies",
        "170-fullscreen",
    ] {
        let whole = recording(name);
        let expected = replay(&whole, &detectors).explanation;
        for (how, pieces) in [
            ("1 byte", cut(&whole, || 1)),
            ("7 bytes", cut(&whole, || 7)),
            ("random", cut(&whole, &mut random)),
        ] {
            let found = replay(&pieces, &detectors).explanation;
            assert_eq!(found, expected, "{name} in pieces of {how}");
        }
    }
}

#[test]
fn a_recording_that_breaks_off_anywhere_is_never_told_better_than_it_was() {
    let detectors = Detectors::bundled();
    for name in [
        "05-bash-echo-nodialog",
        "10-err429-maxretry1",
        "60-inline-wrap-80",
        "71-repeat-default-30",
    ] {
        let whole = recording(name);
        let expected: Vec<String> = replay(&whole, &detectors)
            .explanation
            .turns
            .iter()
            .map(outcome)
            .collect();
        for kept in (0..whole.events.len()).step_by(3) {
            let mut part = whole.clone();
            part.events.truncate(kept);
            let turns = replay(&part, &detectors).explanation.turns;
            assert!(
                turns.len() <= expected.len(),
                "{name} after {kept} events: {} turns",
                turns.len()
            );
            for (turn, expected) in turns.iter().zip(&expected) {
                let found = outcome(turn);
                let weaker = ["running", "unconfirmed"].contains(&found.as_str());
                assert!(
                    weaker || found == *expected,
                    "{name} after {kept} events: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn the_prompts_of_turns_are_what_was_submitted() {
    let heads = |name: &str| -> Vec<String> {
        let turns = played(name).explanation.turns.into_iter();
        turns
            .map(|turn| turn.prompt_head.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    assert_eq!(heads("40-hooks-text"), ["Please do scn=text/exit"]);
    assert_eq!(
        heads("66-two-line-prompt"),
        ["첫 줄 scn=text 둘째 줄 [SEMO:DONE] 규칙"]
    );
    assert_eq!(
        heads("71-repeat-default-30"),
        (0..8)
            .map(|n| format!("turn {n:02} scn=text"))
            .collect::<Vec<_>>()
    );
    let typed = heads("30-input-methods");
    assert_eq!(
        typed[6..8],
        ["first line scn=text", "second line"],
        "a raw return submits each line"
    );
    assert_eq!(
        heads("31-input-guards").last().map(String::as_str),
        Some("queued scn=text now")
    );
    assert_eq!(heads("93-codex-approval"), ["two lines second scn=bash:touch+zz"]);
    assert_eq!(
        heads("94-gemini-session").first().map(String::as_str),
        Some("say hello scn=text")
    );
    assert_eq!(
        heads("95-opencode-noreplies").last().map(String::as_str),
        Some("bad scn=err401")
    );
}

#[test]
fn an_explanation_names_rule_evidence_and_what_matched_when() {
    let limited = played("12-limit-five-hour-oauth").explanation;
    assert!(
        limited.detector.starts_with("claude ") && limited.program == "claude 2.1.197",
        "{}",
        limited.program
    );
    let turn = &limited.turns[0];
    assert_eq!(turn.rule.as_deref(), Some("provider-failure"));
    assert!(
        turn.reason
            .as_deref()
            .is_some_and(|reason| reason.contains("resets 3:14am (UTC)"))
    );
    assert!(
        turn.evidence
            .claims
            .iter()
            .any(|claim| claim.what == "failure" && claim.source == "screen")
    );
    assert!(
        turn.log.iter().any(|entry| entry.source == "screen"),
        "{:?}",
        turn.log
    );
    let meanings: Vec<&str> = limited
        .readings
        .iter()
        .map(|reading| reading.meaning.as_str())
        .collect();
    assert_eq!(meanings.last(), Some(&"dialog limit"), "{meanings:?}");
    assert!(
        meanings.contains(&"busy") && meanings.contains(&"ready"),
        "{meanings:?}"
    );
    let retried = played("10-err401-default-full").explanation;
    let done = &retried.turns[0];
    assert!(
        done.log.first().is_some_and(|entry| entry.at_ms < 6_000),
        "it begins when it was submitted"
    );
}
