//! Transcripts, however they are cut, replaced or put in another order.

use super::*;

const LINES: &str = concat!(
    r#"{"type":"mode","mode":"normal","sessionId":"s"}"#,
    "\n",
    r#"{"isSidechain":false,"type":"user","message":{"role":"user","content":"첫 줄\n둘째"},"promptSource":"typed","timestamp":"2026-11-21T05:46:49.321Z"}"#,
    "\n",
    r#"{"isSidechain":false,"message":{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"Bash","input":{}}],"stop_reason":"tool_use"},"type":"assistant"}"#,
    "\n",
    r#"{"isSidechain":false,"type":"user","message":{"role":"user","content":[{"type":"tool_result","content":"x","tool_use_id":"t"}]}}"#,
    "\n",
    r#"{"isSidechain":true,"message":{"role":"assistant","content":[{"type":"text","text":"sub"}]},"type":"assistant"}"#,
    "\n",
    r#"{"isSidechain":false,"message":{"role":"assistant","content":[{"type":"text","text":"ok\n\n[SEMO:DONE]"}],"stop_reason":"end_turn"},"type":"assistant"}"#,
    "\n",
    "not json\n",
    r#"{"type":"system","subtype":"turn_duration","durationMs":280}"#,
    "\n",
    r#"{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"Credit balance is too low"}]},"error":"billing_error","isApiErrorMessage":true,"apiErrorStatus":400}"#,
    "\n",
    r#"{"type":"user","message":{"content":[{"type":"text","text":"[Request interrupted by user]"}]},"interruptedMessageId":"m"}"#,
    "\n",
);

fn expected() -> Vec<DatedFact> {
    let mut facts: Vec<DatedFact> = undated()
        .into_iter()
        .map(|fact| DatedFact {
            at: None,
            prompt: None,
            fact,
        })
        .collect();
    facts[0].at = Timestamp::parse_rfc3339("2026-11-21T05:46:49.321Z");
    facts
}

fn undated() -> Vec<TranscriptFact> {
    vec![
        TranscriptFact::UserPrompt {
            text: "첫 줄\n둘째".into(),
        },
        TranscriptFact::ToolUse {
            id: "t".into(),
            name: "Bash".into(),
            input: serde_json::json!({}),
        },
        TranscriptFact::ToolResult {
            id: "t".into(),
            ok: true,
            text: "x".into(),
            response: Value::Null,
        },
        TranscriptFact::AssistantText {
            text: "ok\n\n[SEMO:DONE]".into(),
            stop_reason: Some("end_turn".into()),
        },
        TranscriptFact::TurnDuration {
            ms: 280,
            pending_agents: 0,
        },
        TranscriptFact::ApiError {
            status: Some(400),
            error: "billing_error".into(),
            message: "Credit balance is too low".into(),
        },
        TranscriptFact::Interrupted,
    ]
}

#[test]
fn a_transcript_reads_the_same_however_it_is_cut() {
    for step in [1, 2, 7, 64, LINES.len()] {
        let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
        let facts: Vec<_> = LINES
            .as_bytes()
            .chunks(step)
            .flat_map(|chunk| reader.take_in(chunk))
            .collect();
        assert_eq!(facts, expected(), "cut every {step} bytes");
    }
}

fn line(uuid: &str, parent: Option<&str>, rest: &str) -> String {
    let parent = parent.map_or("null".to_owned(), |parent| format!("\"{parent}\""));
    format!("{{\"uuid\":\"{uuid}\",\"parentUuid\":{parent},{rest}}}\n")
}

fn said(facts: &[DatedFact]) -> Vec<(Option<&str>, &str)> {
    let words = |fact: &TranscriptFact| match fact {
        TranscriptFact::UserPrompt { .. } => "prompt",
        TranscriptFact::Notified { .. } => "notified",
        TranscriptFact::AssistantText { .. } => "text",
        TranscriptFact::TurnDuration { .. } => "end",
        _ => "other",
    };
    let facts = facts.iter();
    facts
        .map(|dated| (dated.prompt.as_deref(), words(&dated.fact)))
        .collect()
}

