//! The settings: one TOML file, overridden by the environment, overridden by flags.
//!
//! Whoever starts the core collects environment and flags into [`Overrides`]; this module never looks at the
//! process itself. A setting that makes no sense is an error that names it, its value and what would be right.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::OfficeId;
use domain::policy::Policy;
use serde::{Deserialize, Serialize};
use supabase::{KeptTokens, Keychain, Project, SystemKeychain, TokensAt};

use crate::earlier::take_along;
use crate::paths::Paths;

/// Name of the repository that the profile "This machine" has when the settings name none.
pub const SAMPLE_REPOSITORY: &str = "sample";
/// Most sessions per office unless the settings say otherwise.
pub const SESSIONS_MAX_DEFAULT: u32 = 6;
/// Minutes without a turn after which a session is given up.
pub const IDLE_MINUTES_DEFAULT: u32 = 10;
/// Sessions that are kept warm per office unless the settings say otherwise.
pub const WARM_MAX_DEFAULT: u32 = 3;
/// Most sessions that can be allowed.
pub const SESSIONS_MAX_MAX: u32 = 24;
/// Most idle minutes that can be allowed: a day.
pub const IDLE_MINUTES_MAX: u32 = 1_440;
/// Hours that an agent goes on by itself without the core, unless the settings say otherwise.
pub const HOLDER_ALONE_HOURS_DEFAULT: u32 = 24;
/// Most hours that can be allowed: a week.
pub const HOLDER_ALONE_HOURS_MAX: u32 = 168;
/// Least memory that sessions can be limited to: one session with room for a large turn, in MiB.
pub const MEMORY_MB_MIN: u64 = 512;
/// Most connections that a hub can be allowed: each is a file, of which it asks the system for 65536.
pub const CONNECTIONS_MAX_MAX: usize = 60_000;
/// Most memory that sessions can be limited to: 1 TiB, in MiB.
pub const MEMORY_MB_MAX: u64 = 1_048_576;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which hub this machine belongs to.
    pub profile: Profile,
    /// For the profile `supabase`.
    pub supabase: Supabase,
    /// Which office to serve first.
    pub office: Office,
    /// Limits.
    pub limits: Limits,
    /// The program `claude`.
    pub claude: Claude,
    /// The program of agents whose provider is `scripted`.
    pub scripted: Scripted,
    /// Repositories by name. The first in the alphabet is the default one.
    pub repositories: BTreeMap<String, PathBuf>,
    /// The local API.
    pub api: Api,
    /// The embedded hub.
    pub hub: Hub,
    /// What keeps agents running when the core ends.
    pub holder: Holder,
    /// What offices may do here.
    pub policy: Policy,
}

/// Which hub the machine belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The embedded hub, started with the core.
    #[default]
    ThisMachine,
    /// A Supabase project (or a hub on another machine).
    Supabase,
}

/// Where the project is and who signs in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Supabase {
    /// `https://<ref>.supabase.co`, or a hub's URL.
    pub url: String,
    /// The publishable (or anon) key. Never the secret key.
    pub publishable_key: String,
    /// The account; the password is asked for or comes by `SEMO_PASSWORD`, never from this file.
    pub email: String,
    /// Where the next sign-in is kept; when absent in the keychain where that is open, else in a file that only its
    /// owner can read.
    pub tokens: Option<TokensAt>,
}

/// The office to serve.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Office {
    /// Its id; the account's only office when absent.
    pub id: Option<OfficeId>,
}

/// Limits of this client. An office's own settings may be lower, never higher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Sessions at once per office, 1 to 24.
    pub sessions_max: u32,
    /// Idle minutes before a session is given up, 1 to 1440.
    pub idle_minutes: u32,
    /// Sessions that are kept started and unused for the office's warm roles, 0 to 24; 0 starts every session on demand.
    pub warm_max: u32,
    /// Memory of all sessions with everything they have started, in MiB, 512 to 1048576; 70 % of the machine's memory
    /// when absent, but at least 2048.
    pub memory_mb_max: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sessions_max: SESSIONS_MAX_DEFAULT,
            idle_minutes: IDLE_MINUTES_DEFAULT,
            warm_max: WARM_MAX_DEFAULT,
            memory_mb_max: None,
        }
    }
}

