//! Facts from the agent's tools: commands with how they ended, test runs, pull requests. From the tool's own input and
//! output, never from the screen: there a narrow terminal cuts a number in two.

use std::sync::LazyLock;

use domain::evidence::{Evidence, Tier};
use regex::Regex;
use serde_json::{Value, json};

/// Commands that are kept as evidence; further ones are only counted.
pub(super) const COMMANDS_MAX: usize = 50;
/// Characters kept of one command.
pub(super) const COMMAND_CHARS_MAX: usize = 500;
/// Pull requests that are kept as evidence, made ones and mentioned ones each.
const PULL_REQUESTS_MAX: usize = 10;
/// Characters of one tool output that are searched.
const OUTPUT_CHARS_MAX: usize = 64 * 1024;
/// Uses of tools that are remembered, so that one that is reported twice counts once.
const USES_MAX: usize = 1_024;

/// GitHub's and GitLab's forms. The number must end: one that is followed by more of a word is another thing.
static PULL_REQUEST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"https?://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~-]+){2,8}?/(?:-/)?(?:pull|merge_requests)/(\d{1,9})\b").ok()
});
/// `Exit code 127` at the start of a failed command's answer.
static EXIT_CODE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?:Error: )?Exit code (\d{1,3})\b").ok());
/// What the program answers in place of a tool that nobody let it use, and of one that was interrupted.
const REFUSED: &[&str] = &[
    "The user doesn't want to proceed with this tool use",
    "The user doesn't want to take this action right now",
    "User rejected tool use",
    "Permission for this action",
    "Permission for this tool use was denied",
    "Permission to use ",
];
const INTERRUPTED: &str = "[Request interrupted by user";
/// A command that had no answer in the time it was given.
const TIMED_OUT: &str = "timed out";
/// A test runner at the place of a command, behind `cd x &&`, environment and wrappers.
static TEST_RUN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?:^|&&|\|\||[;|(\n])\s*(?:[A-Z_][A-Z0-9_]*=\S*\s+)*(?:(?:time|env|sudo|timeout\s+\S+|poetry run|uv run|bundle exec|npx|pnpm exec|yarn exec)\s+)*",
        r"(?:cargo\s+(?:\+\S+\s+)?(?:test|nextest)|(?:npm|pnpm|yarn|bun)\s+(?:run\s+)?test\b|(?:python3?\s+-m\s+)?(?:pytest|unittest)\b|tox\b",
        r"|go\s+test\b|make\s+(?:-\S+\s+)*(?:test|check)\b|(?:vitest|jest|mocha|rspec|phpunit|ctest|deno\s+test|dotnet\s+test|swift\s+test|mix\s+test)\b",
        r"|(?:\./)?(?:gradlew|mvnw|gradle|mvn)\b[^;&|\n]*\b(?:test|check|verify)\b)"
    ))
    .ok()
});

/// A command that makes a pull request, or pushes to a branch that may have one.
static MAKES_PULL_REQUEST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?:^|&&|\|\||[;|(\n])\s*(?:[A-Za-z_][A-Za-z0-9_]*=\S*\s+)*(?:(?:time|env|sudo|command|timeout\s+\S+)\s+)*",
        r"(?:gh\s+(?:-\S+\s+)*pr\s+create\b|glab\s+(?:-\S+\s+)*mr\s+create\b",
        r"|git\s+(?:-[Cc]\s+\S+\s+|--?\S+\s+)*push\b|hub\s+pull-request\b)"
    ))
    .ok()
});

#[derive(Debug, Default)]
pub(super) struct ToolFacts {
    seen: Vec<String>,
    tools: usize,
    commands: usize,
    failed: usize,
    /// Under which name each address stands in the evidence.
    pull_requests: Vec<(&'static str, String)>,
}

/// One use of a tool that has come to its answer.
pub(super) struct ToolUse<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) input: &'a Value,
    pub(super) response: &'a Value,
    /// What the tool answered as text, where the response is none of ours to read.
    pub(super) text: &'a str,
    pub(super) ok: bool,
    pub(super) duration_ms: Option<u64>,
    pub(super) source: &'static str,
}

