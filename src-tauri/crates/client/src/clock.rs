//! The system's clock: the only place of the core that reads it. Programs pass it down as [`domain::Clock`].

use std::time::UNIX_EPOCH;

use domain::{Clock, SinceBoot, Timestamp};

/// Where Linux says which start of the machine this is, and how long ago it was, in seconds with two decimals.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const UPTIME: &str = "/proc/uptime";

/// Wall clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that everybody else takes as an argument"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn since_boot(&self) -> Option<SinceBoot> {
        let boot = std::fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        let ms = uptime_ms(&std::fs::read_to_string(UPTIME).ok()?)?;
        Some(SinceBoot { boot, ms })
    }
}

/// The first of the two numbers.
fn uptime_ms(text: &str) -> Option<u64> {
    let (whole, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let (whole, hundredths): (u64, u64) = (whole.parse().ok()?, hundredths.parse().ok()?);
    whole.checked_mul(1_000)?.checked_add(hundredths * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_the_machines_start_is_read_to_the_hundredth() {
        assert_eq!(uptime_ms("350735.47 234388.90\n"), Some(350_735_470));
        assert_eq!(uptime_ms("0.07 0.00"), Some(70));
        for strange in ["", "350735", "a.b c", "-1.00 2.00", "99999999999999999999.00"] {
            assert_eq!(uptime_ms(strange), None, "{strange}");
        }
    }

    #[test]
    fn the_time_since_the_machines_start_goes_on() {
        let (first, then) = (
            SystemClock.since_boot().unwrap(),
            SystemClock.since_boot().unwrap(),
        );
        assert!(
            then.ms_since(&first).is_some_and(|ms| ms < 60_000),
            "{first:?} {then:?}"
        );
    }
}
