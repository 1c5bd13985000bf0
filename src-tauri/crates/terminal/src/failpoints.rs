//! Named steps at which a test can have this process die as by `kill -9`, or stand still for a while.
//!
//! A step is written `fail::fail_point!("name");` right behind the thing it is named after. Without the feature
//! `fail/failpoints`, which only the package `tests` switches on, a step is nothing at all and [`arm`] does nothing.
//! The programs (`semo`, `semo-holder`) call [`arm`] first thing; nobody else does.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// The variable that says which steps are armed: `name` dies there, `name@3` at the third time, `name~250` stands
/// still for 250 ms each time; several with commas between.
pub const VARIABLE: &str = "SEMO_FAILPOINTS";

/// The variable that names a file to which a process writes the name of the step at which it dies.
pub const TOLD_VARIABLE: &str = "SEMO_FAILPOINTS_TOLD";

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The process dies when the step is reached for the n-th time.
    Die(u64),
    /// It stands still.
    Wait(Duration),
}

/// Arms the steps that the two variables name; `variable` reads the environment. Words that cannot be understood are
/// an error, which the program tells and ends with: a test that arms nothing would prove nothing.
pub fn arm(variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    if !fail::has_failpoints() {
        return Ok(());
    }
    let told = variable(TOLD_VARIABLE);
    for (name, effect) in steps(&variable(VARIABLE).unwrap_or_default())? {
        let told = told.clone();
        let hits = AtomicU64::new(0);
        let step = name.clone();
        fail::cfg_callback(name, move || match effect {
            Effect::Wait(time) => std::thread::sleep(time),
            Effect::Die(at) => {
                if hits.fetch_add(1, Ordering::SeqCst) + 1 == at {
                    die(&step, told.as_deref());
                }
            }
        })?;
    }
    Ok(())
}

/// Nothing is unwound, flushed or told to anybody but the test.
fn die(step: &str, told: Option<&str>) {
    if let Some(path) = told
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        // A test that does not find the line says so.
        let _ = file.write_all(format!("{step}\n").as_bytes());
    }
    let _ = kill_process(getpid(), Signal::KILL);
    // The signal reaches some thread at once, this one a moment later: it must not go on until then.
    loop {
        std::thread::park();
    }
}

fn steps(words: &str) -> Result<Vec<(String, Effect)>, String> {
    let words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(step).collect()
}

fn step(word: &str) -> Result<(String, Effect), String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{VARIABLE}: `{word}` cannot be understood: {error}"))
    };
    if let Some((name, at)) = word.split_once('@') {
        return Ok((name.to_owned(), Effect::Die(number(at)?)));
    }
    if let Some((name, ms)) = word.split_once('~') {
        return Ok((name.to_owned(), Effect::Wait(Duration::from_millis(number(ms)?))));
    }
    Ok((word.to_owned(), Effect::Die(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_armed_is_read_from_words() {
        let all = steps("claimed, entered@3,holder-child~250,").expect("they can be understood");
        let expected = [
            ("claimed", Effect::Die(1)),
            ("entered", Effect::Die(3)),
            ("holder-child", Effect::Wait(Duration::from_millis(250))),
        ];
        let expected: Vec<_> = expected.map(|(name, effect)| (name.to_owned(), effect)).into();
        assert_eq!(all, expected);
        assert_eq!(steps(""), Ok(Vec::new()));
        assert!(steps("entered@often").is_err_and(|error| error.contains("entered@often")));
    }
}
