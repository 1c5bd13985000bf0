//! Who belongs to a hub's offices: for whoever runs the hub, straight in its database, while it runs.
//!
//! On a Supabase project the same is done in its dashboard and by SQL (docs/SUPABASE.md). Never shows a password or a
//! token. Called by `semo hub member`.

use domain::{OfficeId, UserId};
use tokio_postgres::{Client, Row};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::db::Database;
use crate::error::HubError;
use crate::postgres::{Cluster, SUPERUSER, config_at};
use crate::source::{self, Address};
use crate::{DatabaseAt, HubConfig, auth, elsewhere};

/// An account, and what it may do where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub user: UserId,
    /// Empty for an anonymous one.
    pub email: String,
    /// Id and name of an office, and the role in it.
    pub offices: Vec<(OfficeId, String, String)>,
}

/// An account as it was found by its address.
struct Account {
    id: Uuid,
    /// Whether the address is known to be his.
    is_vouched: bool,
}

/// The accounts of a running hub.
pub struct Team {
    database: Database,
    client: Client,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Team")
    }
}

fn fault(attempt: &str) -> impl FnOnce(tokio_postgres::Error) -> HubError {
    let attempt = attempt.to_owned();
    move |source| HubError::Database { attempt, source }
}

fn unknown(what: String) -> HubError {
    HubError::Member { reason: what }
}

impl Team {
    /// Reaches the database of the hub that runs with `config`.
    pub async fn open(config: &HubConfig) -> Result<Team, HubError> {
        let address = match &config.database {
            DatabaseAt::Own { .. } => {
                let (socket, _) = Cluster::of_running(&config.data_dir)?;
                Address {
                    config: config_at(&socket, SUPERUSER),
                    tls: source::connector()?,
                }
            }
            DatabaseAt::Url(url) => Address {
                config: elsewhere::parse(url)?,
                tls: source::connector()?,
            },
        };
        let tasks = TaskTracker::new();
        let client = address.open(&tasks, "of the hub; is it running?").await?;
        Ok(Team {
            database: Database::at(&address)?,
            client,
            tasks,
        })
    }

    /// All accounts, by email.
    pub async fn members(&self) -> Result<Vec<Member>, HubError> {
        let rows = self
            .client
            .query(
                "select u.id, coalesce(u.email, ''), o.id, o.name, m.role
                 from auth.users u
                 left join public.office_members m on m.user_id = u.id and m.revoked_at is null
                 left join public.offices o on o.id = m.office_id
                 order by 2, 1, o.name",
                &[],
            )
            .await
            .map_err(fault("list the accounts"))?;
        let mut members: Vec<Member> = Vec::new();
        for row in rows {
            let user = UserId(row.get::<_, Uuid>(0));
            if members.last().is_none_or(|last| last.user != user) {
                members.push(Member {
                    user,
                    email: row.get(1),
                    offices: Vec::new(),
                });
            }
            if let (Some(office), Some(last)) = (row.get::<_, Option<Uuid>>(2), members.last_mut()) {
                last.offices.push((OfficeId(office), row.get(3), row.get(4)));
            }
        }
        Ok(members)
    }

    /// Makes the account, or sets the password of the one that is there, which ends its sessions.
    pub async fn account(&self, email: &str, password: &str) -> Result<UserId, HubError> {
        auth::users::ensure(&self.database, email, password)
            .await
            .map(UserId)
    }

    /// Lets an account into an office, or changes its role there: owner, operator, viewer or device. Not one that took its
    /// address itself: anybody may have done that.
    pub async fn admit(&self, email: &str, office: &str, role: &str) -> Result<OfficeId, HubError> {
        let user = self.user(email).await?;
        if !user.is_vouched {
            return Err(unknown(format!(
                "the account {email} took this address itself, and nobody has proven that it is his; `semo hub member \
                 account {email}` makes a new account with the address, and that one loses it; if you know that it is his, \
                 confirm it with the secret key: PUT /auth/v1/admin/users/{{id}} with {{\"email_confirm\": true}}"
            )));
        }
        let office = self.office(office).await?;
        self.client
            .execute(
                "insert into public.office_members (office_id, user_id, role) values ($1, $2, $3)
                 on conflict (office_id, user_id) do update set role = excluded.role, revoked_at = null",
                &[&office, &user.id, &role],
            )
            .await
            .map_err(fault("let the account into the office"))?;
        Ok(OfficeId(office))
    }

    /// Takes an account out of an office. REST refuses it from then on, a channel that is open at the next check of
    /// its token.
    pub async fn dismiss(&self, email: &str, office: &str) -> Result<OfficeId, HubError> {
        let (user, id) = (self.user(email).await?, self.office(office).await?);
        let dismissed = self
            .client
            .execute(
                "update public.office_members set revoked_at = now()
                 where office_id = $1 and user_id = $2 and revoked_at is null",
                &[&id, &user.id],
            )
            .await
            .map_err(fault("take the account out of the office"))?;
        if dismissed == 0 {
            return Err(unknown(format!("{email} is not a member of the office {office}")));
        }
        Ok(OfficeId(id))
    }

    async fn user(&self, email: &str) -> Result<Account, HubError> {
        let row = self
            .client
            .query_opt(
                "select id, hub_vouched from auth.users where email = lower($1)",
                &[&email],
            )
            .await
            .map_err(fault("look for the account"))?;
        let account = |row: Row| Account {
            id: row.get(0),
            is_vouched: row.get(1),
        };
        row.map(account).ok_or_else(|| {
            unknown(format!(
                "there is no account {email}; `semo hub member account {email}` makes it"
            ))
        })
    }

    /// By id or by name.
    async fn office(&self, wanted: &str) -> Result<Uuid, HubError> {
        let rows = self
            .client
            .query(
                "select id from public.offices where id::text = lower($1) or name = $1 limit 2",
                &[&wanted],
            )
            .await
            .map_err(fault("look for the office"))?;
        match rows.as_slice() {
            [row] => Ok(row.get(0)),
            [] => Err(unknown(format!("there is no office {wanted}"))),
            _ => Err(unknown(format!(
                "there are several offices of the name {wanted}; name it by its id"
            ))),
        }
    }

    /// Closes the connections.
    pub async fn close(self) {
        self.database.close();
        drop(self.client);
        self.tasks.close();
        self.tasks.wait().await;
    }
}
