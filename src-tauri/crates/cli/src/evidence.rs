//! What backs an outcome, in lines for people: of results in the office (`send`) and of explanations (`explain`).
//!
//! It reads claims as JSON and is tolerant: an office may hold those of another version. What is not known by name is
//! shown as it is; what says nothing (zero, false, an empty list) is left out. `--json` has everything.

use domain::Timestamp;
use serde_json::Value;

use crate::ids::short;
use crate::words::{clipped, clock, count, span};

/// Characters of outside text in one line.
const TEXT_CHARS_MAX: usize = 100;
/// Characters of a commit's name.
const SHA_CHARS: usize = 8;

/// One line for each thing that is known, with how it is known: `2 files changed (verified, git)`.
pub fn lines(claims: &[Value]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for claim in claims {
        // The session and the asks both tell of one answer.
        let repeated = claim["what"] == "answer"
            && claims
                .iter()
                .take_while(|earlier| !std::ptr::eq(*earlier, claim))
                .any(|earlier| {
                    earlier["what"] == "answer" && earlier["value"]["ask"] == claim["value"]["ask"]
                });
        if let Some(fact) = fact(claim, claims).filter(|_| !repeated) {
            let known = |key: &str| claim[key].as_str().unwrap_or("unknown").to_owned();
            lines.push(format!("{fact} ({}, {})", known("tier"), known("source")));
        }
    }
    lines
}

fn fact(claim: &Value, all: &[Value]) -> Option<String> {
    let value = &claim["value"];
    if claim["source"] == "git" {
        return of_git(claim["what"].as_str()?, value, all);
    }
    match claim["what"].as_str()? {
        // It stands above.
        "final_message" => None,
        "prompt_acknowledged" => {
            let enters = value["enters"].as_u64().filter(|enters| *enters > 1)?;
            Some(format!(
                "the prompt was taken after Enter was pressed {enters} times"
            ))
        }
        "stopped" => {
            let left = value["background_tasks"].as_u64().filter(|left| *left > 0)?;
            Some(format!("{} still ran at its end", count(left, "background task")))
        }
        "turn_ms" => Some(format!("took {}", span(value.as_u64()?))),
        "marker" => Some(marker(value.as_str()?).to_owned()),
        "transcript_agrees" => match value.as_bool()? {
            true => Some("the transcript agrees".to_owned()),
            false => Some("the transcript says something else".to_owned()),
        },
        "tools_used" => tools(value),
        "pull_request" => Some(format!("pull request {}", address(value))),
        "pull_request_mentioned" => Some(format!("pull request mentioned: {}", address(value))),
        "command" => Some(command(value)),
        "failure" => Some(failure(value)),
        "interrupted" => value.as_bool()?.then(|| "interrupted".to_owned()),
        "answer" => Some(answer(value)),
        "taken_up" => Some(taken_up(value).to_owned()),
        "retries" => Some(format!(
            "tried again, {} of {} times: {}",
            value["attempt"],
            value["max"],
            text(&value["words"])
        )),
        unknown => other_fact(unknown, value),
    }
}

/// What git says. Numbers that belong together are one line, told by the first of them.
fn of_git(what: &str, value: &Value, all: &[Value]) -> Option<String> {
    let number = value.as_u64();
    let other = |what: &str| {
        all.iter()
            .find(|other| other["what"] == what)
            .map(|other| &other["value"])
    };
    let amount = |what: &str| other(what).and_then(Value::as_u64).unwrap_or_default();
    match what {
        "insertions" | "deletions" | "head_before" => None,
        "untracked" => number
            .filter(|n| *n > 0 && other("uncommitted").is_none())
            .map(|n| count(n, "new file")),
        "head_after" => {
            let (before, after) = (other("head_before").unwrap_or(&Value::Null), value);
            (before != after && !before.is_null()).then(|| format!("head {} → {}", sha(before), sha(after)))
        }
        "branch" => Some(format!("branch {}", text(value))),
        "commits" => number.filter(|n| *n > 0).map(|n| count(n, "commit")),
        "commit" => Some(format!(
            "commit {} {}",
            sha(&value["sha"]),
            text(&value["subject"])
        )),
        "files_changed" => {
            let files = number
                .filter(|n| *n > 0)
                .map(|n| format!("{} changed", count(n, "file")));
            let lines = [
                ("insertions", "line added", "lines added"),
                ("deletions", "line deleted", "lines deleted"),
            ]
            .into_iter()
            .filter(|(what, ..)| amount(what) > 0)
            .map(|(what, one, many)| {
                format!("{} {}", amount(what), if amount(what) == 1 { one } else { many })
            });
            let parts: Vec<_> = files.into_iter().chain(lines).collect();
            (!parts.is_empty()).then(|| parts.join(", "))
        }
        "uncommitted" => {
            let new = amount("untracked");
            let new = if new > 0 {
                format!(", {} among them", count(new, "new file"))
            } else {
                String::new()
            };
            value
                .as_bool()?
                .then(|| format!("changes that are not committed{new}"))
        }
        "unpushed" => number
            .filter(|n| *n > 0)
            .map(|n| format!("{} not pushed", count(n, "commit"))),
        unknown => other_fact(unknown, value),
    }
}

