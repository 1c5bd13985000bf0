//! An office's own settings (`offices.settings`), as far as they concern sessions, and the limits that come of them and
//! of the workstation's settings. They come from outside: a value that makes no sense is told and changes nothing, the
//! last good one stays. The loop reads them with every refresh of the office.

use serde_json::Value;

use crate::settings::{IDLE_MINUTES_MAX, Limits, MEMORY_MB_MAX, MEMORY_MB_MIN, SESSIONS_MAX_MAX};

/// Roles that are kept warm unless the office says otherwise.
pub const WARM_ROLES_DEFAULT: &[&str] = &["FE", "BE", "QA"];
/// Most warm roles that can be named. The database has the same bounds (`private.setting_fault`).
pub const WARM_ROLES_MAX: usize = 24;
/// Longest name of a role, in characters.
pub const ROLE_CHARS_MAX: usize = 32;

/// What an office says of its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficeSettings {
    /// Roles that are kept warm, the most wanted first.
    pub warm_roles: Vec<String>,
    /// Sessions at once.
    pub sessions_max: Option<u32>,
    /// Idle minutes before a session is given up.
    pub idle_minutes: Option<u32>,
    /// Memory of all sessions, in MiB.
    pub memory_mb_max: Option<u64>,
}

impl Default for OfficeSettings {
    fn default() -> Self {
        OfficeSettings {
            warm_roles: WARM_ROLES_DEFAULT.iter().map(|role| (*role).to_owned()).collect(),
            sessions_max: None,
            idle_minutes: None,
            memory_mb_max: None,
        }
    }
}

/// A setting of an office that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the office's setting `{key}` is {value}, which cannot be used: {reason}")]
pub struct OfficeSettingFault {
    /// Its name.
    pub key: &'static str,
    /// What it is, shortened.
    pub value: String,
    /// What would be right.
    pub reason: String,
}

impl OfficeSettings {
    /// Reads the office's settings. Where one makes no sense, that of `last` stays; one that is absent has its default.
    /// Names that are not known belong to others.
    pub fn read(settings: &Value, last: &OfficeSettings) -> (OfficeSettings, Vec<OfficeSettingFault>) {
        let mut faults = Vec::new();
        let mut take = |key: &'static str, result: Result<(), String>| {
            if let Err(reason) = result {
                let shown = settings.get(key).map(Value::to_string).unwrap_or_default();
                faults.push(OfficeSettingFault {
                    key,
                    value: shown.chars().take(60).collect(),
                    reason,
                });
            }
        };
        let mut read = OfficeSettings::default();
        let warm =
            roles(settings).map(|found| read.warm_roles = found.unwrap_or_else(|| read.warm_roles.clone()));
        if warm.is_err() {
            read.warm_roles = last.warm_roles.clone();
        }
        take("warm_roles", warm);
        let mut number = |key, least: u64, most: u64, place: &mut Option<u64>, last: Option<u64>| {
            let result = whole(settings, key, least, most).map(|found| *place = found);
            if result.is_err() {
                *place = last;
            }
            take(key, result);
        };
        let (mut sessions, mut idle) = (None, None);
        number(
            "sessions_max",
            1,
            u64::from(SESSIONS_MAX_MAX),
            &mut sessions,
            last.sessions_max.map(u64::from),
        );
        number(
            "idle_minutes",
            1,
            u64::from(IDLE_MINUTES_MAX),
            &mut idle,
            last.idle_minutes.map(u64::from),
        );
        number(
            "memory_mb_max",
            MEMORY_MB_MIN,
            MEMORY_MB_MAX,
            &mut read.memory_mb_max,
            last.memory_mb_max,
        );
        read.sessions_max = sessions.and_then(|found| u32::try_from(found).ok());
        read.idle_minutes = idle.and_then(|found| u32::try_from(found).ok());
        (read, faults)
    }
}

fn whole(settings: &Value, key: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .filter(|found| (least..=most).contains(found))
            .map(Some)
            .ok_or_else(|| format!("it must be a whole number from {least} to {most}")),
    }
}

fn roles(settings: &Value) -> Result<Option<Vec<String>>, String> {
    let wrong = || {
        format!(
            "it must be a list of at most {WARM_ROLES_MAX} roles, each a text of 1 to {ROLE_CHARS_MAX} characters"
        )
    };
    let listed = match settings.get("warm_roles") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_array().ok_or_else(wrong)?,
    };
    if listed.len() > WARM_ROLES_MAX {
        return Err(wrong());
    }
    let mut roles: Vec<String> = Vec::new();
    for role in listed {
        let role = role.as_str().map(str::trim).ok_or_else(wrong)?;
        if role.is_empty() || role.chars().count() > ROLE_CHARS_MAX {
            return Err(wrong());
        }
        if !roles.iter().any(|known| known == role) {
            roles.push(role.to_owned());
        }
    }
    Ok(Some(roles))
}