impl ToolFacts {
    pub(super) fn add(&mut self, used: &ToolUse<'_>, evidence: &mut Evidence) {
        if let Some(id) = used.id.filter(|id| !id.is_empty()) {
            if self.seen.iter().any(|seen| seen == id) {
                return;
            }
            if self.seen.len() < USES_MAX {
                self.seen.push(id.to_owned());
            }
        }
        self.tools += 1;
        if used.name == "Bash" {
            self.command(used, evidence);
        }
        self.search(used, evidence);
    }

    fn command(&mut self, used: &ToolUse<'_>, evidence: &mut Evidence) {
        self.commands += 1;
        let words = used.response.as_str().unwrap_or(used.text);
        let stopped = stopped_by(used.ok, words);
        self.failed += usize::from(!used.ok && stopped.is_none());
        if self.commands > COMMANDS_MAX {
            return;
        }
        let whole = used.input["command"].as_str().unwrap_or_default();
        let test = TEST_RUN.as_ref().is_some_and(|pattern| pattern.is_match(whole));
        let mut claim = json!({
            "command": clipped(whole, COMMAND_CHARS_MAX), "duration_ms": used.duration_ms,
        });
        // The exit may be that of another part of the line; then nothing is known of the test's.
        let masked = test && hides_the_test(whole);
        if masked {
            claim["masked"] = true.into();
        } else if let Some(stopped) = stopped {
            claim["stopped"] = stopped.into();
        } else {
            claim["ok"] = used.ok.into();
        }
        let code = match EXIT_CODE.as_ref().and_then(|pattern| pattern.captures(words)) {
            Some(found) if !used.ok => found[1].parse::<u32>().ok(),
            // The program reports a command as worked only when it ended with 0.
            _ => used.ok.then_some(0),
        };
        let background = used.response["backgroundTaskId"].is_string();
        if let Some(code) = code.filter(|_| !background && !masked && stopped.is_none()) {
            claim["exit_code"] = code.into();
        }
        if background {
            claim["background"] = true.into();
        }
        if test {
            claim["test"] = true.into();
        }
        evidence.add("command", claim, Tier::Observed, used.source);
    }

    fn search(&mut self, used: &ToolUse<'_>, evidence: &mut Evidence) {
        let Some(pattern) = PULL_REQUEST.as_ref().filter(|_| speaks_of_its_own(used)) else {
            return;
        };
        let what = match makes_pull_requests(used) {
            true => "pull_request",
            false => "pull_request_mentioned",
        };
        let parts = ["stdout", "stderr"].map(|part| used.response[part].as_str().unwrap_or_default());
        for text in parts.into_iter().chain([used.text]) {
            let output = clipped(text, OUTPUT_CHARS_MAX);
            for found in pattern.captures_iter(&output) {
                let url = found[0].to_owned();
                let same = |known: &&(&str, String)| known.0 == what;
                let known = self
                    .pull_requests
                    .iter()
                    .any(|known| *known == (what, url.clone()));
                if known || self.pull_requests.iter().filter(same).count() >= PULL_REQUESTS_MAX {
                    continue;
                }
                let claim = json!({ "number": found[1].parse::<u64>().ok(), "url": url });
                evidence.add(what, claim, Tier::Observed, used.source);
                self.pull_requests.push((what, url));
            }
        }
    }

    /// What is counted, for the end.
    pub(super) fn counts(&self, evidence: &mut Evidence) {
        if self.tools > 0 {
            let counts =
                json!({ "tools": self.tools, "commands": self.commands, "failed_commands": self.failed });
            evidence.add("tools_used", counts, Tier::Observed, "tools");
        }
    }
}