fn other_fact(what: &str, value: &Value) -> Option<String> {
    says_something(value).then(|| format!("{}: {}", what.replace('_', " "), text(value)))
}

/// How far the turn had come when the core that had begun it went away.
fn taken_up(value: &Value) -> &'static str {
    match value["stage"].as_str() {
        Some("entering") => "the core was restarted while this was submitted, and followed it from there",
        _ => "the core was restarted while this ran, and followed it from there",
    }
}

fn marker(sign: &str) -> &str {
    match sign {
        "present" => "its last line is the mark of completion",
        "mentioned_only" => "the mark of completion is mentioned, but is not its last line",
        "absent" => "the mark of completion is missing",
        other => other,
    }
}

fn tools(value: &Value) -> Option<String> {
    let of = |key: &str| value[key].as_u64().unwrap_or_default();
    let commands = match (of("commands"), of("failed_commands")) {
        (0, _) => String::new(),
        (commands, 0) => format!(", {} among them", count(commands, "command")),
        (commands, failed) => format!(", {} among them ({failed} failed)", count(commands, "command")),
    };
    let uses = if of("tools") == 1 {
        "use of a tool"
    } else {
        "uses of a tool"
    };
    (of("tools") > 0).then(|| format!("{} {uses}{commands}", of("tools")))
}

fn command(value: &Value) -> String {
    let kind = if value["test"] == true { "tests" } else { "command" };
    let end = match (value["ok"].as_bool(), value["exit_code"].as_i64()) {
        _ if value["background"] == true => "runs in the background".to_owned(),
        _ if value["stopped"].is_string() => format!("was {}", text(&value["stopped"])),
        (Some(true), _) if kind == "tests" => "passed".to_owned(),
        (Some(true), _) => "worked".to_owned(),
        (Some(false), Some(code)) => format!("failed with exit code {code}"),
        (Some(false), None) => "failed".to_owned(),
        (None, _) => "ended; how cannot be told from the line".to_owned(),
    };
    let took = value["duration_ms"]
        .as_u64()
        .map(|ms| format!(" after {}", span(ms)))
        .unwrap_or_default();
    format!("{kind} `{}` {end}{took}", text(&value["command"]))
}

fn failure(value: &Value) -> String {
    let class = value["class"]
        .as_str()
        .map(|class| format!(" ({class})"))
        .unwrap_or_default();
    let words = match &value["message"] {
        Value::String(message) => format!(": {}", clipped(message, TEXT_CHARS_MAX)),
        _ if value.is_string() => format!(": {}", text(value)),
        _ => String::new(),
    };
    let lifted = match (value["resets_at"].as_i64(), value["resets_text"].as_str()) {
        (Some(at), _) => format!("; lifted at {}", clock(Timestamp(at))),
        (None, Some(when)) => format!("; lifted {}", clipped(when, TEXT_CHARS_MAX)),
        (None, None) => String::new(),
    };
    format!("failure{class}{words}{lifted}")
}

fn answer(value: &Value) -> String {
    let answer = &value["answer"];
    let said = match answer["say"].as_str() {
        Some("allow") => "allowed".to_owned(),
        Some("deny") => match answer["message"].as_str().filter(|message| !message.is_empty()) {
            Some(message) => format!("denied: {}", clipped(message, TEXT_CHARS_MAX)),
            None => "denied".to_owned(),
        },
        Some("choose") => format!("choice {}", answer["choice"].as_u64().unwrap_or_default() + 1),
        Some(other) => clipped(other, TEXT_CHARS_MAX),
        None => "answered".to_owned(),
    };
    let way = match value["way"].as_str() {
        Some("cli") => " with `semo approve`",
        Some("window") => " in a window",
        Some("terminal") => " in the terminal",
        Some("command") => " by a command of the office",
        _ => "",
    };
    format!("ask {}: {said}{way}", short(&value["ask"]))
}

