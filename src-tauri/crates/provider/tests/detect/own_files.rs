//! What an owner's own files do: they extend, replace, and when they are wrong say where and change nothing.

use std::path::Path;

use provider::Version;
use provider::detect::{DetectorFault, Detectors, FOLDER_FILES_MAX};

use crate::rules::screen;

const HEAD: &str = "format = 1\nprovider = \"claude\"\nversion = \"2027.1.1.1\"\nprograms = \">=2.0, <3\"\n";
const RULE: &str =
    "[[rule]]\nid = \"ours\"\nmeans = \"menu\"\nin = \"screen\"\nany = [{ contains = \"Pick a colour\" }]\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn faults_of(text: &str) -> Vec<DetectorFault> {
    let folder = folder(&[("own.toml", text)]);
    let (detectors, faults) = Detectors::bundled().with_folder(folder.path());
    let ready = ["────────────", "❯ ", "────────────", "  ? for shortcuts"];
    let reading = detectors
        .for_program("claude", None)
        .read(&screen(60, "", &ready));
    assert!(
        faults.is_empty() || &*reading.rule == "claude/ready",
        "a bad file changes nothing"
    );
    faults
}

fn rule_of(detectors: &Detectors, version: &str, row: &str) -> String {
    let version = Version::parse(version).unwrap();
    let detector = detectors.for_program("claude", Some(&version));
    detector.read(&screen(60, "", &[row])).rule.to_string()
}

#[test]
fn a_folder_that_is_not_there_holds_nothing() {
    let (_, faults) = Detectors::bundled().with_folder(Path::new("/nonexistent-folder"));
    assert_eq!(faults, []);
}

#[test]
fn an_extension_is_asked_before_the_bundled_rules() {
    let text = format!("{HEAD}extends = true\n{RULE}");
    let folder = folder(&[("own.toml", &text), ("notes.txt", "not a manifest")]);
    let (detectors, faults) = Detectors::bundled().with_folder(folder.path());
    assert_eq!(faults, []);
    assert_eq!(rule_of(&detectors, "2.1.197", "Pick a colour"), "claude/ours");
    assert_eq!(rule_of(&detectors, "2.1.197", "Esc to cancel"), "claude/menu");
    let version = Version::parse("2.1.197").unwrap();
    let detector = detectors.for_program("claude", Some(&version));
    assert!(
        detector.name().starts_with("claude 2027.1.1.1 over "),
        "{}",
        detector.name()
    );
    assert!(!detector.is_guess());
}

#[test]
fn several_extensions_are_all_asked_the_first_by_name_first() {
    let second = RULE.replace("ours", "second").replace("Pick a colour", "colour");
    let texts = [
        format!("{HEAD}extends = true\n{RULE}"),
        format!("{HEAD}extends = true\n{second}"),
    ];
    let folder = folder(&[("a.toml", &texts[0]), ("b.toml", &texts[1])]);
    let (detectors, faults) = Detectors::bundled().with_folder(folder.path());
    assert_eq!(faults, []);
    assert_eq!(rule_of(&detectors, "2.1.197", "Pick a colour"), "claude/ours");
    assert_eq!(rule_of(&detectors, "2.1.197", "another colour"), "claude/second");
}

#[test]
fn a_replacement_stands_alone_and_only_for_its_versions() {
    let text = format!("{HEAD}{RULE}").replace(">=2.0, <3", "=2.1.200");
    let folder = folder(&[("own.toml", &text)]);
    let (detectors, _) = Detectors::bundled().with_folder(folder.path());
    assert_eq!(rule_of(&detectors, "2.1.200", "Pick a colour"), "claude/ours");
    assert_eq!(rule_of(&detectors, "2.1.200", "Esc to cancel"), "claude/none");
    assert_eq!(rule_of(&detectors, "2.1.197", "Esc to cancel"), "claude/menu");
}

#[test]
fn a_version_nobody_made_a_manifest_for_is_a_guess_that_says_so() {
    let detectors = Detectors::bundled();
    let future = Version::parse("7.0.0").unwrap();
    let detector = detectors.for_program("claude", Some(&future));
    assert!(
        detector.is_guess() && detector.name().contains("not made for 7.0.0"),
        "{}",
        detector.name()
    );
    assert!(detectors.for_program("claude", None).is_guess());
    let known = Version::parse("2.1.329").unwrap();
    let detector = detectors.for_program("claude", Some(&known));
    assert!(!detector.is_guess());
    assert_eq!(detector.name(), "claude 2026.11.21.1");
}

#[test]
fn a_file_that_became_wrong_keeps_what_it_said_before() {
    let good = format!("{HEAD}extends = true\n{RULE}\n[patterns]\nerrors = ['^BROKEN']\n");
    let folder = folder(&[("own.toml", &good)]);
    let (before, _) = Detectors::bundled().with_folder(folder.path());
    std::fs::write(folder.path().join("own.toml"), "format = 1\nprovider = ").unwrap();
    let (after, faults) = before.with_folder(folder.path());
    assert_eq!(faults.len(), 1);
    assert_eq!(rule_of(&after, "2.1.197", "Pick a colour"), "claude/ours");
    assert!(after.patterns().error_in("BROKEN").is_some());
    std::fs::remove_file(folder.path().join("own.toml")).unwrap();
    let (gone, faults) = after.with_folder(folder.path());
    assert_eq!(faults, []);
    assert_eq!(rule_of(&gone, "2.1.197", "Pick a colour"), "claude/none");
    assert!(gone.patterns().is_empty());
}