/// Why a command that did not work is none that failed: it was not let run, or not let end. A command that ran to its
/// end has an exit code, and one that was given up has said so.
fn stopped_by(ok: bool, words: &str) -> Option<&'static str> {
    let words = words.strip_prefix("Error: ").unwrap_or(words);
    if ok {
        return None;
    }
    if words.contains(INTERRUPTED) {
        return Some("interrupted");
    }
    if REFUSED.iter().any(|said| words.starts_with(said)) {
        return Some("refused");
    }
    let ran = EXIT_CODE.as_ref().is_some_and(|pattern| pattern.is_match(words)) || words.contains(TIMED_OUT);
    // The words of a person or of a hook that refused it, or it was no command that could run.
    (!ran && !words.is_empty()).then_some("not_run")
}

/// Whether an address in a tool's output can be one that the agent has made. What it merely reads (files, pages) names
/// the pull requests of others.
fn speaks_of_its_own(used: &ToolUse<'_>) -> bool {
    used.name == "Bash" || used.name.contains("pull_request") || used.name.contains("merge_request")
}

/// Whether the addresses in its output are of pull requests that it has made or pushed to.
fn makes_pull_requests(used: &ToolUse<'_>) -> bool {
    if used.name != "Bash" {
        return used.name.contains("create");
    }
    let command = unquoted(used.input["command"].as_str().unwrap_or_default());
    let pattern = MAKES_PULL_REQUEST.as_ref();
    pattern.is_some_and(|pattern| pattern.is_match(&command))
}

/// Whether the exit of the line may be another one than that of the test run in it: behind a pipe, `||`, `;` or `&`,
/// or within `$(…)`.
fn hides_the_test(command: &str) -> bool {
    let command = unquoted(command);
    let Some(run) = TEST_RUN.as_ref().and_then(|pattern| pattern.find(&command)) else {
        // Only within quotes: a shell within the shell.
        return true;
    };
    let inner = command[..run.start()].ends_with('$') && run.as_str().starts_with('(');
    let rest = &command[run.end()..];
    let nothing_follows = |at: usize| {
        rest[at..]
            .trim_matches([' ', '\t', '\n', '\r', ';', ')', '}'])
            .is_empty()
    };
    let hides = |(at, c): (usize, char)| {
        let (before, after) = (rest[..at].chars().next_back(), rest[at + 1..].chars().next());
        match c {
            '|' if before == Some('>') => false,
            '|' => before == Some('|') || after == Some('|') || !command.contains("pipefail"),
            ';' | '\n' => !nothing_follows(at),
            '&' => before != Some('&') && after != Some('&') && before != Some('>') && after != Some('>'),
            _ => false,
        }
    };
    let mut signs = rest
        .char_indices()
        .filter(|(_, c)| matches!(c, '|' | ';' | '\n' | '&'));
    inner || command.contains('`') || signs.any(hides)
}

/// A command line without what is quoted in it, which is no command.
fn unquoted(command: &str) -> String {
    let (mut kept, mut quote) = (String::with_capacity(command.len()), None);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                kept.push('_');
            }
            // A line that is continued is one.
            (None, '\\') => kept.push(if chars.next() == Some('\n') { ' ' } else { '_' }),
            (None, c) => kept.push(c),
            (Some('"'), '\\') => drop(chars.next()),
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
        }
    }
    kept
}

