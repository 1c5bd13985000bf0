//! A database that somebody else runs: what its address must say, and what must be true of it before the hub changes it.
//!
//! Never sends anything to another machine in the open, never takes what belongs to something else (tables of its schema
//! `public`, the role `authenticator`), never has the office's functions belong to a superuser. Called by
//! [`crate::source`].

use std::net::IpAddr;
use std::str::FromStr as _;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

use crate::error::HubError;
use crate::postgres::{AUTHENTICATOR, MAJOR_MIN, OWNER};

/// Owner of the office's schema where [`OWNER`] is a superuser: functions that run as their owner would have all rights.
pub(crate) const OTHER_OWNER: &str = "semo_owner";
/// Longest that a connection may take to be made, where the address sets no other limit.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Silence after which the other machine is asked whether it is still there, and how often.
const SILENCE: Duration = Duration::from_secs(30);
const PROBE: Duration = Duration::from_secs(10);
const PROBES_MAX: u32 = 3;
/// What the comment on the role `authenticator` begins with; the name of the database follows.
const MARK: &str = "semo hub of the database ";

fn refused(reason: impl Into<String>) -> HubError {
    HubError::DatabaseUrl {
        reason: reason.into(),
    }
}

fn fault(attempt: &str) -> impl FnOnce(tokio_postgres::Error) -> HubError {
    let attempt = attempt.to_owned();
    move |source| HubError::Database { attempt, source }
}

/// Reads an address. A database on another machine is reached with TLS only, and its certificate is verified.
pub(crate) fn parse(url: &str) -> Result<Config, HubError> {
    // Ours is the strictest mode anyway; the library knows only the word for it that libpq uses for less.
    let url = url
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require");
    // The library's words never repeat the address, which carries a password.
    let mut config = Config::from_str(&url).map_err(|error| refused(crate::error::explained(&error)))?;
    if is_of_another_machine(&config) {
        if config.get_ssl_mode() == SslMode::Disable {
            return Err(refused(
                "it is on another machine, and `sslmode=disable` would show the password and everything else to the \
                 network; take `sslmode=require` (the certificate is verified)",
            ));
        }
        config.ssl_mode(SslMode::Require);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_MAX);
    }
    config
        .keepalives(true)
        .keepalives_idle(SILENCE)
        .keepalives_interval(PROBE)
        .keepalives_retries(PROBES_MAX);
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENCE + PROBE * PROBES_MAX);
    }
    Ok(config)
}