/// The program `claude`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Claude {
    /// Path of the program; looked for on PATH when absent.
    pub program: Option<PathBuf>,
    /// More arguments for every start, for example `["--model", "opus"]`.
    pub args: Vec<String>,
}

/// A test double that is started as `claude` is: same arguments, same environment, same hooks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scripted {
    /// Path of the program; without one, agents of this provider cannot be started.
    pub program: Option<PathBuf>,
    /// More arguments for every start.
    pub args: Vec<String>,
}

/// The local API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
}

/// The hub: the embedded one of `semo up`, or one that serves a team (`semo hub`).
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hub {
    /// Port on 127.0.0.1 of the embedded one; 0 takes a free one.
    pub port: u16,
    /// Folder with the Postgres programs; looked for on the system when absent.
    pub postgres_bin: Option<PathBuf>,
    /// Where `semo hub` listens, `ADDRESS:PORT`; 127.0.0.1:54321 when absent. Other than loopback only with TLS.
    pub listen: Option<SocketAddr>,
    /// Certificate with its chain, PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Host names under which clients know it, besides addresses and `localhost`.
    #[serde(deserialize_with = "list")]
    pub names: Vec<String>,
    /// Origins of web pages that may use it, besides those of this machine: `https://office.example`.
    #[serde(deserialize_with = "list")]
    pub origins: Vec<String>,
    /// Whether anybody who reaches it and has the publishable key may make an account. An account alone opens no office.
    pub sign_up: bool,
    /// Whether the same may be done without address and password.
    pub anonymous: bool,
    /// Whether channels may be joined that nobody guards. Offices need none.
    pub public_channels: bool,
    /// Connections at a time, WebSockets not counted, 1 to 60000; the hub's own default when absent.
    pub connections_max: Option<usize>,
    /// Of these from one address on the network, 1 to 60000: a team behind one router is one. Nothing with
    /// `client_ip_header`: behind a proxy all come from one address.
    pub connections_per_network_max: Option<usize>,
    /// WebSockets at a time; the hub's own default when absent.
    pub sockets_max: Option<usize>,
    /// Of these from one address on the network: a team behind one router, or a proxy, is one.
    pub sockets_per_network_max: Option<usize>,
    /// Of these with a channel of one user.
    pub sockets_per_user_max: Option<usize>,
    /// New WebSockets a second, as a mean over a minute; also joins of one of them.
    pub joins_per_second: Option<u32>,
    /// Header in which a proxy in front of it tells the caller's address; only where every request comes through it.
    pub client_ip_header: Option<String>,
    /// A Postgres that somebody else runs, instead of one of its own: `postgresql://USER:PASSWORD@HOST/DATABASE`. Better
    /// given by `SEMO_HUB_DATABASE_URL` than written into this file.
    pub database_url: Option<String>,
}

impl Hub {
    fn check(&self) -> Result<(), SettingsError> {
        let invalid = |setting, reason: &str| {
            Err(SettingsError::Invalid {
                setting,
                reason: reason.to_owned(),
            })
        };
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return invalid(
                "hub.tls_certificate",
                "certificate and key (hub.tls_key) belong together",
            );
        }
        for (setting, most) in [
            ("hub.connections_max", self.connections_max),
            (
                "hub.connections_per_network_max",
                self.connections_per_network_max,
            ),
        ] {
            if most.is_some_and(|most| !(1..=CONNECTIONS_MAX_MAX).contains(&most)) {
                return invalid(setting, "it must be between 1 and 60000");
            }
        }
        Ok(())
    }
}

/// The address of the database carries a password.
impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("port", &self.port)
            .field("listen", &self.listen)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// A list, also as one text with commas between, as an environment variable gives it.
fn list<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of texts, or one text with commas between")]
    enum Form {
        Many(Vec<String>),
        One(String),
    }
    Ok(match Form::deserialize(from)? {
        Form::Many(many) => many,
        Form::One(one) => one
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect(),
    })
}

/// The program that holds a session's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Holder {
    /// Path of the program; the one beside the running program when absent.
    pub program: Option<PathBuf>,
    /// Hours after which a session that no core has come back for is ended, 1 to 168.
    pub alone_hours: u32,
}

impl Default for Holder {
    fn default() -> Self {
        Holder {
            program: None,
            alone_hours: HOLDER_ALONE_HOURS_DEFAULT,
        }
    }
}

