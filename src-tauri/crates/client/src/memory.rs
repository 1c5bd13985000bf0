//! How much memory sessions may take, and what it means when they take much of it: pure decisions over measurements,
//! which `terminal` makes per process tree. Where nothing can be measured, sessions count by a guess. The loop calls it.

use std::fs;

/// What a session is reckoned with until it is measured, in MiB: a fresh one takes 140 to 290.
pub const SESSION_MB_GUESS: u64 = 300;
/// Least limit that is chosen without a setting, in MiB.
const DEFAULT_MB_MIN: u64 = 2_048;
/// Share of the machine's memory that sessions get without a setting, in percent.
const DEFAULT_PERCENT: u64 = 70;
/// Where each degree of pressure begins, and where it ends again, in percent of the limit. The gap keeps it from
/// going back and forth with every measurement.
const OVER_FROM: u64 = 100;
const OVER_UNTIL: u64 = 90;
const HIGH_FROM: u64 = 80;
const HIGH_UNTIL: u64 = 70;

/// How much the memory is under pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pressure {
    /// Sessions may be warmed up.
    #[default]
    Low,
    /// Nothing is warmed up; commands still get new sessions that fit.
    High,
    /// Nothing is started; what is not used is given up.
    Over,
}

impl Pressure {
    /// The pressure after a measurement of `used_mb`.
    pub fn after(self, used_mb: u64, limit_mb: u64) -> Pressure {
        let at_least = |percent: u64| used_mb.saturating_mul(100) >= limit_mb.saturating_mul(percent);
        let (was_over, was_high) = (self == Pressure::Over, self != Pressure::Low);
        if at_least(OVER_FROM) || (was_over && at_least(OVER_UNTIL)) {
            Pressure::Over
        } else if at_least(HIGH_FROM) || (was_high && at_least(HIGH_UNTIL)) {
            Pressure::High
        } else {
            Pressure::Low
        }
    }

    /// Whether a command may have a new session. The only one is always allowed: without it nothing would ever go on.
    pub fn allows_session(self, sessions: &[Option<u64>], limit_mb: u64) -> bool {
        sessions.is_empty() || (self != Pressure::Over && reckoned(sessions) + SESSION_MB_GUESS <= limit_mb)
    }

    /// Whether one may be started ahead of need: it must not bring the pressure that would end it again.
    pub fn allows_warm(self, sessions: &[Option<u64>], limit_mb: u64) -> bool {
        let after = reckoned(sessions) + SESSION_MB_GUESS;
        self == Pressure::Low && after.saturating_mul(100) < limit_mb.saturating_mul(HIGH_FROM)
    }
}

/// Memory of all sessions, those that are not measured yet by a guess.
fn reckoned(sessions: &[Option<u64>]) -> u64 {
    sessions
        .iter()
        .map(|measured| measured.unwrap_or(SESSION_MB_GUESS))
        .sum()
}

/// The limit where no setting gives one.
pub fn default_limit_mb() -> u64 {
    let machine = machine_mb().unwrap_or(0);
    (machine * DEFAULT_PERCENT / 100).max(DEFAULT_MB_MIN)
}

/// The machine's memory in MiB, or what a container leaves of it.
fn machine_mb() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = field_kb(&info, "MemTotal:")? / 1024;
    let container = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
    .map(|bytes| bytes / (1024 * 1024))
    .min();
    Some(container.map_or(machine, |container| container.min(machine)))
}

fn field_kb(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_comes_at_once_and_goes_with_a_gap() {
        let mut pressure = Pressure::Low;
        for (used, expected) in [
            (790, Pressure::Low),
            (800, Pressure::High),
            (750, Pressure::High),
            (690, Pressure::Low),
            (1_000, Pressure::Over),
            (950, Pressure::Over),
            (890, Pressure::High),
            (1_200, Pressure::Over),
            (600, Pressure::Low),
        ] {
            pressure = pressure.after(used, 1_000);
            assert_eq!(pressure, expected, "at {used}");
        }
    }

    /// Whatever sessions take: one that is warmed up never brings the pressure under which it would be given up again.
    #[test]
    fn warming_up_never_leads_to_giving_up() {
        for limit in (512..8_000).step_by(61) {
            for used in (0..limit).step_by(37) {
                let pressure = Pressure::Low.after(used, limit);
                if pressure.allows_warm(&[Some(used)], limit) {
                    let after = pressure.after(used + SESSION_MB_GUESS, limit);
                    assert_eq!(after, Pressure::Low, "{used} of {limit}");
                }
            }
        }
    }

    #[test]
    fn the_first_session_is_always_allowed_and_under_pressure_no_second_one() {
        assert!(Pressure::Over.allows_session(&[], 100));
        assert!(!Pressure::Over.allows_session(&[Some(1)], 10_000));
        assert!(Pressure::High.allows_session(&[Some(500)], 1_000));
        assert!(!Pressure::High.allows_session(&[Some(500), None], 1_000));
    }

    #[test]
    fn without_a_setting_the_limit_is_a_share_of_the_machine_but_never_too_little() {
        assert!(default_limit_mb() >= DEFAULT_MB_MIN);
        assert_eq!(
            field_kb("MemFree: 3 kB\nMemTotal:       16 kB\n", "MemTotal:"),
            Some(16)
        );
        assert_eq!(field_kb("MemTotal: ?", "MemTotal:"), None);
    }
}
