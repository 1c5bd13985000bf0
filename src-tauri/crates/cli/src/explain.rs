//! `semo explain`: how a session, or a recording of one, came to the outcomes of its turns.

use std::path::Path;

use domain::marker::Marker;
use provider::detect::Detectors;
use provider::recording::{RECORDING_BYTES_MAX, Recording};
use serde_json::{Value, json};
use session::replay::{Replay, replay};

use crate::arguments::Explain;
use crate::exit::{Exit, Failure};
use crate::local::{Local, list, text};
use crate::print::{self, note, out};
use crate::world::World;
use crate::{evidence, words};

/// Lines of a turn's log that are printed: the first and the newest ones. `--json` has them all.
const LOG_LINES_MAX: usize = 12;
/// Readings that are printed: the newest ones.
const READINGS_MAX: usize = 10;
/// So many characters of the instruction tell it from a person's own words.
const INSTRUCTION_CHARS: usize = 24;
/// Characters of outside text that are printed.
const VALUE_CHARS_MAX: usize = 100;
/// Folder of the owner's own manifests, in the data folder.
const DETECTORS_DIR: &str = "detectors";

/// Runs the order. The exit code is 2 when the recording cannot be read.
pub async fn run(world: &World, order: &Explain) -> Result<Exit, Failure> {
    if let Some(file) = &order.recording {
        let detectors = detectors(world);
        let played = played(file, &detectors)?;
        if order.json {
            out!("{}", json!(played))?;
        } else {
            print::block(&recording_in_words(file, &played))?;
        }
        return Ok(Exit::Ok);
    }
    let session = order.session.as_deref().unwrap_or_default();
    let explanation = Local::open(world)?.explanation(session).await?;
    if order.json {
        out!("{explanation}")?;
    } else {
        print::block(&in_words(&explanation))?;
    }
    Ok(Exit::Ok)
}

/// The same manifests that a running core of this data folder uses.
fn detectors(world: &World) -> Detectors {
    let (detectors, faults) = Detectors::bundled().with_folder(&world.paths.data_dir.join(DETECTORS_DIR));
    for fault in faults {
        note!("warning: {fault}");
    }
    detectors
}

fn played(file: &Path, detectors: &Detectors) -> Result<Replay, Failure> {
    let refused = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", file.display()), "");
    let about = std::fs::metadata(file).map_err(|error| refused(format!("it cannot be read: {error}")))?;
    if about.len() > RECORDING_BYTES_MAX as u64 {
        return Err(refused(format!("it is longer than {RECORDING_BYTES_MAX} bytes")));
    }
    let bytes = std::fs::read(file).map_err(|error| refused(format!("it cannot be read: {error}")))?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // The last letter of one that was cut off.
        Err(error) if error.utf8_error().error_len().is_none() => {
            String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned()
        }
        Err(_) => return Err(refused("it is no text in UTF-8".to_owned())),
    };
    let recording = Recording::parse(&text).map_err(|error| refused(error.to_string()))?;
    Ok(replay(&recording, detectors))
}

fn recording_in_words(file: &Path, played: &Replay) -> String {
    let head = format!(
        "recording   {}\ncommand     {}\nterminal    {}x{}, {:.1} s\nat its end  {}\n",
        file.display(),
        played.argv.join(" "),
        played.cols,
        played.rows,
        played.length_ms as f64 / 1000.0,
        played.last_meaning,
    );
    let note = played
        .truncated_at_line
        .map(|line| format!("note        it is cut off in line {line}; this is what comes before\n"));
    head + &note.unwrap_or_default() + &in_words(&json!(played.explanation))
}

/// An explanation, as the core tells it. What is missing in it is left out.
pub fn in_words(explanation: &Value) -> String {
    let mut lines = vec![
        format!("program     {}", text(&explanation["program"])),
        format!("detector    {}", text(&explanation["detector"])),
        format!("state       {}", state(&explanation["state"])),
    ];
    let turns = list(explanation, "turns");
    if turns.is_empty() {
        lines.push("no turn".to_owned());
    }
    for (number, turn) in turns.iter().enumerate() {
        lines.push(String::new());
        turn_in_words(number + 1, turn, &mut lines);
    }
    let readings = list(explanation, "readings");
    if !readings.is_empty() {
        lines.push("\nwhat the screen meant".to_owned());
    }
    for reading in &readings[readings.len().saturating_sub(READINGS_MAX)..] {
        let (meaning, rule) = (text(&reading["meaning"]), text(&reading["rule"]));
        let matched = clipped(&text(&reading["matched"]));
        lines.push(format!(
            "  {} {meaning:<18} {rule:<30} {matched}",
            moment(&reading["at_ms"])
        ));
    }
    lines.join("\n") + "\n"
}