#[test]
fn a_file_of_patterns_alone_needs_no_program() {
    let folder = folder(&[(
        "patterns.toml",
        "format = 1\n[patterns]\ncompletion = ['^DONE$']\nerrors = ['^ERR']\n",
    )]);
    let (detectors, faults) = Detectors::bundled().with_folder(folder.path());
    assert_eq!(faults, []);
    assert!(detectors.patterns().completes("it is\nDONE").is_some());
}

/// A manifest, and how the fault in it is told: file and line, then some of the words.
const FAULTS: &[(&str, usize, &str)] = &[
    ("format = 1\nprovider = \n", 2, ""),
    (
        "format = 2\n[patterns]\nerrors = []\n",
        1,
        "format: this program reads format 1",
    ),
    ("format = 1\nprovidr = \"claude\"\n", 2, "unknown field `providr`"),
    (
        "format = 1\n[patterns]\nerrors = ['ok', '(']\n",
        3,
        "patterns.errors[1]: `(` is no regular expression",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"happy\"\nin = \"footer\"\n",
        7,
        "rule \"a\": `happy` is no meaning; there are: ",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"busy\"\nin = \"foot\"\n",
        8,
        "`foot` is no part of a screen; there are: ",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"busy\"\nin = \"last_rows(0)\"\n",
        8,
        "no part of a screen",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"busy\"\nin = \"screen\"\n",
        5,
        "it matches every screen",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"busy\"\nany = [{ contains = \"x\" }]\n",
        8,
        "does not say where to look",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"busy\"\nin = \"footer\"\nany = [\n  { contains = \"x\" },\n  { matches = '[' },\n]\n",
        11,
        "rule \"a\": `[` is no regular expression",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"busy\"\nin = \"footer\"\nany = [{ contains = \"x\", row = \"y\" }]\n",
        9,
        "exactly one of contains, starts, row and matches",
    ),
    (
        "HEAD[[rule]]\nid = \"A b\"\nmeans = \"busy\"\nin = \"footer\"\n",
        6,
        "no id of a rule",
    ),
    (
        "HEAD[[rule]]\nid = \"a\"\nmeans = \"busy\"\nin = \"footer\"\n[[rule]]\nid = \"a\"\nmeans = \"busy\"\nin = \"box\"\n",
        10,
        "another rule has this id",
    ),
    (
        "HEAD[[box]]\nshape = \"round\"\n",
        6,
        "`round` is no shape; there are ",
    ),
    (
        "HEAD[[box]]\nshape = \"between_rules\"\nprompts = [\">\"]\n",
        5,
        "says what draws a rule",
    ),
];

#[test]
fn every_fault_says_where_it_is_and_what_would_be_right() {
    for (text, line, words) in FAULTS {
        let faults = faults_of(&text.replace("HEAD", HEAD));
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let found = faults
            .iter()
            .any(|fault| fault.line == Some(*line) && fault.to_string().contains(words));
        assert!(found, "{text}\nwanted line {line}: {words}\ntold: {told:#?}");
        assert!(
            told[0].contains(&format!("own.toml:{}", faults[0].line.unwrap_or(0)))
                || faults[0].line.is_none()
        );
    }
}

#[test]
fn wrong_versions_and_ranges_are_told() {
    let text = format!("{HEAD}{RULE}");
    let told = |text: &str| {
        faults_of(text)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(told(&text.replace("2027.1.1.1", "newest")).contains(":3, version: four numbers are wanted"));
    assert!(told(&text.replace(">=2.0, <3", "2 or so")).contains(":4, programs: `2 or so` is no bound"));
    assert!(told(&text.replace("\"claude\"", "\"Claude Code\"")).contains(":2, provider: "));
    assert!(told("format = 1\n").contains("provider: it is missing"));
}

#[test]
fn what_is_too_large_or_no_file_is_refused() {
    assert!(
        faults_of(&"# long\n".repeat(40_000))[0]
            .what
            .contains("longer than")
    );
    let folder = folder(&[]);
    std::fs::create_dir(folder.path().join("odd.toml")).unwrap();
    let (_, faults) = Detectors::bundled().with_folder(folder.path());
    assert!(faults[0].what.contains("no file"), "{faults:?}");
    for number in 0..=FOLDER_FILES_MAX {
        std::fs::write(
            folder.path().join(format!("{number:03}.toml")),
            "format = 1\n[patterns]\n",
        )
        .unwrap();
    }
    let (_, faults) = Detectors::bundled().with_folder(folder.path());
    assert!(
        faults.iter().any(|fault| fault.what.contains("are read")),
        "{faults:?}"
    );
}