/// What the environment and the flags say, by dotted name (`limits.sessions_max`). Later entries win.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(String, String, String)>);

/// Environment variables that set something, with the setting they set.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("SEMO_PROFILE", "profile"),
    ("SEMO_SUPABASE_URL", "supabase.url"),
    ("SEMO_SUPABASE_KEY", "supabase.publishable_key"),
    ("SEMO_EMAIL", "supabase.email"),
    ("SEMO_TOKENS", "supabase.tokens"),
    ("SEMO_OFFICE", "office.id"),
    ("SEMO_SESSIONS_MAX", "limits.sessions_max"),
    ("SEMO_IDLE_MINUTES", "limits.idle_minutes"),
    ("SEMO_WARM_MAX", "limits.warm_max"),
    ("SEMO_MEMORY_MB_MAX", "limits.memory_mb_max"),
    ("SEMO_CLAUDE", "claude.program"),
    ("SEMO_API_PORT", "api.port"),
    ("SEMO_HUB_PORT", "hub.port"),
    ("SEMO_POSTGRES_BIN", "hub.postgres_bin"),
    ("SEMO_HUB_LISTEN", "hub.listen"),
    ("SEMO_HUB_TLS_CERTIFICATE", "hub.tls_certificate"),
    ("SEMO_HUB_TLS_KEY", "hub.tls_key"),
    ("SEMO_HUB_NAMES", "hub.names"),
    ("SEMO_HUB_ORIGINS", "hub.origins"),
    ("SEMO_HUB_SIGN_UP", "hub.sign_up"),
    ("SEMO_HUB_ANONYMOUS", "hub.anonymous"),
    ("SEMO_HUB_PUBLIC_CHANNELS", "hub.public_channels"),
    ("SEMO_HUB_CONNECTIONS_MAX", "hub.connections_max"),
    (
        "SEMO_HUB_CONNECTIONS_PER_NETWORK_MAX",
        "hub.connections_per_network_max",
    ),
    ("SEMO_HUB_SOCKETS_MAX", "hub.sockets_max"),
    ("SEMO_HUB_SOCKETS_PER_NETWORK_MAX", "hub.sockets_per_network_max"),
    ("SEMO_HUB_SOCKETS_PER_USER_MAX", "hub.sockets_per_user_max"),
    ("SEMO_HUB_JOINS_PER_SECOND", "hub.joins_per_second"),
    ("SEMO_HUB_DATABASE_URL", "hub.database_url"),
    ("SEMO_HOLDER", "holder.program"),
    ("SEMO_HOLDER_ALONE_HOURS", "holder.alone_hours"),
];

impl Overrides {
    /// Takes what `environment` sets.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Overrides {
        let mut overrides = Overrides::default();
        for (variable, setting) in ENVIRONMENT {
            if let Some(value) = environment.get(*variable).filter(|value| !value.is_empty()) {
                overrides.set(setting, value, &format!("environment variable {variable}"));
            }
        }
        overrides
    }

    /// Sets one setting by its dotted name; `source` is told to the user when the value is wrong.
    pub fn set(&mut self, setting: &str, value: &str, source: &str) {
        self.0
            .push((setting.to_owned(), value.to_owned(), source.to_owned()));
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is there but cannot be read.
    #[error("could not read the settings file {path}; check its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a setting that does not exist or has the wrong type.
    #[error("the settings in {path} cannot be used: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        reason: String,
    },
    /// The environment or a flag sets something impossible.
    #[error("{source_name} sets {setting} to `{value}`, which cannot be used: {reason}")]
    Override {
        /// `environment variable …` or `flag …`.
        source_name: String,
        /// Dotted name.
        setting: String,
        /// The text that was given.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The settings are well-formed but make no sense together.
    #[error("setting {setting} cannot be used: {reason}")]
    Invalid {
        /// Dotted name.
        setting: &'static str,
        /// Why, and what would be right.
        reason: String,
    },
}

