//! `semo explain`: how a session, or a recording of one, came to the outcomes of its turns.

use std::path::Path;

use provider::detect::Detectors;
use provider::recording::{RECORDING_BYTES_MAX, Recording};
use serde_json::{Value, json};
use session::replay::{Replay, replay};

use crate::arguments::Explain;
use crate::exit::{Exit, Failure};
use crate::local::Local;
use crate::world::World;

/// Lines of a turn's log that are printed: the newest ones. `--json` has them all.
const LOG_LINES_MAX: usize = 12;
/// Readings that are printed: the newest ones.
const READINGS_MAX: usize = 10;
/// Characters of a claim's value that are printed.
const VALUE_CHARS_MAX: usize = 100;
/// Folder of the owner's own manifests, in the data folder.
const DETECTORS_DIR: &str = "detectors";

/// Runs the order. The exit code is 2 when the recording cannot be read.
pub async fn run(world: &World, order: &Explain) -> Result<Exit, Failure> {
    if let Some(file) = &order.recording {
        let detectors = detectors(world);
        let played = played(file, &detectors)?;
        if order.json {
            println!("{}", json!(played));
        } else {
            print!("{}", recording_in_words(file, &played));
        }
        return Ok(Exit::Ok);
    }
    let session = order.session.as_deref().unwrap_or_default();
    let explanation = Local::open(world)?.explanation(session).await?;
    if order.json {
        println!("{explanation}");
    } else {
        print!("{}", in_words(&explanation));
    }
    Ok(Exit::Ok)
}

/// The same manifests that a running core of this data folder uses.
fn detectors(world: &World) -> Detectors {
    let (detectors, faults) = Detectors::bundled().with_folder(&world.paths.data_dir.join(DETECTORS_DIR));
    for fault in faults {
        eprintln!("warning: {fault}");
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
    let text = String::from_utf8(bytes).map_err(|_| refused("it is no text in UTF-8".to_owned()))?;
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
    head + &in_words(&json!(played.explanation))
}

/// An explanation, as the core tells it. What is missing in it is left out.
pub fn in_words(explanation: &Value) -> String {
    let mut lines = vec![
        format!("program     {}", text(&explanation["program"])),
        format!("detector    {}", text(&explanation["detector"])),
        format!("state       {}", state(&explanation["state"])),
    ];
    let turns = explanation["turns"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if turns.is_empty() {
        lines.push("no turn".to_owned());
    }
    for (number, turn) in turns.iter().enumerate() {
        lines.push(String::new());
        turn_in_words(number + 1, turn, &mut lines);
    }
    let readings = explanation["readings"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
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
    let claims = turn["evidence"]["claims"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let class = turn["class"].as_str();
    let class = class.map(|class| format!(" ({class})")).unwrap_or_default();
    lines.push(format!("turn {number}      {}", text(&turn["prompt_head"])));
    lines.push(format!("  outcome   {outcome}{class}"));
    for (name, key) in [("rule", "rule"), ("why", "reason")] {
        if let Some(words) = turn[key].as_str() {
            lines.push(format!("  {name:<9} {words}"));
        }
    }
    for claim in claims {
        let value = claim["value"]
            .as_str()
            .map_or_else(|| claim["value"].to_string(), str::to_owned);
        let (what, tier, source) = (text(&claim["what"]), text(&claim["tier"]), text(&claim["source"]));
        lines.push(format!("  {tier:<9} {what}: {} [{source}]", clipped(&value)));
    }
    let log = turn["log"].as_array().map(Vec::as_slice).unwrap_or_default();
    for entry in &log[log.len().saturating_sub(LOG_LINES_MAX)..] {
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

fn moment(at_ms: &Value) -> String {
    format!("{:>9.3} s", at_ms.as_u64().unwrap_or_default() as f64 / 1000.0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// One line, without control characters: what a screen showed goes to another one here.
fn clipped(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = printable.take(VALUE_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_told_in_words_and_a_strange_one_breaks_nothing() {
        let explanation = json!({
            "program": "claude 2.1.197", "detector": "claude 1", "state": {"state": "awaiting_person", "ask": "permission"},
            "turns": [{
                "prompt_head": "do it", "outcome": "failed", "class": "auth", "rule": "provider-failure", "reason": "Not logged in",
                "evidence": {"rule": "x", "claims": [{"what": "failure", "value": {"class": "auth"}, "tier": "observed", "source": "screen"}]},
                "log": [{"at_ms": 1500, "source": "screen", "rule": "failed", "what": "a\u{1b}b"}],
            }],
            "readings": [{"at_ms": 1, "rule": "claude/ready", "matched": "? for", "meaning": "ready"}],
        });
        let words = in_words(&explanation);
        for part in [
            "awaiting person (permission)",
            "do it",
            "failed (auth)",
            "provider-failure",
            "Not logged in",
            "observed  failure: {\"class\":\"auth\"} [screen]",
            "1.500 s screen",
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
        std::fs::write(&file, "{\"width\": 80, \"height\": 24}\n{\"t\": 1}\n").unwrap();
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
