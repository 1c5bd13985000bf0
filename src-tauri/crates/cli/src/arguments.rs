//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// SEMO Office without a window: runs the office of this machine or joins a team's, sends work to agents, shows what comes
/// of it.
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
    /// Start everything here (with the profile of this machine also its hub) and print the UI's address. Ctrl+C ends it when
    /// the running turns have ended.
    Up(Up),
    /// End what runs here: when the running turns have ended, or at once.
    Down(Down),
    /// Give an agent a prompt, as a remote server would.
    Send(Send),
    /// Follow the office's commands and their results.
    Tail(Tail),
    /// Give up a command, or interrupt the turn that runs in a session.
    Cancel(Cancel),
    /// End a session for good. What it has not committed is kept.
    Terminate(Terminate),
    /// Show what runs here.
    Status(Status),
    /// List the permissions and questions that agents wait with.
    Asks(Asks),
    /// Answer one of them: allow, deny, or choose.
    Approve(Approve),
    /// Tell how a session, or a recording of one, came to the outcomes of its turns.
    Explain(Explain),
    /// List the work that sessions left uncommitted and that was kept.
    Preserved(Preserved),
    /// Put kept work into a new branch.
    Restore(Restore),
    /// The office itself.
    #[command(subcommand)]
    Office(OfficeOrder),
    /// Serve a team: database, REST, Realtime and sign-in for its offices, without agents of its own.
    Hub(Hub),
    /// Sign in to a Supabase project or a team's hub: this machine then works for its offices.
    Login(Login),
    /// End that sign-in, here and at the project.
    Logout(Logout),
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

