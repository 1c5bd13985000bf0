//! What the program takes from its process, once and in one place: environment, folders, settings, the name of the
//! computer.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Machine;
use client::clock::SystemClock;
use client::paths::Paths;
use client::settings::{Overrides, Settings};
use client::settings_file::Chosen;
use domain::Clock;

use crate::arguments::Place;
use crate::exit::{Exit, Failure};

/// The process's surroundings.
#[derive(Debug, Clone)]
pub struct World {
    /// The environment, whole.
    pub environment: BTreeMap<String, String>,
    /// Folders.
    pub paths: Paths,
    /// Settings from file, environment and flags.
    pub settings: Settings,
    /// The time, for the client.
    pub clock: Arc<dyn Clock>,
}

impl World {
    /// Reads environment and settings file.
    pub fn of_process(place: &Place) -> Result<World, Failure> {
        // Variables that are not text cannot be settings of ours, and agent programs do without them.
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        World::of(place, environment)
    }

    /// The same for the desktop app, which has no arguments: folders come from the environment.
    pub fn of_desktop() -> Result<World, Failure> {
        let folder = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(Into::into)
        };
        World::of_process(&Place {
            config_dir: folder("SEMO_CONFIG_DIR"),
            data_dir: folder("SEMO_DATA_DIR"),
            set: Vec::new(),
        })
    }

    fn of(place: &Place, environment: BTreeMap<String, String>) -> Result<World, Failure> {
        let paths = Paths::choose(place.config_dir.clone(), place.data_dir.clone()).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "this user has no home folder, so there is no place for settings and data",
                "Name both with SEMO_CONFIG_DIR and SEMO_DATA_DIR.",
            )
        })?;
        let mut overrides = Overrides::from_environment(&environment);
        for assignment in &place.set {
            let Some((name, value)) = assignment.split_once('=') else {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("--set {assignment}: there is no `=`"),
                    "Write --set name=value.",
                ));
            };
            overrides.set(name, value, "flag --set");
        }
        let settings = Settings::load(&paths.settings(), &overrides)
            .map_err(|error| Failure::of(Exit::Usage, &error))?;
        Ok(World {
            environment,
            paths,
            settings,
            clock: Arc::new(SystemClock),
        })
    }

    /// The same under another profile. A password that came for the account of before goes to nobody else.
    #[must_use]
    pub fn with_profile(&self, chosen: &Chosen) -> World {
        let mut world = self.clone();
        world.settings = chosen.applied_to(&self.settings);
        if world.settings.supabase != self.settings.supabase {
            world.environment.remove("SEMO_PASSWORD");
        }
        world
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The environment as agent programs get it; what is only for us is taken out.
    pub fn agent_environment(&self) -> Vec<(String, String)> {
        let ours = |name: &str| name == "SEMO_PASSWORD";
        self.environment
            .iter()
            .filter(|(name, _)| !ours(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// This computer.
    pub fn machine(&self) -> Machine {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Machine {
            name: if name.is_empty() {
                "workstation".to_owned()
            } else {
                name
            },
            platform: std::env::consts::OS.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