#[test]
fn the_chain_tells_which_prompt_a_line_follows_from_whatever_the_order_and_the_clocks() {
    let text = r#""type":"assistant","message":{"content":[{"type":"text","text":"a"}]}"#;
    let end = r#""type":"system","subtype":"turn_duration","durationMs":1"#;
    let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
    let early = [
        line("a1", Some("h1"), text),
        line("h1", Some("p1"), r#""type":"attachment""#),
    ]
    .concat();
    assert_eq!(said(&reader.take_in(early.as_bytes())), []);
    let prompt = r#""type":"user","promptId":"one","message":{"content":"do"}"#;
    let facts = reader.take_in(line("p1", None, prompt).as_bytes());
    assert_eq!(said(&facts), [(Some("one"), "prompt"), (Some("one"), "text")]);
    let note = r#""type":"user","message":{"content":"<task-notification><task-id>b</task-id>"}"#;
    let rest = [
        line("e1", Some("a1"), end),
        line("n1", Some("e1"), note),
        line("a2", Some("n1"), text),
    ]
    .concat();
    assert_eq!(
        said(&reader.take_in(rest.as_bytes())),
        [
            (Some("one"), "end"),
            (Some("n1"), "notified"),
            (Some("n1"), "text")
        ]
    );
}

#[test]
fn a_line_whose_parent_never_comes_is_given_out_without_a_prompt_after_a_while() {
    let text = r#""type":"assistant","message":{"content":[{"type":"text","text":"a"}]}"#;
    let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
    assert_eq!(reader.take_in(line("a1", Some("gone"), text).as_bytes()), vec![]);
    let found = (0..=ORPHAN_READS_MAX).find_map(|_| {
        let facts = reader.read().unwrap();
        (!facts.is_empty()).then_some(facts)
    });
    assert_eq!(said(&found.unwrap()), [(None, "text")]);
    let many: String = (0..10 * ORPHANS_MAX)
        .map(|n| line(&format!("x{n}"), Some("gone"), text))
        .collect();
    let facts = reader.take_in(many.as_bytes());
    assert_eq!(facts.len(), 9 * ORPHANS_MAX, "what waits is bounded");
}

#[test]
fn a_growing_file_is_read_once_and_a_missing_one_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let mut reader = TranscriptReader::new(path.clone());
    assert_eq!(reader.read().unwrap(), vec![]);
    let middle = LINES.find("end_turn").unwrap();
    std::fs::write(&path, &LINES[..middle]).unwrap();
    let mut facts = reader.read().unwrap();
    let resumed_at = reader.place();
    std::fs::write(&path, LINES).unwrap();
    facts.extend(reader.read().unwrap());
    assert_eq!(facts, expected());
    assert_eq!(reader.read().unwrap(), vec![]);
    let mut resumed = TranscriptReader::at(resumed_at).unwrap();
    assert_eq!(
        resumed.read().unwrap(),
        expected()[3..],
        "a place is the start of a line"
    );
}

#[test]
fn another_reader_goes_on_at_any_place_and_knows_what_the_lines_follow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let end = r#""type":"system","subtype":"turn_duration","durationMs":1"#;
    let filler = line(
        "f",
        None,
        &format!(r#""type":"mode","text":"{}""#, "x".repeat(READ_BYTES_MAX)),
    );
    for before in ["", filler.as_str()] {
        let lines = [
            prompt("one"),
            line("a1", Some("one"), ANSWER),
            line("e1", Some("a1"), end),
            prompt("two"),
            line("a2", Some("two"), ANSWER),
        ];
        std::fs::write(&path, before).unwrap();
        let mut whole = TranscriptReader::new(path.clone());
        drop(whole.read().unwrap());
        let (mut places, mut told) = (vec![whole.place()], Vec::new());
        for one in &lines {
            let text = std::fs::read_to_string(&path).unwrap() + one;
            std::fs::write(&path, text).unwrap();
            told.push(whole.read().unwrap());
            places.push(whole.place());
        }
        for (at, place) in places.into_iter().enumerate() {
            let mut other = TranscriptReader::at(place).unwrap();
            assert_eq!(other.read().unwrap(), told[at..].concat(), "from line {at} on");
        }
    }
    // Another file in its place: nothing in it is surely of our prompt.
    let place = TranscriptPlace {
        path: path.clone(),
        offset: 5_000,
        inode: Some(1),
    };
    std::fs::write(&path, prompt("one")).unwrap();
    let facts = TranscriptReader::at(place).unwrap().read().unwrap();
    assert_eq!(said(&facts), [(None, "prompt")]);
    let shorter = TranscriptPlace {
        path: path.clone(),
        offset: 1_000_000,
        inode: None,
    };
    let facts = TranscriptReader::at(shorter).unwrap().read().unwrap();
    assert_eq!(said(&facts), [(None, "prompt")]);
    let nowhere = TranscriptPlace {
        path: folder.path().join("none"),
        offset: 7,
        inode: None,
    };
    assert_eq!(TranscriptReader::at(nowhere).unwrap().read().unwrap(), vec![]);
}

const ANSWER: &str = r#""type":"assistant","message":{"content":[{"type":"text","text":"a"}]}"#;