/// Whether anything but this machine's loopback or a socket of it is named.
fn is_of_another_machine(config: &Config) -> bool {
    let names = config.get_hosts().iter().any(|host| match host {
        Host::Tcp(name) => {
            let address = name.parse::<IpAddr>();
            !name.eq_ignore_ascii_case("localhost") && !address.is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => false,
    });
    let addresses = config.get_hostaddrs();
    match addresses.is_empty() {
        true => names,
        false => addresses.iter().any(|address| !address.is_loopback()),
    }
}

/// Refuses a database that is not the hub's to change. `superuser`: before the bootstrap.
pub(crate) async fn check_is_ours(superuser: &Client) -> Result<(), HubError> {
    let row = superuser
        .query_one(
            "select (select rolsuper from pg_roles where rolname = current_user),
                    to_regclass('auth.schema_migrations') is not null or to_regclass('auth.mfa_factors') is not null,
                    current_setting('server_version_num')::int / 10000,
                    to_regclass('realtime.hub_changes') is not null",
            &[],
        )
        .await
        .map_err(fault("look at the database"))?;
    let (is_superuser, is_supabase): (bool, bool) = (row.get(0), row.get(1));
    let (major, is_hub): (i32, bool) = (row.get(2), row.get(3));
    if is_supabase {
        return Err(refused(
            "this is the database of a Supabase project, which needs no hub: use the profile `supabase`",
        ));
    }
    if !is_superuser {
        return Err(refused(
            "its account is no superuser, and the hub has to make roles, policies and event triggers there",
        ));
    }
    if major < MAJOR_MIN.cast_signed() {
        return Err(refused(format!(
            "it is PostgreSQL {major}; the hub needs 15 or newer"
        )));
    }
    if !is_hub {
        check_is_empty(superuser).await?;
    }
    check_authenticator(superuser, is_hub).await
}

/// A hub serves all of the schema `public` over REST: it must not be somebody else's.
async fn check_is_empty(superuser: &Client) -> Result<(), HubError> {
    let found = superuser
        .query_opt(
            "select c.oid::regclass::text from pg_class c
              where c.relnamespace = to_regnamespace('public') and c.relkind in ('r', 'p', 'v', 'm', 'f')
                and not exists (select from pg_depend d
                                 where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
              order by c.relname limit 1",
            &[],
        )
        .await
        .map_err(fault("look into the database"))?;
    match found {
        None => Ok(()),
        Some(row) => Err(refused(format!(
            "its schema `public` has tables of something else (`{}`), which the hub would serve over REST; give the hub \
             a database of its own (`create database semo`)",
            row.get::<_, String>(0)
        ))),
    }
}

/// The role that REST logs in with is one for the whole server: only one hub can have it.
async fn check_authenticator(superuser: &Client, is_hub: bool) -> Result<(), HubError> {
    let found = superuser
        .query_opt(
            "select shobj_description(a.oid, 'pg_authid'), a.rolpassword is not null,
                    exists (select from pg_database d
                             where d.datname <> current_database()
                               and $2 || d.datname = shobj_description(a.oid, 'pg_authid'))
               from pg_authid a where a.rolname = $1",
            &[&AUTHENTICATOR, &MARK],
        )
        .await
        .map_err(fault("look at the roles of the server"))?;
    let Some(row) = found else {
        return Ok(());
    };
    let mark: Option<String> = row.get(0);
    let (has_password, is_others): (bool, bool) = (row.get(1), row.get(2));
    let is_marked = mark.as_deref().is_some_and(|mark| mark.starts_with(MARK));
    if is_others {
        let other = mark.unwrap_or_default();
        let other = other.strip_prefix(MARK).unwrap_or_default();
        return Err(refused(format!(
            "the role `{AUTHENTICATOR}` of this server belongs to the hub of the database `{other}`; one server takes one \
             hub: give this one a server of its own, or drop that database"
        )));
    }
    if has_password && !is_marked && !is_hub {
        return Err(refused(format!(
            "the role `{AUTHENTICATOR}` of this server belongs to something else (it has a password that no hub has \
             set); give the hub a server of its own"
        )));
    }
    Ok(())
}

/// Gives the role that REST logs in with its password, and marks it as this hub's. After the bootstrap.
pub(crate) async fn take_authenticator(superuser: &Client, password: &str) -> Result<(), HubError> {
    let attempt = || fault("give the role `authenticator` its password");
    let row = superuser
        .query_one("select quote_literal($1 || current_database())", &[&MARK])
        .await
        .map_err(attempt())?;
    let mark: String = row.get(0);
    // What the server keeps anyway, not the password: statements are logged. It is no parameter of ALTER ROLE; base64,
    // digits, `$` and `:` are all there is in it.
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    superuser
        .batch_execute(&format!(
            "begin; alter role {AUTHENTICATOR} login password '{verifier}'; comment on role {AUTHENTICATOR} is {mark}; \
             commit"
        ))
        .await
        .map_err(attempt())
}

/// The role that the office's schema belongs to.
pub(crate) async fn owner(superuser: &Client) -> Result<&'static str, HubError> {
    let row = superuser
        .query_one(
            "select exists (select from pg_roles where rolname = $1 and rolsuper)",
            &[&OWNER],
        )
        .await
        .map_err(fault("look at the roles of the server"))?;
    Ok(if row.get(0) { OTHER_OWNER } else { OWNER })
}

/// Gives what belongs to the other of the two possible owners to `owner`: it came with a backup of another server, or
/// from an older program.
pub(crate) async fn hand_over(superuser: &Client, owner: &str) -> Result<(), HubError> {
    let former = if owner == OWNER { OTHER_OWNER } else { OWNER };
    let sql = format!(
        "do $$
         declare x record;
         begin
           for x in
             select format('alter schema %I owner to {owner}', n.nspname) as change, 1 as place
               from pg_namespace n
              where n.nspname = 'private' and n.nspowner = to_regrole('{former}')
             union all
             select format('alter %s %s owner to {owner}',
                           case c.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end,
                           c.oid::regclass), 2
               from pg_class c
              where c.relnamespace in (to_regnamespace('public'), to_regnamespace('private'))
                and c.relkind in ('r', 'p', 'v', 'm') and c.relowner = to_regrole('{former}')
                and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
             union all
             select format('alter routine %s owner to {owner}', p.oid::regprocedure), 3
               from pg_proc p
              where p.pronamespace in (to_regnamespace('public'), to_regnamespace('private'))
                and p.proowner = to_regrole('{former}')
                and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
              order by 2
           loop
             execute x.change;
           end loop;
         end $$"
    );
    superuser
        .batch_execute(&sql)
        .await
        .map_err(fault("give the office's schema to its owner"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_reached_with_tls_only() {
        for (url, mode) in [
            ("postgresql://a:b@db.example/semo", SslMode::Require),
            (
                "postgresql://a:b@db.example/semo?sslmode=prefer",
                SslMode::Require,
            ),
            (
                "postgresql://a:b@10.0.0.7/semo?sslmode=verify-full",
                SslMode::Require,
            ),
            ("postgresql://a:b@localhost,db.example/semo", SslMode::Require),
            ("host=localhost hostaddr=10.0.0.7 user=a", SslMode::Require),
            ("postgresql://a:b@127.0.0.1:5433/semo", SslMode::Prefer),
            (
                "postgresql://a:b@localhost/semo?sslmode=disable",
                SslMode::Disable,
            ),
            ("postgresql://a@%2Frun%2Fpostgresql/semo", SslMode::Prefer),
        ] {
            let config = parse(url).unwrap();
            assert_eq!(config.get_ssl_mode(), mode, "{url}");
            assert!(
                config.get_keepalives() && config.get_keepalives_idle() == SILENCE,
                "{url}"
            );
        }
        let error = parse("postgresql://a:very-secret@db.example/semo?sslmode=disable").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sslmode=require") && !text.contains("very-secret"),
            "{text}"
        );
    }
}