fn turn_in_words(number: usize, turn: &Value, lines: &mut Vec<String>) {
    let outcome = turn["outcome"].as_str().unwrap_or("not over");
    let class = turn["class"].as_str();
    let class = class.map(|class| format!(" ({class})")).unwrap_or_default();
    let prompt = clipped(without_instruction(turn["prompt_head"].as_str().unwrap_or("-")));
    lines.push(format!("turn {number}      {prompt}"));
    lines.push(format!("  outcome   {outcome}{class}"));
    for (name, key) in [("rule", "rule"), ("why", "reason")] {
        if let Some(words) = turn[key].as_str() {
            lines.push(format!("  {name:<9} {words}"));
        }
    }
    let facts = evidence::lines(list(&turn["evidence"], "claims"));
    lines.extend(facts.iter().map(|fact| format!("  {fact}")));
    let log = list(turn, "log");
    // The first line says when it began.
    let skipped = log.len().saturating_sub(LOG_LINES_MAX);
    let shown = |at: &usize| *at == 0 || *at > skipped;
    for (_, entry) in log.iter().enumerate().filter(|(at, _)| skipped == 0 || shown(at)) {
        let (source, rule) = (text(&entry["source"]), text(&entry["rule"]));
        let what = clipped(&text(&entry["what"]));
        lines.push(format!(
            "  {} {source:<10} {rule:<22} {what}",
            moment(&entry["at_ms"])
        ));
    }
}

fn state(state: &Value) -> String {
    let word = text(&state["state"]).replace('_', " ");
    let more = state["ask"].as_str().map(str::to_owned);
    let more = more.or_else(|| state["code"].as_i64().map(|code| format!("code {code}")));
    more.map_or(word.clone(), |more| format!("{word} ({more})"))
}

/// Counted from the beginning of the session, or of the recording.
fn moment(at_ms: &Value) -> String {
    format!("{:>+10.3} s", at_ms.as_u64().unwrap_or_default() as f64 / 1000.0)
}

/// The prompt as a person wrote it: what asks for the mark of completion stands behind it, and may be cut.
fn without_instruction(prompt: &str) -> &str {
    let instruction = Marker::Plain.instruction().unwrap_or_default();
    let beginning: String = instruction.chars().take(INSTRUCTION_CHARS).collect();
    match prompt.find(&beginning) {
        Some(at) if at > 0 => prompt[..at].trim_end(),
        _ => prompt,
    }
}

fn clipped(text: &str) -> String {
    words::clipped(text, VALUE_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_told_in_words_and_a_strange_one_breaks_nothing() {
        let explanation = json!({
            "program": "claude 2.1.197", "detector": "claude 1", "state": {"state": "awaiting_person", "ask": "permission"},
            "turns": [{
                "prompt_head": "do it\n\nWhen, and only when, everything ab…", "outcome": "failed", "class": "auth", "rule": "provider-failure", "reason": "Not logged in",
                "evidence": {"rule": "x", "claims": [{"what": "failure", "value": {"class": "auth"}, "tier": "observed", "source": "screen"}]},
                "log": [{"at_ms": 1500, "source": "screen", "rule": "failed", "what": "a\u{1b}b"}],
            }],
            "readings": [{"at_ms": 1, "rule": "claude/ready", "matched": "? for", "meaning": "ready"}],
        });
        let words = in_words(&explanation);
        for part in [
            "awaiting person (permission)",
            "turn 1      do it\n",
            "failed (auth)",
            "provider-failure",
            "Not logged in",
            "  failure (auth) (observed, screen)",
            "+1.500 s screen",
            "a b",
            "claude/ready",
        ] {
            assert!(words.contains(part), "{part} is missing in:\n{words}");
        }
        assert!(in_words(&json!(7)).contains("no turn"));
    }

    #[test]
    fn a_bad_recording_is_refused_with_its_name_and_line() {
        let file = std::env::temp_dir().join(format!("semo-explain-{}.jsonl", std::process::id()));
        let header = "{\"width\": 80, \"height\": 24}\n";
        std::fs::write(&file, format!("{header}{{\"t\": 1, \"k\": \"\u{e9}")).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        let cut = played(&file, &Detectors::bundled()).unwrap();
        assert_eq!(json!(cut)["truncated_at_line"], 2);
        let words = recording_in_words(&file, &cut);
        assert!(words.contains("it is cut off in line 2"), "{words}");
        std::fs::write(&file, format!("{header}{{\"t\": 1}}\n")).unwrap();
        let failure = played(&file, &Detectors::bundled()).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.message.contains("semo-explain-") && failure.message.contains("line 2"),
            "{}",
            failure.message
        );
        let missing = played(Path::new("/nowhere/at/all"), &Detectors::bundled()).unwrap_err();
        assert!(missing.message.contains("/nowhere/at/all"), "{}", missing.message);
    }
}