/// `semo down`
#[derive(Debug, Args)]
pub struct Down {
    /// Interrupt the turns that run instead of waiting for their ends
    #[arg(long, conflicts_with = "leave")]
    pub now: bool,
    /// End the program only: agents go on without it, and the next start takes them up again
    #[arg(long)]
    pub leave: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo send`
#[derive(Debug, Args)]
#[command(
    override_usage = "semo send --agent <ROLE|NAME> <PROMPT> [--wait]\n       semo send --session <ID> <PROMPT> [--wait]"
)]
pub struct Send {
    /// The prompt; `-` reads it from standard input
    pub prompt: String,
    /// The agent, by role or name
    #[arg(long, short, required_unless_present = "session", value_name = "ROLE|NAME")]
    pub agent: Option<String>,
    /// A session instead of an agent: its id, or the beginning of it
    #[arg(long, conflicts_with = "agent", value_name = "ID")]
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
    /// With --wait: how long to wait for a core that has gone to come back, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub wait_for: u64,
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
    /// Show what the journal holds: how far each command came, and what became of it when the core was killed
    #[arg(long)]
    pub journal: bool,
    /// With --journal: how many of the newest commands to show
    #[arg(long, short = 'n', default_value_t = 20, requires = "journal")]
    pub lines: usize,
    /// Print the whole state as JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo login`
#[derive(Debug, Args)]
pub struct Login {
    /// Address of the project: https://….supabase.co, or a hub's [default: that of the settings]
    #[arg(long)]
    pub url: Option<String>,
    /// Its publishable key [default: that of the settings]
    #[arg(long)]
    pub key: Option<String>,
    /// The account. Its password is asked for, or read from `SEMO_PASSWORD` or standard input
    #[arg(long)]
    pub email: Option<String>,
}

/// `semo logout`
#[derive(Debug, Args)]
pub struct Logout {
    /// Go back to the office of this machine alone
    #[arg(long)]
    pub this_machine: bool,
}

/// `semo doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Put a journal that is damaged aside and begin a new one; nothing is deleted
    #[arg(long)]
    pub set_journal_aside: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo asks`
#[derive(Debug, Args)]
pub struct Asks {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo cancel`
#[derive(Debug, Args)]
#[command(override_usage = "semo cancel <COMMAND|SESSION>")]
pub struct Cancel {
    /// The command, or the session whose turn is meant: an id of `semo status`, or the beginning of one
    #[arg(value_name = "COMMAND|SESSION")]
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo terminate`
#[derive(Debug, Args)]
#[command(override_usage = "semo terminate <SESSION>")]
pub struct Terminate {
    /// The session: its id, or the beginning of it
    pub session: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo approve`
#[derive(Debug, Args)]
#[command(override_usage = "semo approve <ASK|SESSION> [--deny [--message <TEXT>] | --choose <N>]")]
pub struct Approve {
    /// The ask or its session: an id of `semo asks`, or the beginning of one
    #[arg(value_name = "ASK|SESSION")]
    pub target: String,
    /// Say no
    #[arg(long, conflicts_with = "choose")]
    pub deny: bool,
    /// With --deny: why, for the agent
    #[arg(long, requires = "deny", value_name = "TEXT")]
    pub message: Option<String>,
    /// For a question: the choice, counted from 1
    #[arg(long, value_name = "N")]
    pub choose: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo explain`
#[derive(Debug, Args)]
#[command(override_usage = "semo explain <SESSION>\n       semo explain --recording <FILE>")]
pub struct Explain {
    /// A session of this machine: its id, or the beginning of it
    #[arg(required_unless_present = "recording")]
    pub session: Option<String>,
    /// A recorded session instead
    #[arg(long, value_name = "FILE", conflicts_with = "session")]
    pub recording: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo preserved`
#[derive(Debug, Args)]
pub struct Preserved {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo restore`
#[derive(Debug, Args)]
#[command(override_usage = "semo restore <NAME> [--branch <NAME>] [--repository <NAME>]")]
pub struct Restore {
    /// The kept state: a name of `semo preserved`, or the beginning of one
    pub name: String,
    /// The branch to make [default: restored/ and the beginning of the name]
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// The repository, when two have a state of that name
    #[arg(long)]
    pub repository: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo office`
#[derive(Debug, Subcommand)]
pub enum OfficeOrder {
    /// Show the office's settings, or change some of them. They hold for all its workstations, at once.
    Settings(OfficeSettings),
}

/// `semo office settings`
#[derive(Debug, Args)]
pub struct OfficeSettings {
    /// sessions_max=4, warm_roles=FE,QA, idle_minutes=20, memory_mb_max=8192, completion_patterns=["…"],
    /// error_patterns=["…"]; with nothing behind the = a setting is taken away
    #[arg(value_name = "KEY=VALUE")]
    pub changes: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo hub`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Hub {
    /// What to do with it instead of running it
    #[command(subcommand)]
    pub order: Option<HubOrder>,
    /// Print one JSON object with addresses and keys instead of text
    #[arg(long)]
    pub json: bool,
}

/// What can be done with a hub.
#[derive(Debug, Subcommand)]
pub enum HubOrder {
    /// Write database and keys into one file; the hub may be running
    Backup(HubBackup),
    /// Put a backup back, while the hub is not running
    Restore(HubRestore),
    /// List accounts and offices, make accounts, let them into offices: while the hub is running
    #[command(subcommand)]
    Member(MemberOrder),
    /// Make all secrets anew, after one of them got into wrong hands; while the hub is not running
    RenewKeys {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `semo hub backup`
#[derive(Debug, Args)]
pub struct HubBackup {
    /// The file; it must not be there yet
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo hub restore`
#[derive(Debug, Args)]
pub struct HubRestore {
    /// A file of `semo hub backup`
    pub file: PathBuf,
    /// Put a hub that is there aside (a database given by its address: overwrite it)
    #[arg(long)]
    pub replace: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `semo hub member`
#[derive(Debug, Subcommand)]
pub enum MemberOrder {
    /// List accounts with their offices
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an account, or set the password of one; it is read from standard input or `SEMO_PASSWORD`
    Account {
        /// Its email address
        email: String,
    },
    /// Let an account into an office, or change what it may do there
    ///
    /// Accounts made before this version count as vouched for: the hub says so once in its log; look through `semo hub
    /// member list` before you let one in.
    Admit {
        /// Its email address
        email: String,
        /// The office: its id, or its name
        #[arg(long)]
        office: String,
        /// What it may do; a workstation needs `owner`, or `device` when nobody gives commands from it
        #[arg(long, value_enum)]
        role: MemberRole,
    },
    /// Take an account out of an office
    Dismiss {
        /// Its email address
        email: String,
        /// The office: its id, or its name
        #[arg(long)]
        office: String,
    },
}

/// What an account may do in an office.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MemberRole {
    Owner,
    Operator,
    Viewer,
    Device,
}
