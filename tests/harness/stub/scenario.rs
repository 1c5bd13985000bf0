//! The scenarios that a prompt can name with `scn=NAME[:ARG]`. In arguments `+` stands for a space.
//!
//! | name | what happens |
//! |---|---|
//! | `text[:WORDS]` | a short answer and the marker that the prompt asks for (the default) |
//! | `nomark` | a short answer without a marker |
//! | `plain` | the plain marker, whatever the prompt asks for |
//! | `inline` | the marker within a sentence |
//! | `splitmark` | the marker one character at a time |
//! | `code` | the marker in a code block only |
//! | `long[:N]`, `slow[:N]` | N lines at speed; N pieces, four a second |
//! | `think[:S]`, `hang[:S]` | S seconds of nothing after the start of the message; before it |
//! | `cut`, `cutonce` | the connection breaks in mid-answer, always or the first time |
//! | `cjk`, `pr` | wide characters and a table; a pull request's address |
//! | `bash:CMD`, `bashn:N` | one Bash call; N of them one after the other |
//! | `write:FILE` | a Write call |
//! | `ask` | a question to the person |
//! | `err400` … `err529`, `errlong`, `err529sse`, `err429once[:N]` | errors of the API |
//! | `limit[:five_hour]` | the limit of a subscription |

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::marker::PLAIN;
use serde_json::json;

use super::reply::{Block, Failure, Reply};
use super::request::StubRequest;

/// How long `hang` says nothing without an argument: longer than any test.
const HANG: Duration = Duration::from_secs(3_600);

/// The answer to a side request: a title where one is asked for.
pub(super) fn side(request: &StubRequest) -> Reply {
    if request.body.get("output_config").is_some() {
        return Reply::text("{\"title\": \"Stub title\"}");
    }
    Reply::text("An answer on the side.")
}

/// The answer to a conversation request; `attempt` counts the requests of this scenario from 1.
pub(super) fn reply(request: &StubRequest, attempt: usize) -> Reply {
    let scenario = request.scenario.as_deref().unwrap_or("text");
    let (name, arg) = match scenario.split_once(':') {
        Some((name, arg)) => (name, Some(arg.replace('+', " "))),
        None => (scenario, None),
    };
    let arg = arg.as_deref();
    let mark = marker_for(request);
    if name.starts_with("err") || name == "limit" {
        return failing(name, arg, attempt, &mark);
    }
    match name {
        "text" => {
            let words = arg.unwrap_or("Hello from the stub. All work is complete.");
            Reply::text(&format!("{words}\n\n{mark}"))
        }
        "nomark" => Reply::text("Hello from the stub. No marker here."),
        "plain" => Reply::text(&format!("The plain marker follows.\n\n{PLAIN}")),
        "inline" => Reply::text(&format!(
            "{}{mark} and some words after the marker.",
            "word ".repeat(number(arg, 13))
        )),
        "splitmark" => {
            let mut pieces = vec!["Finishing now.\n\n".to_owned()];
            pieces.extend(mark.chars().map(String::from));
            Reply::blocks(vec![Block::Text(pieces)]).pace(Duration::from_millis(40))
        }
        "code" => Reply::text(&format!("Here:\n\n```\n{mark}\n```\n")),
        "long" => long(number(arg, 120), &mark),
        "slow" => {
            let lines: String = (0..number(arg, 20)).map(|n| format!("slow:{n}\n\n")).collect();
            Reply::text(&format!("{lines}{mark}")).pace(Duration::from_millis(250))
        }
        "think" => Reply::text(&format!("Thought about it.\n\n{mark}"))
            .pause(Duration::from_secs(number(arg, 8) as u64)),
        "hang" => Reply::silence(arg.map_or(HANG, |_| Duration::from_secs(number(arg, 0) as u64))),
        "cutonce" if attempt > 1 => Reply::text(&format!("The second try is whole.\n\n{mark}")),
        "cut" | "cutonce" => Reply::text(&"this stream will be cut off ".repeat(10)).cut_after(8),
        "cjk" => Reply::text(&format!("{CJK}{mark}")),
        "pr" => Reply::text(&format!("{PULL_REQUEST}{mark}")),
        "bash" | "bashn" | "write" | "ask" => with_tool(name, arg, request, &mark),
        other => Reply::text(&format!("There is no scenario {other}.")),
    }
}