fn clipped(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used<'a>(id: &'a str, input: &'a Value, response: &'a Value, ok: bool) -> ToolUse<'a> {
        ToolUse {
            id: Some(id),
            name: "Bash",
            input,
            response,
            text: "",
            ok,
            duration_ms: Some(5),
            source: "hook:PostToolUse",
        }
    }

    fn values(evidence: &Evidence, what: &str) -> Vec<Value> {
        let claims = evidence.claims.iter().filter(|claim| claim.what == what);
        claims.map(|claim| claim.value.clone()).collect()
    }

    fn pull_requests(output: &str) -> Vec<Value> {
        let (mut facts, mut evidence) = (ToolFacts::default(), Evidence::default());
        let (input, response) = (json!({"command": "gh pr create"}), json!({"stdout": output}));
        facts.add(&used("t", &input, &response, true), &mut evidence);
        let found = values(&evidence, "pull_request").into_iter();
        found.map(|mut claim| claim["number"].take()).collect()
    }

    #[test]
    fn a_pull_request_is_known_by_its_whole_number_in_the_forms_of_gh_and_glab() {
        assert_eq!(pull_requests("https://github.com/o/r/pull/1234\n"), [1234]);
        assert_eq!(
            pull_requests("!7 https://gitlab.example.com/group/sub/project/-/merge_requests/77\n"),
            [77]
        );
        assert_eq!(pull_requests("http://git.intern:8443/o/r/pull/9."), [9]);
        assert_eq!(
            pull_requests("remote: https://github.com/o/r/pull/new/feature"),
            Vec::<Value>::new(),
            "the invitation to make one is none"
        );
        assert_eq!(
            pull_requests("https://github.com/o/r/pull/12ab"),
            Vec::<Value>::new()
        );
        assert_eq!(
            pull_requests(
                "https://github.com/o/r/pull/5 https://github.com/o/r/pull/5 https://github.com/o/r/pull/6"
            ),
            [5, 6]
        );
    }

    #[test]
    fn a_failed_command_has_its_exit_code_and_a_test_run_is_known() {
        let (mut facts, mut evidence) = (ToolFacts::default(), Evidence::default());
        let response = json!("Exit code 101\ntest x ... FAILED");
        let input = json!({"command": "cd crates/a && RUST_LOG=x cargo test -p a 2>&1"});
        facts.add(&used("t1", &input, &response, false), &mut evidence);
        facts.add(&used("t1", &input, &response, false), &mut evidence);
        let ran = json!({"stdout": "ok"});
        facts.add(&used("t2", &json!({"command": "ls"}), &ran, true), &mut evidence);
        facts.counts(&mut evidence);
        assert_eq!(
            values(&evidence, "command"),
            [
                json!({"command": input["command"], "ok": false, "duration_ms": 5, "exit_code": 101, "test": true}),
                json!({"command": "ls", "ok": true, "duration_ms": 5, "exit_code": 0}),
            ]
        );
        assert_eq!(
            values(&evidence, "tools_used"),
            [json!({"tools": 2, "commands": 2, "failed_commands": 1})]
        );
    }

    #[test]
    fn a_command_that_was_refused_or_interrupted_is_none_that_failed() {
        let (mut facts, mut evidence) = (ToolFacts::default(), Evidence::default());
        let input = json!({"command": "rm -r x"});
        for (id, words) in [
            (
                "a",
                "Error: The user doesn't want to proceed with this tool use. The tool use was rejected",
            ),
            ("b", "Exit code 137\n[Request interrupted by user for tool use]"),
            (
                "c",
                "Permission to use Bash with command rm -r x has been denied.",
            ),
            ("d", "A person denied this."),
            (
                "e",
                "Exit code 1\nThe user doesn't want to proceed with this tool use",
            ),
            ("f", "Command timed out after 2m 0s"),
        ] {
            facts.add(&used(id, &input, &json!(words), false), &mut evidence);
        }
        facts.counts(&mut evidence);
        let told: Vec<Value> = values(&evidence, "command")
            .iter()
            .map(|claim| json!([claim["stopped"], claim["ok"], claim["exit_code"]]))
            .collect();
        let stopped = |why: &str| json!([why, null, null]);
        let failed = |code: Value| json!([null, false, code]);
        assert_eq!(
            told,
            [
                stopped("refused"),
                stopped("interrupted"),
                stopped("refused"),
                stopped("not_run"),
                failed(json!(1)),
                failed(Value::Null),
            ]
        );
        let counts = json!({"tools": 6, "commands": 6, "failed_commands": 2});
        assert_eq!(values(&evidence, "tools_used"), [counts]);
    }

    #[test]
    fn a_test_run_whose_exit_is_hidden_says_nothing_of_how_it_ended() {
        let claim = |command: &str, ok: bool| {
            let (mut facts, mut evidence) = (ToolFacts::default(), Evidence::default());
            let (input, response) = (json!({ "command": command }), json!({"stdout": "1 failed"}));
            facts.add(&used("t", &input, &response, ok), &mut evidence);
            values(&evidence, "command").remove(0)
        };
        for command in [
            "cargo test | tail -3",
            "cargo test 2>&1 |& tee log",
            "cargo test || true",
            "cargo test; echo x",
            "cargo test\necho x",
            "cargo test & wait",
            "echo $(cargo test)",
            "cargo test; npm test",
        ] {
            let expected = json!({"command": command, "duration_ms": 5, "test": true, "masked": true});
            assert_eq!(claim(command, true), expected);
            assert_eq!(claim(command, false), expected);
        }
        for command in [
            "cargo test 2>&1",
            "cargo test &> log",
            "cd x; cargo test --all;\n",
            "cargo test && npm test",
            "(cd x && cargo test)",
            "set -o pipefail; cargo test | tail -3",
            "cargo test -- 'a|b; c'",
            "cargo test \\\n  --all",
        ] {
            let claim = claim(command, true);
            assert_eq!(
                (&claim["ok"], &claim["masked"]),
                (&json!(true), &Value::Null),
                "{command}"
            );
        }
        assert_eq!(claim("ls | tail -3", true)["ok"], true, "no test");
    }

    #[test]
    fn a_pull_request_that_is_only_spoken_of_is_no_pull_request_of_the_turn() {
        let found = |name: &str, command: &str| {
            let (mut facts, mut evidence) = (ToolFacts::default(), Evidence::default());
            let input = json!({ "command": command });
            let response = json!({"stdout": "https://github.com/o/r/pull/8"});
            let using = ToolUse {
                name,
                ..used("t", &input, &response, true)
            };
            facts.add(&using, &mut evidence);
            let count = |what: &str| values(&evidence, what).len();
            (count("pull_request"), count("pull_request_mentioned"))
        };
        for command in [
            "gh pr create --fill",
            "glab mr create",
            "cd x && git push -u origin b",
            "git -C x push",
            "GH_TOKEN=x gh pr create",
        ] {
            assert_eq!(found("Bash", command), (1, 0), "{command}");
        }
        for command in [
            "gh pr list",
            "cat README.md",
            "git log",
            "echo 'x; gh pr create'",
            "gh pr view 8",
            "grep push",
        ] {
            assert_eq!(found("Bash", command), (0, 1), "{command}");
        }
        assert_eq!(found("mcp__github__create_pull_request", ""), (1, 0));
        assert_eq!(found("mcp__github__get_pull_request", ""), (0, 1));
    }

    #[test]
    fn test_runs_are_told_from_commands_that_only_speak_of_tests() {
        let is_test = |command: &str| TEST_RUN.as_ref().unwrap().is_match(command);
        for command in [
            "cargo test",
            "cargo +nightly nextest run",
            "npm test",
            "npm run test -- --ci",
            "pnpm test",
            "pytest -q",
            "python3 -m pytest tests",
            "go test ./...",
            "make test",
            "make -j2 check",
            "npx vitest run",
            "CI=1 yarn test",
            "cd x; ./gradlew :app:test",
            "mvn -q verify",
            "timeout 60 cargo test --lib",
        ] {
            assert!(is_test(command), "{command}");
        }
        for command in [
            "echo cargo test",
            "git commit -m 'make test pass'",
            "ls tests",
            "cat pytest.ini",
            "cargo build",
        ] {
            assert!(!is_test(command), "{command}");
        }
    }

    #[test]
    fn what_is_kept_of_commands_is_bounded() {
        let (mut facts, mut evidence) = (ToolFacts::default(), Evidence::default());
        let input = json!({"command": format!("git push {}", "x".repeat(10 * COMMAND_CHARS_MAX))});
        for n in 0..COMMANDS_MAX + 20 {
            let response = json!({"stdout": format!("https://github.com/o/r/pull/{n}")});
            facts.add(&used(&n.to_string(), &input, &response, true), &mut evidence);
        }
        assert_eq!(values(&evidence, "command").len(), COMMANDS_MAX);
        assert_eq!(values(&evidence, "pull_request").len(), PULL_REQUESTS_MAX);
        let longest = values(&evidence, "command")[0]["command"].as_str().unwrap().len();
        assert_eq!(longest, COMMAND_CHARS_MAX);
    }
}
