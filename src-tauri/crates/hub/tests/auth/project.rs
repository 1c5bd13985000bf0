//! scripts/check-supabase.sql against a database of which things are taken away, or opened, one by one.

use std::fs;
use std::path::Path;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::on_own_hub;

/// The check as psql would send it.
fn check() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut files: Vec<_> = fs::read_dir(root.join("migrations/supabase"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let migrations: String = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let quoted = format!("'{}'", migrations.replace('\'', "''"));
    fs::read_to_string(root.join("scripts/check-supabase.sql"))
        .unwrap()
        .replace(":'migrations'", &quoted)
}

/// What is to be put right.
async fn faults(client: &Client, check: &str) -> Vec<String> {
    let rows = client.simple_query(check).await.unwrap();
    rows.iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) if row.get(0) == Some("fault") => row.get(1).map(str::to_owned),
            _ => None,
        })
        .collect()
}

/// What the check finds after `damage`, which is undone.
async fn found_after(client: &Client, check: &str, damage: &str) -> Vec<String> {
    client
        .batch_execute(&format!(
            "begin; set local client_min_messages = warning; {damage}"
        ))
        .await
        .unwrap_or_else(|error| panic!("{damage}: {error:?}"));
    let found = faults(client, check).await;
    client.batch_execute("rollback").await.unwrap();
    found
}

/// One statement per part of the office's schema that takes it away.
const REMOVALS: &str = "
  select format('drop function %s cascade', p.oid::regprocedure) from pg_proc p
   where p.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
  union all
  select format('drop policy %I on %I.%I', policyname, schemaname, tablename) from pg_policies
  union all
  select format('drop trigger %I on %s', tgname, tgrelid::regclass) from pg_trigger t join pg_class c on c.oid = t.tgrelid
   where not t.tgisinternal and c.relnamespace = 'public'::regnamespace and t.tgname not like 'hub%'
     and t.tgname not like '%realtime%'
  union all
  select format('drop table %s cascade', oid::regclass) from pg_class
   where relnamespace in ('public'::regnamespace, 'private'::regnamespace) and relkind = 'r'
  union all
  select format('alter table %s disable row level security', oid::regclass) from pg_class
   where relnamespace in ('public'::regnamespace, 'private'::regnamespace) and relkind = 'r'
  union all
  select format('drop index %s', i.indexrelid::regclass) from pg_index i join pg_class c on c.oid = i.indrelid
   where c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)
     and not exists (select 1 from pg_constraint k where k.conindid = i.indexrelid)";

#[test]
fn a_project_that_lacks_any_part_is_told_so() {
    on_own_hub(
        |_| {},
        async |hub| {
            let (client, check) = (hub.admin().await, check());
            assert_eq!(faults(&client, &check).await, Vec::<String>::new(), "a whole one");
            let removals = client.query(REMOVALS, &[]).await.unwrap();
            assert!(removals.len() > 60, "{} parts", removals.len());
            for row in removals {
                let damage: String = row.get(0);
                assert!(
                    !found_after(&client, &check, &damage).await.is_empty(),
                    "{damage}"
                );
            }
            assert_eq!(
                faults(&client, &check).await,
                Vec::<String>::new(),
                "nothing stayed"
            );
        },
    );
}

/// Statements that open the office too far or break it, each with a word of what must be said.
const OPENINGS: &[(&str, &str)] = &[
    (
        "grant select on public.offices to anon",
        "anon may select public.offices directly",
    ),
    (
        "grant all on public.agents to authenticated",
        "authenticated may insert public.agents",
    ),
    (
        "grant truncate on public.clients to public",
        "anon may truncate public.clients",
    ),
    (
        "grant select on private.command_leases to authenticated",
        "private.command_leases",
    ),
    (
        "revoke select on public.sessions from authenticated",
        "members may not read public.sessions",
    ),
    (
        "grant execute on function public.create_office(text) to public",
        "may call public.create_office",
    ),
    (
        "revoke execute on function public.create_office(text) from authenticated",
        "members cannot call",
    ),
    (
        "revoke execute on function private.my_offices() from authenticated",
        "policies cannot call",
    ),
    (
        "revoke usage on schema private from authenticated",
        "policies cannot call",
    ),
    (
        "alter function public.create_office(text) security invoker",
        "public.create_office",
    ),
    (
        "alter function private.my_offices() reset search_path",
        "private.my_offices",
    ),
    (
        "create or replace function private.my_offices() returns setof uuid language sql stable
                       security definer set search_path = '' as $$ select id from public.offices $$",
        "private.my_offices is of another version",
    ),
    (
        "create policy all_of_it on public.offices for select to anon using (true)",
        "all_of_it",
    ),
    (
        "drop policy office_read on public.offices;
                     create policy office_read on public.offices for all to authenticated using (true)",
        "policy office_read of public.offices is missing",
    ),
    (
        "alter table public.agent_commands disable trigger all",
        "agent_commands_ring_insert",
    ),
    (
        "alter table public.agent_commands drop column idempotency_key cascade",
        "idempotency_key",
    ),
    (
        "alter table private.command_leases drop column given cascade",
        "command_leases.given",
    ),
    (
        "alter table realtime.messages disable row level security",
        "realtime.messages",
    ),
    (
        "create policy shout on realtime.messages for insert to authenticated with check (true)",
        "policy shout of realtime.messages",
    ),
    (
        "drop function realtime.send(jsonb, text, text, boolean) cascade",
        "realtime.send is missing",
    ),
    (
        "alter role authenticator set pgrst.db_schemas = 'public, private'",
        "private is served",
    ),
];

#[test]
fn a_project_that_is_open_too_far_is_told_so() {
    on_own_hub(
        |_| {},
        async |hub| {
            let (client, check) = (hub.admin().await, check());
            for (damage, expected) in OPENINGS {
                let found = found_after(&client, &check, damage).await;
                assert!(
                    found.iter().any(|fault| fault.contains(expected)),
                    "{damage}: {found:?}"
                );
            }
        },
    );
}