fn with_tool(name: &str, arg: Option<&str>, request: &StubRequest, mark: &str) -> Reply {
    let done = request.tool_results().len();
    match name {
        "bash" if done == 0 => {
            let command = arg.unwrap_or("echo hi");
            let input = json!({ "command": command, "description": "Run a command" });
            Reply::tool("I will run a command.", "Bash", input)
        }
        "bash" => Reply::text(&format!("The command ran.\n\n{mark}")),
        "bashn" if done < number(arg, 3) => {
            let input = json!({ "command": format!("echo step {done}"), "description": "One step" });
            Reply::tool("", "Bash", input)
        }
        "bashn" => Reply::text(&format!("All {done} steps ran.\n\n{mark}")),
        "write" if done == 0 => {
            let input = json!({ "file_path": arg.unwrap_or("hello.txt"), "content": "hello\nworld\n" });
            Reply::tool("I will write a file.", "Write", input)
        }
        "write" => Reply::text(&format!("The file was written.\n\n{mark}")),
        "ask" if done == 0 => {
            let question = json!({
                "question": "Which database should be used?", "header": "Database", "multiSelect": false,
                "options": [
                    { "label": "SQLite", "description": "embedded" },
                    { "label": "Postgres", "description": "a server" },
                ],
            });
            Reply::tool("", "AskUserQuestion", json!({ "questions": [question] }))
        }
        _ => Reply::text(&format!("Thanks for the answer.\n\n{mark}")),
    }
}

fn failing(name: &str, arg: Option<&str>, attempt: usize, mark: &str) -> Reply {
    let failure = match name {
        "err400" => Failure::new(
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade \
             or purchase credits.",
        ),
        "errlong" => Failure::new(
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        "err401" => Failure::new(401, "authentication_error", "invalid x-api-key"),
        "err403" => Failure::new(403, "permission_error", "Your API key does not have permission"),
        "err413" => Failure::new(413, "request_too_large", "Request exceeds the maximum size"),
        "err429once" if attempt > number(arg, 1) => return Reply::text(&format!("Recovered.\n\n{mark}")),
        "err429once" => Failure::new(429, "rate_limit_error", "Rate limited").header("retry-after", 1),
        "err429" => Failure::new(
            429,
            "rate_limit_error",
            "This request would exceed your account's rate limit. Please try again later.",
        )
        .header("retry-after", number(arg, 1)),
        "limit" => subscription_limit(arg.unwrap_or("five_hour")),
        "err529" => Failure::new(529, "overloaded_error", "Overloaded"),
        "err529sse" => return Reply::error_event(Failure::new(529, "overloaded_error", "Overloaded")),
        _ => Failure::new(500, "api_error", "Internal server error"),
    };
    Reply::failure(failure)
}

fn subscription_limit(which: &str) -> Failure {
    const WAIT_S: u64 = 7_200;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Failure::new(
        429,
        "rate_limit_error",
        "This request would exceed your account's rate limit. Please try again later.",
    )
    .header("retry-after", WAIT_S)
    .header("anthropic-ratelimit-unified-status", "rejected")
    .header("anthropic-ratelimit-unified-reset", now + WAIT_S)
    .header("anthropic-ratelimit-unified-representative-claim", which)
    .header("anthropic-ratelimit-unified-overage-status", "rejected")
    .header(
        "anthropic-ratelimit-unified-overage-disabled-reason",
        "org_level_disabled",
    )
}

/// The marker as an obedient agent would write it: with the code, if the prompt asks for one.
fn marker_for(request: &StubRequest) -> String {
    static CODE: LazyLock<regex::Regex> = LazyLock::new(|| {
        regex::Regex::new(r"one space and the code ([0-9A-Za-z]+)").expect("a valid pattern")
    });
    let prompt = request.prompt().unwrap_or_default();
    match CODE.captures_iter(prompt).last() {
        Some(found) => format!("[SEMO:DONE {}]", &found[1]),
        None => PLAIN.to_owned(),
    }
}

fn long(lines: usize, mark: &str) -> Reply {
    let text: String = (1..=lines)
        .map(|n| {
            format!(
                "Line {n}: the quick brown fox jumps over the lazy dog and keeps running until evening.\n\n"
            )
        })
        .collect();
    Reply::text(&format!("{text}Finished.\n\n{mark}")).pace(Duration::from_millis(1))
}

fn number(arg: Option<&str>, default: usize) -> usize {
    arg.and_then(|arg| arg.parse().ok()).unwrap_or(default)
}

const CJK: &str = "안녕하세요! 작업을 모두 완료했습니다. 커밋과 풀 리퀘스트를 만들었어요 🎉👨‍👩‍👧‍👦🇰🇷.\n\n\
    日本語のテキストと中文文本も混ざっています。とても長い行なので、端末の幅によって折り返されるはずです。완료되었습니다.\n\n\
    | 항목 | 상태 |\n|---|---|\n| 테스트 | ✅ 통과 |\n| 배포 | ⚠️ 보류 |\n\n";

const PULL_REQUEST: &str = "I pushed the branch and opened a pull request:\n\n\
    https://github.com/example-organisation/a-rather-long-repository-name/pull/1234\n\n\
    [main abc1234] feat: add login\n 3 files changed, 10 insertions(+), 2 deletions(-)\n\n";