impl Settings {
    /// Reads the file (none is fine), applies the overrides, checks the whole.
    pub fn load(file: &Path, overrides: &Overrides) -> Result<Settings, SettingsError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(SettingsError::Read {
                    path: file.to_owned(),
                    source,
                });
            }
        };
        let in_file = |reason: String| SettingsError::File {
            path: file.to_owned(),
            reason: in_plain_words(reason),
        };
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| in_file(error.to_string()))?;
        // The file is checked by itself first, so that its faults are told with its line numbers.
        toml::from_str::<Settings>(&text).map_err(|error| in_file(error.to_string()))?;
        for (setting, value, source) in &overrides.0 {
            put(&mut table, setting, value);
            Settings::deserialize(toml::Value::Table(table.clone())).map_err(|error| {
                SettingsError::Override {
                    source_name: source.clone(),
                    setting: setting.clone(),
                    value: value.clone(),
                    reason: in_plain_words(error.to_string()),
                }
            })?;
        }
        let settings =
            Settings::deserialize(toml::Value::Table(table)).map_err(|error| in_file(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    /// Where the sign-in at `project` is kept, whatever the profile is now. One that lies where an earlier version kept it
    /// is taken along. Asks no keychain yet.
    pub fn team_tokens(&self, paths: &Paths, project: &Project) -> KeptTokens {
        take_along(paths, project);
        KeptTokens::new(&paths.tokens(project), project, self.supabase.tokens, keychain)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let invalid = |setting, reason: &str| {
            Err(SettingsError::Invalid {
                setting,
                reason: reason.to_owned(),
            })
        };
        if !(1..=SESSIONS_MAX_MAX).contains(&self.limits.sessions_max) {
            return invalid("limits.sessions_max", "it must be between 1 and 24");
        }
        if !(1..=IDLE_MINUTES_MAX).contains(&self.limits.idle_minutes) {
            return invalid("limits.idle_minutes", "it must be between 1 and 1440");
        }
        if self.limits.warm_max > SESSIONS_MAX_MAX {
            return invalid("limits.warm_max", "it must be between 0 and 24");
        }
        let memory = self.limits.memory_mb_max.unwrap_or(MEMORY_MB_MIN);
        if !(MEMORY_MB_MIN..=MEMORY_MB_MAX).contains(&memory) {
            return invalid("limits.memory_mb_max", "it must be between 512 and 1048576 (MiB)");
        }
        if !(1..=HOLDER_ALONE_HOURS_MAX).contains(&self.holder.alone_hours) {
            return invalid("holder.alone_hours", "it must be between 1 and 168");
        }
        if self.profile == Profile::Supabase {
            if self.supabase.url.is_empty() {
                return invalid(
                    "supabase.url",
                    "the profile `supabase` needs the project's URL; `semo login` asks for it",
                );
            }
            if self.supabase.publishable_key.is_empty() {
                return invalid(
                    "supabase.publishable_key",
                    "the profile `supabase` needs the publishable key; `semo login` asks for it",
                );
            }
            if self.supabase.publishable_key.starts_with("sb_secret_") {
                return invalid(
                    "supabase.publishable_key",
                    "this is a secret key; it must never be on a workstation",
                );
            }
            if self.supabase.email.is_empty() {
                return invalid(
                    "supabase.email",
                    "the profile `supabase` needs the account to sign in with; `semo login` asks for it",
                );
            }
        }
        self.hub.check()?;
        for (name, path) in &self.repositories {
            if !path.is_absolute() {
                return Err(SettingsError::Invalid {
                    setting: "repositories",
                    reason: format!(
                        "the path of `{name}` is `{}`; it must be absolute",
                        path.display()
                    ),
                });
            }
        }
        Ok(())
    }
}

fn keychain() -> Arc<dyn Keychain> {
    Arc::new(SystemKeychain::new())
}

/// The library's words for an id that is none tell of parsing only; what leads to the place in the file stays.
fn in_plain_words(reason: String) -> String {
    match reason.find("UUID parsing failed") {
        Some(at) => format!(
            "{}it is not an office's id, which looks like 0f8fad5b-d9cb-469f-a165-70867728950e; \
             leave it out to take the account's only office",
            &reason[..at]
        ),
        None => reason,
    }
}

/// Puts a text under a dotted name: as a number or a yes or no where it is one, else as a string; the types are checked
/// later.
fn put(table: &mut toml::Table, setting: &str, value: &str) {
    let (last, parents) = match setting.rsplit_once('.') {
        Some((parents, last)) => (last, parents.split('.').collect()),
        None => (setting, Vec::new()),
    };
    let mut at = table;
    for parent in parents {
        let entry = at
            .entry(parent)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if !entry.is_table() {
            *entry = toml::Value::Table(toml::Table::new());
        }
        match entry {
            toml::Value::Table(inner) => at = inner,
            _ => return,
        }
    }
    let value = match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(number), _) => toml::Value::Integer(number),
        (_, Ok(yes)) => toml::Value::Boolean(yes),
        _ => toml::Value::String(value.to_owned()),
    };
    at.insert(last.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        std::fs::write(&file, text).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::load(&file, &Overrides::from_environment(&environment))
    }

    #[test]
    fn without_a_file_the_machine_serves_itself_with_the_default_limits() {
        let settings = Settings::load(Path::new("no/such/file"), &Overrides::default()).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(
            (settings.profile, settings.limits.sessions_max),
            (Profile::ThisMachine, 6)
        );
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let settings = load(
            "[limits]\nsessions_max = 3\nidle_minutes = 4",
            &[("SEMO_SESSIONS_MAX", "5")],
        )
        .unwrap();
        assert_eq!(
            (settings.limits.sessions_max, settings.limits.idle_minutes),
            (5, 4)
        );
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_place() {
        let check = |text: &str, environment: &[(&str, &str)], expected: &[&str]| {
            let error = load(text, environment).unwrap_err().to_string();
            for part in expected {
                assert!(error.contains(part), "`{part}` is missing in: {error}");
            }
        };
        check(
            "[limits]\nsessions = 3",
            &[],
            &["settings.toml", "line 2", "sessions"],
        );
        check("profile = 'cloud'", &[], &["cloud", "this-machine"]);
        check("profile = [", &[], &["line 1"]);
        check(
            "",
            &[("SEMO_SESSIONS_MAX", "many")],
            &["SEMO_SESSIONS_MAX", "limits.sessions_max", "many"],
        );
        check(
            "[limits]\nsessions_max = 0",
            &[],
            &["limits.sessions_max", "between 1 and 24"],
        );
        check(
            "[limits]\nwarm_max = 25",
            &[],
            &["limits.warm_max", "between 0 and 24"],
        );
        check(
            "",
            &[("SEMO_MEMORY_MB_MAX", "100")],
            &["limits.memory_mb_max", "between 512"],
        );
        check(
            "[holder]\nalone_hours = 0",
            &[],
            &["holder.alone_hours", "between 1 and 168"],
        );
        check("profile = 'supabase'", &[], &["supabase.url"]);
        check("[repositories]\nweb = 'web'", &[], &["repositories", "absolute"]);
        check(
            "[hub]\ntls_key = '/k.pem'",
            &[],
            &["hub.tls_certificate", "belong together"],
        );
        check("[hub]\nlisten = 'here'", &[], &["line 2", "listen"]);
        check(
            "[hub]\nconnections_max = 0",
            &[],
            &["hub.connections_max", "between 1 and 60000"],
        );
        let too_many = ("SEMO_HUB_CONNECTIONS_PER_NETWORK_MAX", "60001");
        check("", &[too_many], &["hub.connections_per_network_max", "60000"]);
        let no_id = &["SEMO_OFFICE", "office.id", "nonsense", "not an office's id"];
        check("", &[("SEMO_OFFICE", "nonsense")], no_id);
        check(
            "[office]\nid = 'nonsense'",
            &[],
            &["not an office's id", "line 2"],
        );
    }

    #[test]
    fn lists_may_come_as_one_text_and_no_password_is_printed() {
        let environment = [
            ("SEMO_HUB_NAMES", "hub.example, hub"),
            ("SEMO_HUB_SIGN_UP", "true"),
            (
                "SEMO_HUB_DATABASE_URL",
                "postgresql://semo:very-secret@db.example/semo",
            ),
        ];
        let settings = load("[hub]\norigins = ['https://a.example']", &environment).unwrap();
        assert_eq!(settings.hub.names, ["hub.example", "hub"]);
        assert_eq!(settings.hub.origins, ["https://a.example"]);
        assert!(settings.hub.sign_up && !settings.hub.anonymous);
        assert!(!format!("{settings:?}").contains("very-secret"));
    }

    #[test]
    fn a_secret_key_is_refused_on_a_workstation() {
        let text = "profile='supabase'\n[supabase]\nurl='https://x.supabase.co'\npublishable_key='sb_secret_1'\nemail='a@b.c'";
        assert!(load(text, &[]).unwrap_err().to_string().contains("secret key"));
    }
}