fn address(value: &Value) -> String {
    text(value.get("url").unwrap_or(value))
}

fn sha(value: &Value) -> String {
    value.as_str().unwrap_or("-").chars().take(SHA_CHARS).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => clipped(text, TEXT_CHARS_MAX),
        other => clipped(&other.to_string(), TEXT_CHARS_MAX),
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(what: &str, value: Value) -> Vec<String> {
        let git = ["commits", "commit", "files_changed", "uncommitted"].contains(&what);
        let source = if git { "git" } else { "x" };
        let told = lines(&[json!({"what": what, "value": value, "tier": "observed", "source": source})]);
        told.iter().map(|line| line.replace("git)", "x)")).collect()
    }

    #[test]
    fn each_claim_has_words() {
        for (what, value, words) in [
            ("turn_ms", json!(595), "took 0.6 s"),
            (
                "marker",
                json!("present"),
                "its last line is the mark of completion",
            ),
            (
                "commit",
                json!({"sha": "82a51b47f8cceacc", "subject": "Add it"}),
                "commit 82a51b47 Add it",
            ),
            ("files_changed", json!(1), "1 file changed"),
            (
                "taken_up",
                json!({"stage": "entering"}),
                "the core was restarted while this was submitted, and followed it from there",
            ),
            (
                "pull_request",
                json!({"url": "https://x/pull/1"}),
                "pull request https://x/pull/1",
            ),
            (
                "command",
                json!({"command": "make test", "ok": true, "test": true, "duration_ms": 1200}),
                "tests `make test` passed after 1.2 s",
            ),
            (
                "command",
                json!({"command": "false", "ok": false, "exit_code": 1}),
                "command `false` failed with exit code 1",
            ),
            (
                "failure",
                json!({"class": "rate_limit", "message": "limit", "resets_at": 1_767_225_661_500_i64}),
                "failure (rate_limit): limit; lifted at 00:01:01 UTC",
            ),
            (
                "answer",
                json!({"ask": "8d5535a9-5213", "answer": {"say": "allow"}, "way": "cli"}),
                "ask 8d5535a9: allowed with `semo approve`",
            ),
            (
                "retries",
                json!({"attempt": 2, "max": 10, "words": "overloaded"}),
                "tried again, 2 of 10 times: overloaded",
            ),
            (
                "tools_used",
                json!({"tools": 3, "commands": 1, "failed_commands": 1}),
                "3 uses of a tool, 1 command among them (1 failed)",
            ),
            ("of_tomorrow", json!("yes\u{1b}"), "of tomorrow: yes"),
        ] {
            assert_eq!(told(what, value), [format!("{words} (observed, x)")], "{what}");
        }
    }

    #[test]
    fn what_says_nothing_is_left_out_and_a_strange_claim_breaks_nothing() {
        for (what, value) in [
            ("commits", json!(0)),
            ("files_changed", json!(0)),
            ("uncommitted", json!(false)),
            ("stopped", json!({"background_tasks": 0})),
            ("prompt_acknowledged", json!({"enters": 1})),
            ("final_message", json!("x")),
            ("of_tomorrow", json!([])),
        ] {
            assert_eq!(told(what, value), Vec::<String>::new(), "{what}");
        }
        assert!(
            lines(&[json!(7), json!({"what": 1})]).is_empty(),
            "a strange one breaks nothing"
        );
    }

    #[test]
    fn what_belongs_together_is_one_line() {
        let claim = |what: &str, value: Value| json!({"what": what, "value": value, "tier": "verified", "source": "git"});
        let ask = json!({"ask": "a", "answer": {"say": "allow"}});
        let answer =
            |source: &str| json!({"what": "answer", "value": ask, "tier": "verified", "source": source});
        let told = lines(&[
            claim("head_before", json!("aaaaaaaaaa")),
            claim("head_after", json!("bbbbbbbbbb")),
            claim("files_changed", json!(2)),
            claim("insertions", json!(1)),
            claim("deletions", json!(0)),
            claim("uncommitted", json!(true)),
            claim("untracked", json!(2)),
            answer("person"),
            answer("asks"),
        ]);
        let facts: Vec<_> = told
            .iter()
            .map(|line| line.replace(" (verified, git)", ""))
            .collect();
        let expected = [
            "head aaaaaaaa → bbbbbbbb",
            "2 files changed, 1 line added",
            "changes that are not committed, 2 new files among them",
            "ask a: allowed (verified, person)",
        ];
        assert_eq!(facts, expected);
    }
}