/// The limits that hold now: the office's, but never above the workstation's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsInForce {
    /// Sessions at once for the office.
    pub sessions_max: usize,
    /// Idle minutes before a session is given up.
    pub idle_minutes: u32,
    /// Memory of all sessions, in MiB.
    pub memory_mb_max: u64,
    /// Roles that are kept warm, the most wanted first.
    pub warm_roles: Vec<String>,
}

impl LimitsInForce {
    /// Puts both together. `memory_mb_default` holds where the workstation sets none.
    pub fn of(workstation: &Limits, office: &OfficeSettings, memory_mb_default: u64) -> LimitsInForce {
        let lower = |own: u32, theirs: Option<u32>| theirs.map_or(own, |theirs| theirs.min(own));
        let memory = workstation.memory_mb_max.unwrap_or(memory_mb_default);
        LimitsInForce {
            sessions_max: lower(workstation.sessions_max, office.sessions_max) as usize,
            idle_minutes: lower(workstation.idle_minutes, office.idle_minutes),
            memory_mb_max: office.memory_mb_max.map_or(memory, |theirs| theirs.min(memory)),
            warm_roles: office
                .warm_roles
                .iter()
                .take(workstation.warm_max as usize)
                .cloned()
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(settings: Value) -> (OfficeSettings, Vec<&'static str>) {
        let last = OfficeSettings {
            warm_roles: vec!["CEO".into()],
            sessions_max: Some(2),
            idle_minutes: Some(7),
            memory_mb_max: Some(999),
        };
        let (read, faults) = OfficeSettings::read(&settings, &last);
        (read, faults.into_iter().map(|fault| fault.key).collect())
    }

    #[test]
    fn an_office_without_settings_keeps_three_roles_warm() {
        let (settings, faults) = read(json!({ "theme": "dark" }));
        assert_eq!((settings, faults), (OfficeSettings::default(), vec![]));
    }

    #[test]
    fn good_values_are_taken_and_doubles_are_one() {
        let (settings, faults) = read(json!({
            "warm_roles": ["BE", " QA ", "BE"], "sessions_max": 4, "idle_minutes": 3, "memory_mb_max": 2048,
        }));
        assert_eq!(faults, Vec::<&str>::new());
        assert_eq!(settings.warm_roles, ["BE", "QA"]);
        assert_eq!(
            (
                settings.sessions_max,
                settings.idle_minutes,
                settings.memory_mb_max
            ),
            (Some(4), Some(3), Some(2048))
        );
    }

    #[test]
    fn a_bad_value_is_told_by_its_key_and_the_last_good_one_stays() {
        let (settings, faults) = read(json!({
            "warm_roles": "FE", "sessions_max": 0, "idle_minutes": "ten", "memory_mb_max": -1,
        }));
        assert_eq!(
            faults,
            ["warm_roles", "sessions_max", "idle_minutes", "memory_mb_max"]
        );
        assert_eq!(settings.warm_roles, ["CEO"]);
        assert_eq!(
            (
                settings.sessions_max,
                settings.idle_minutes,
                settings.memory_mb_max
            ),
            (Some(2), Some(7), Some(999))
        );
        for bad in [
            json!([""]),
            json!([7]),
            json!(["x".repeat(33)]),
            json!(vec!["r"; 25]),
        ] {
            assert_eq!(read(json!({ "warm_roles": bad })).1, ["warm_roles"], "{bad}");
        }
        let (_, faults) = OfficeSettings::read(&json!({"sessions_max": 99}), &OfficeSettings::default());
        let told = faults[0].to_string();
        assert!(
            told.contains("`sessions_max` is 99") && told.contains("from 1 to 24"),
            "{told}"
        );
    }

    #[test]
    fn settings_that_are_no_object_change_nothing_but_to_the_defaults() {
        for odd in [json!(null), json!([1]), json!("x"), json!(3)] {
            assert_eq!(read(odd), (OfficeSettings::default(), vec![]));
        }
    }

    #[test]
    fn an_office_can_lower_what_the_workstation_allows_and_not_raise_it() {
        let workstation = Limits {
            sessions_max: 4,
            idle_minutes: 10,
            warm_max: 2,
            memory_mb_max: None,
        };
        let office = |sessions, idle, memory| OfficeSettings {
            sessions_max: sessions,
            idle_minutes: idle,
            memory_mb_max: memory,
            ..OfficeSettings::default()
        };
        let low = LimitsInForce::of(&workstation, &office(Some(2), Some(5), Some(600)), 4_000);
        assert_eq!(
            (low.sessions_max, low.idle_minutes, low.memory_mb_max),
            (2, 5, 600)
        );
        assert_eq!(low.warm_roles, ["FE", "BE"]);
        let high = LimitsInForce::of(&workstation, &office(Some(9), Some(60), Some(9_000)), 4_000);
        assert_eq!(
            (high.sessions_max, high.idle_minutes, high.memory_mb_max),
            (4, 10, 4_000)
        );
    }
}
