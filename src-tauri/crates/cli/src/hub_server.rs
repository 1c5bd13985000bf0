//! `semo hub`: the hub by itself, for a team; its backups and its members. All of it is done by the crate `hub`; here it
//! gets arguments, signals and words.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use client::clock::SystemClock;
use domain::fault::chain;
use hub::{
    AuthSettings, DatabaseAt, Door, DoorLimits, Hub, HubConfig, HubError, Member, RealtimeSettings, Team,
    TlsFiles,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{self, HubBackup, HubOrder, HubRestore, MemberOrder, MemberRole};
use crate::exit::{Exit, Failure};
use crate::print::{self, note, out};
use crate::typed;
use crate::words::count;
use crate::world::World;

/// Port of a hub that is not told another one: that of a local Supabase.
const PORT: u16 = 54_321;

/// Files and connections that the hub asks the system for.
const FILES_MAX: u64 = 65_536;

/// Runs the order.
pub async fn run(world: &World, order: &arguments::Hub) -> Result<Exit, Failure> {
    let config = config(world);
    match &order.order {
        None => serve(world, config, order.json).await,
        Some(HubOrder::Backup(backup)) => back_up(&config, backup).await,
        Some(HubOrder::Restore(restore)) => put_back(&config, restore).await,
        Some(HubOrder::Member(order)) => members(world, &config, order).await,
        Some(HubOrder::RenewKeys { json }) => renew_keys(world, &config, *json),
    }
}

/// The hub of the settings.
fn config(world: &World) -> HubConfig {
    let settings = &world.settings.hub;
    let listen = settings
        .listen
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let tls = settings.tls_certificate.clone().zip(settings.tls_key.clone());
    HubConfig {
        database: match &settings.database_url {
            Some(url) => DatabaseAt::Url(url.clone()),
            None => DatabaseAt::Own {
                postgres_bin: settings.postgres_bin.clone(),
            },
        },
        door: Door {
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
            names: settings.names.clone(),
            origins: settings.origins.clone(),
            limits: connections(settings),
        },
        auth: AuthSettings {
            sign_up: settings.sign_up,
            anonymous: settings.anonymous,
            client_ip_header: settings.client_ip_header.clone(),
            ..AuthSettings::default()
        },
        realtime: realtime(world),
        ..HubConfig::new(world.paths.hub(), listen, Arc::new(SystemClock))
    }
}

/// How many connections there may be by the settings. A network has never more than there are.
fn connections(settings: &client::settings::Hub) -> DoorLimits {
    let usual = DoorLimits::default();
    let all = settings.connections_max.unwrap_or(usual.connections);
    let of_one_network = settings
        .connections_per_network_max
        .unwrap_or(usual.of_one_network);
    DoorLimits {
        connections: all,
        of_one_network: of_one_network.min(all),
        of_this_machine: all,
        ..usual
    }
}

/// What Realtime allows by the settings.
fn realtime(world: &World) -> RealtimeSettings {
    let (settings, usual) = (&world.settings.hub, RealtimeSettings::default());
    let sockets_max = settings.sockets_max.unwrap_or(usual.sockets_max);
    let of_one_network = settings
        .sockets_per_network_max
        .unwrap_or(usual.sockets_per_network_max.min(sockets_max));
    // All of a network may come back within the minute over which the mean is taken, and once more.
    let back = u32::try_from(of_one_network / 30).unwrap_or(u32::MAX);
    RealtimeSettings {
        private_only: !settings.public_channels,
        sockets_max,
        sockets_per_network_max: of_one_network,
        sockets_per_user_max: settings
            .sockets_per_user_max
            .unwrap_or(usual.sockets_per_user_max),
        handshakes_per_second: back.max(usual.handshakes_per_second),
        joins_per_second: settings.joins_per_second.unwrap_or(usual.joins_per_second),
        ..usual
    }
}

fn failure(error: &HubError) -> Failure {
    let (exit, hint) = match error {
        HubError::Listen { .. } => (
            Exit::Failed,
            "Choose another address with SEMO_HUB_LISTEN or setting hub.listen.",
        ),
        HubError::Plain { .. } => (
            Exit::Usage,
            "Set hub.tls_certificate and hub.tls_key, or SEMO_HUB_TLS_CERTIFICATE and SEMO_HUB_TLS_KEY.",
        ),
        HubError::Certificate { .. } | HubError::DatabaseUrl { .. } | HubError::Member { .. } => {
            (Exit::Usage, "")
        }
        _ => (Exit::Failed, ""),
    };
    Failure::new(exit, chain(error), hint)
}

/// Serves until SIGINT or SIGTERM; SIGHUP reads the certificate again, SIGUSR1 makes a new signing key.
async fn serve(world: &World, config: HubConfig, as_json: bool) -> Result<Exit, Failure> {
    keep_log(world);
    allow_files();
    let take = |kind| signal(kind).map_err(|error| Failure::of(Exit::Failed, &error));
    let mut interrupt = take(SignalKind::interrupt())?;
    let mut terminate = take(SignalKind::terminate())?;
    let mut hang_up = take(SignalKind::hangup())?;
    let mut rotate = take(SignalKind::user_defined1())?;
    let hub = Hub::start(config).await.map_err(|error| failure(&error))?;
    welcome(world, &hub, as_json)?;
    let ended = loop {
        tokio::select! {
            _ = interrupt.recv() => break Exit::Ok,
            _ = terminate.recv() => break Exit::Ok,
            () = hub.over() => break Exit::Failed,
            _ = hang_up.recv() => match hub.renew_certificate() {
                Ok(()) => tracing::info!("certificate and key were read again"),
                Err(error) => tracing::error!(%error, "the old certificate stays in use"),
            },
            _ = rotate.recv() => match hub.rotate_signing_key() {
                Ok(kid) => tracing::info!(kid, "tokens are signed with a new key; those of before stay good"),
                Err(error) => tracing::error!(%error, "the signing key stays as it is"),
            },
        }
    };
    if ended == Exit::Ok && !as_json {
        note!("Ending: requests finish, clients come back to the next hub …");
    }
    hub.stop().await.map_err(|error| failure(&error))?;
    if ended == Exit::Failed {
        return Err(Failure::new(
            Exit::Failed,
            "another hub has taken the database of this one",
            "One database belongs to one hub: stop the other one, or give this one a database of its own.",
        ));
    }
    Ok(ended)
}

/// Each connection is a file, and most systems begin with a limit of a thousand or less.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES_MAX, |most| most.min(FILES_MAX));
    if limit.current.is_none_or(|now| now >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::info!(
            files = wanted,
            "the hub may have so many connections and files open"
        ),
        Err(error) => tracing::warn!(%error, files = limit.current, "the limit of open files stays as it is"),
    }
}