fn prompt(id: &str) -> String {
    let rest =
        format!(r#""type":"user","promptId":"{id}","promptSource":"typed","message":{{"content":"do"}}"#);
    line(id, None, &rest)
}

#[test]
fn a_file_that_was_replaced_is_read_anew_and_nothing_of_it_is_told_twice_or_taken_for_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let first = [prompt("one"), line("a1", Some("one"), ANSWER)].concat();
    std::fs::write(&path, &first).unwrap();
    let mut reader = TranscriptReader::new(path.clone());
    assert_eq!(
        said(&reader.read().unwrap()),
        [(Some("one"), "prompt"), (Some("one"), "text")]
    );
    // Written anew with one more line before what is known, and one behind it.
    let other = folder.path().join("other");
    let end = r#""type":"system","subtype":"turn_duration","durationMs":1"#;
    let text = [prompt("x"), first.clone(), line("e1", Some("a1"), end)].concat();
    std::fs::write(&other, text).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(
        said(&reader.read().unwrap()),
        [(None, "prompt"), (Some("one"), "end")]
    );
    // Cut off, and something else written into it.
    std::fs::write(&path, prompt("y")).unwrap();
    assert_eq!(said(&reader.read().unwrap()), [(None, "prompt")]);
    assert_eq!(reader.read().unwrap(), vec![]);
}

#[test]
fn a_huge_transcript_is_left_out_without_being_read_and_its_last_line_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let filler = line(
        "f",
        Some("gone"),
        &format!("\"type\":\"attachment\",\"x\":\"{}\"", "y".repeat(4_000)),
    );
    let mut text = filler.repeat(3 * READ_BYTES_MAX / filler.len());
    text.push_str(&prompt("one"));
    std::fs::write(&path, &text).unwrap();
    let mut reader = TranscriptReader::new(path.clone());
    reader.skip_to_end().unwrap();
    assert_eq!(reader.offset(), text.len() as u64);
    assert!(reader.chain.order.len() <= 2, "only its end was read");
    assert!(reader.chain.orphans.is_empty(), "nothing old is told later");
    text.push_str(&line("a1", Some("one"), ANSWER));
    std::fs::write(&path, &text).unwrap();
    assert_eq!(said(&reader.read().unwrap()), [(Some("one"), "text")]);
    reader.skip_to_end().unwrap();
    assert_eq!(reader.read().unwrap(), vec![]);
}

#[test]
fn only_the_programs_own_words_tell_of_an_interrupt_and_of_an_overruled_hook() {
    let of = |rest: &str| {
        let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
        let facts = reader.take_in(line("l", None, rest).as_bytes());
        facts.into_iter().map(|dated| dated.fact).next()
    };
    let user = |text: &str, more: &str| {
        of(&format!(
            r#""type":"user","message":{{"content":"{text}"}}{more}"#
        ))
    };
    for words in [
        "[Request interrupted by user]",
        "[Request interrupted by user for tool use]",
    ] {
        assert_eq!(user(words, ""), Some(TranscriptFact::Interrupted));
        let typed = user(words, r#","promptSource":"typed""#);
        assert_eq!(typed, Some(TranscriptFact::UserPrompt { text: words.into() }));
    }
    let longer = "[Request interrupted by user] is what I see in my log. Why?";
    assert_eq!(
        user(longer, ""),
        Some(TranscriptFact::UserPrompt { text: longer.into() })
    );
    assert_eq!(
        user(
            "Stop hook feedback:\\nThe tests are missing.",
            r#","isMeta":true"#
        ),
        Some(TranscriptFact::Prodded { by_stop_hook: true })
    );
    let warning = r#""type":"system","subtype":"informational","content":"A hook blocked the turn from ending 9 consecutive times — overriding and ending turn.""#;
    assert_eq!(of(warning), Some(TranscriptFact::Overruled));
}

#[test]
fn an_endless_line_is_skipped_and_the_next_is_read() {
    let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
    let block = vec![b'x'; 1024 * 1024];
    for _ in 0..=LINE_BYTES_MAX / block.len() {
        assert_eq!(reader.take_in(&block), vec![]);
        assert!(reader.partial.len() <= LINE_BYTES_MAX);
    }
    assert_eq!(reader.take_in(b"\n"), vec![]);
    assert_eq!(reader.take_in(LINES.as_bytes()), expected());
}

#[test]
fn the_path_is_the_one_the_program_uses() {
    let id = SessionId(uuid::Uuid::nil());
    let path = transcript_path(Path::new("/h/.claude"), Path::new("/home/u/my_code/wt.1"), id);
    assert_eq!(
        path,
        Path::new(&format!("/h/.claude/projects/-home-u-my-code-wt-1/{id}.jsonl"))
    );
}
