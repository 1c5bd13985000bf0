//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// SEMO Office without a window: starts an office on this machine, sends work to its agents, shows what comes of it.
#[derive(Debug, Parser)]
#[command(name = "semo", version, about, propagate_version = true)]
pub struct Arguments {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub order: Order,
}

/// Where settings and data lie.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// Folder of the settings file [default: the platform's, e.g. ~/.config/semo-office]
    #[arg(long, global = true, env = "SEMO_CONFIG_DIR", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Folder of everything that is written [default: the platform's, e.g. ~/.local/share/semo-office]
    #[arg(long, global = true, env = "SEMO_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Set any setting, e.g. --set limits.sessions_max=3; wins over environment and file
    #[arg(long = "set", global = true, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Order {
    /// Start everything here: hub, client and the UI's address. Ends with Ctrl+C.
    Up(Up),
    /// Give an agent a prompt, as a remote server would.
    Send(Send),
    /// Follow the office's commands and their results.
    Tail(Tail),
    /// Show what runs here.
    Status(Status),
    /// Say what is missing on this machine and how to get it.
    Doctor(Doctor),
}

/// `semo up`
#[derive(Debug, Args)]
pub struct Up {
    /// Print one JSON object with the addresses instead of text
    #[arg(long)]
    pub json: bool,
}

/// `semo send`
#[derive(Debug, Args)]
pub struct Send {
    /// The prompt; `-` reads it from standard input
    pub prompt: String,
    /// The agent, by role or name
    #[arg(long, short, required_unless_present = "session")]
    pub agent: Option<String>,
    /// A session instead of an agent
    #[arg(long, conflicts_with = "agent")]
    pub session: Option<String>,
    /// Repository for a session that has to be started
    #[arg(long)]
    pub repository: Option<String>,
    /// Follow it to its result; the exit code tells the outcome
    #[arg(long, short)]
    pub wait: bool,
    /// Longest wait in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    pub timeout: u64,
    /// The sign of completion to ask for
    #[arg(long, value_enum, default_value_t = Marker::Plain)]
    pub marker: Marker,
    /// Key under which a repeated send is the same command
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Signs of completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Marker {
    Plain,
    Code,
    None,
}

/// `semo tail`
#[derive(Debug, Args)]
pub struct Tail {
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// How many of the newest commands to show first
    #[arg(long, short = 'n', default_value_t = 10)]
    pub lines: usize,
}

/// `semo status`
#[derive(Debug, Args)]
pub struct Status {
    /// Print the whole state as JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