fn welcome(world: &World, hub: &Hub, as_json: bool) -> Result<(), Failure> {
    let keys = world.paths.hub().join(hub::KEY_FILE);
    if as_json {
        let places = json!({
            "url": hub.url(),
            "publishable_key": hub.keys().publishable,
            "key_file": keys,
        });
        return print::line(&places.to_string());
    }
    out!("\n  Hub:              {}", hub.url())?;
    out!("  Publishable key:  {}", hub.keys().publishable)?;
    out!("  Secret key:       in {} (for servers only)", keys.display())?;
    out!(
        "\n  A workstation joins, after `semo hub member account` has made its account and `admit` has let it in:"
    )?;
    out!(
        "    semo login --url {} --key {} --email …",
        hub.url(),
        hub.keys().publishable
    )?;
    out!("\nCtrl+C ends it.")
}

/// A server's log goes to standard error, one JSON object per line; `SEMO_LOG` sets what is logged.
fn keep_log(world: &World) {
    let wanted = world
        .variable("SEMO_LOG")
        .unwrap_or("info,hyper=warn,tokio_postgres=warn");
    let filter = tracing_subscriber::EnvFilter::try_new(wanted).unwrap_or_default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second subscriber in one process (tests) is refused; the first one goes on.
    let _ = subscriber.try_init();
}

async fn back_up(config: &HubConfig, order: &HubBackup) -> Result<Exit, Failure> {
    let manifest = hub::backup(config, &order.file)
        .await
        .map_err(|error| failure(&error))?;
    if order.json {
        out!(
            "{}",
            json!({ "file": order.file, "made_at_ms": manifest.made_at.0, "dump_bytes": manifest.dump_bytes })
        )?;
    } else {
        out!(
            "{} holds the database ({}) and the keys. Who has it can do everything: keep it as safe as the hub.",
            order.file.display(),
            count(manifest.dump_bytes, "byte")
        )?;
    }
    Ok(Exit::Ok)
}

async fn put_back(config: &HubConfig, order: &HubRestore) -> Result<Exit, Failure> {
    let manifest = hub::restore(config, &order.file, order.replace)
        .await
        .map_err(|error| failure(&error))?;
    if order.json {
        out!(
            "{}",
            json!({ "file": order.file, "made_at_ms": manifest.made_at.0 })
        )?;
    } else {
        out!(
            "{} is put back. Start the hub with `semo hub`.",
            order.file.display()
        )?;
    }
    Ok(Exit::Ok)
}

fn renew_keys(world: &World, config: &HubConfig, as_json: bool) -> Result<Exit, Failure> {
    let keys = hub::renew_keys(config).map_err(|error| failure(&error))?;
    let file = world.paths.hub().join(hub::KEY_FILE);
    if as_json {
        let places = json!({ "publishable_key": keys.publishable, "key_file": file });
        print::line(&places.to_string())?;
    } else {
        out!("All secrets of this hub are new; the publishable key and who is signed in stay.")?;
        out!("Servers need the new secret key: it is in {}.", file.display())?;
        out!("Start the hub with `semo hub`.")?;
    }
    Ok(Exit::Ok)
}

async fn members(world: &World, config: &HubConfig, order: &MemberOrder) -> Result<Exit, Failure> {
    let team = Team::open(config).await.map_err(|error| failure(&error))?;
    let done = carry_out(world, &team, order).await;
    team.close().await;
    done.map(|()| Exit::Ok)
}

async fn carry_out(world: &World, team: &Team, order: &MemberOrder) -> Result<(), Failure> {
    let told = |error: HubError| failure(&error);
    match order {
        MemberOrder::List { json } => {
            let members = team.members().await.map_err(told)?;
            if *json {
                return out!("{}", Value::Array(members.iter().map(as_value).collect()));
            }
            for member in &members {
                out!("{}", in_words(member))?;
            }
            Ok(())
        }
        MemberOrder::Account { email } => {
            let password = typed::password(world, &format!("Password of {email}"))?;
            team.account(email, &password).await.map_err(told)?;
            out!("{email} can sign in.")
        }
        MemberOrder::Admit { email, office, role } => {
            let office = team.admit(email, office, role_name(*role)).await.map_err(told)?;
            out!("{email} is {} of the office {office}.", role_name(*role))
        }
        MemberOrder::Dismiss { email, office } => {
            let office = team.dismiss(email, office).await.map_err(told)?;
            out!("{email} is no longer a member of the office {office}.")
        }
    }
}

fn as_value(member: &Member) -> Value {
    let offices: Vec<Value> = member
        .offices
        .iter()
        .map(|(id, name, role)| json!({ "id": id, "name": name, "role": role }))
        .collect();
    json!({ "id": member.user, "email": member.email, "offices": offices })
}

fn in_words(member: &Member) -> String {
    let offices: Vec<String> = member
        .offices
        .iter()
        .map(|(id, name, role)| format!("{role} of {name} ({id})"))
        .collect();
    let email = match member.email.as_str() {
        "" => "(anonymous)",
        email => email,
    };
    match offices.is_empty() {
        true => format!("{email}  in no office"),
        false => format!("{email}  {}", offices.join(", ")),
    }
}

fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Owner => "owner",
        MemberRole::Operator => "operator",
        MemberRole::Viewer => "viewer",
        MemberRole::Device => "device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_holds_as_many_connections_as_the_settings_say() {
        let of = |all, of_one_network| {
            let limits = connections(&client::settings::Hub {
                connections_max: all,
                connections_per_network_max: of_one_network,
                ..client::settings::Hub::default()
            });
            (limits.connections, limits.of_one_network, limits.of_this_machine)
        };
        let usual = DoorLimits::default();
        assert_eq!(
            of(None, None),
            (usual.connections, usual.of_one_network, usual.of_this_machine)
        );
        assert_eq!(of(Some(9000), Some(2000)), (9000, 2000, 9000));
        assert_eq!(of(Some(100), None), (100, 100, 100));
        assert_eq!(of(None, Some(50_000)), (4096, 4096, 4096));
    }
}
