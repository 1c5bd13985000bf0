-- What Supabase brings with it, made by the hub as superuser before the office's migrations run as `{owner}`.
-- Safe to run at every start. Nothing of the office is in here, and nothing of here is in migrations/supabase.

do $$
begin
  if not exists (select 1 from pg_roles where rolname = '{owner}') then
    create role {owner} login createrole createdb bypassrls;
  end if;
  if not exists (select 1 from pg_roles where rolname = 'anon') then
    create role anon nologin noinherit;
  end if;
  if not exists (select 1 from pg_roles where rolname = 'authenticated') then
    create role authenticated nologin noinherit;
  end if;
  if not exists (select 1 from pg_roles where rolname = 'service_role') then
    create role service_role nologin noinherit bypassrls;
  end if;
  if not exists (select 1 from pg_roles where rolname = 'authenticator') then
    create role authenticator login noinherit;
  end if;
  if not exists (select 1 from pg_roles where rolname = 'supabase_auth_admin') then
    create role supabase_auth_admin nologin noinherit;
  end if;
  if not exists (select 1 from pg_roles where rolname = 'supabase_realtime_admin') then
    create role supabase_realtime_admin nologin noinherit;
  end if;
  execute format('grant create, connect, temporary on database %I to {owner}', current_database());
end $$;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, supabase_realtime_admin to {owner};

-- The generous defaults of Supabase: the migrations must take back what they do not want to give.
grant all on schema public to {owner};
grant usage on schema public to anon, authenticated, service_role;
alter default privileges for role {owner} in schema public
  grant all on tables to {owner}, anon, authenticated, service_role;
alter default privileges for role {owner} in schema public
  grant all on functions to {owner}, anon, authenticated, service_role;
alter default privileges for role {owner} in schema public
  grant all on sequences to {owner}, anon, authenticated, service_role;

create schema if not exists extensions;
grant usage on schema extensions to {owner}, anon, authenticated, service_role;
do $$
begin
  if exists (select 1 from pg_available_extensions where name = 'pgcrypto') then
    create extension if not exists pgcrypto with schema extensions;
  end if;
end $$;

-- ------------------------------------------------------------------------------------------------- auth
create schema if not exists auth;
grant usage on schema auth to {owner}, anon, authenticated, service_role;

-- The tables have the shape of Supabase's, so that SQL written for it runs: columns of features that are not here stay
-- empty. A data folder of an older program is brought forward by the `alter table`s; they change nothing in a new one.
create table if not exists auth.users (
  id uuid primary key default gen_random_uuid(),
  aud text default 'authenticated',
  role text default 'authenticated',
  email text unique,
  encrypted_password text,
  email_confirmed_at timestamptz,
  last_sign_in_at timestamptz,
  banned_until timestamptz,
  raw_app_meta_data jsonb default '{"provider": "email", "providers": ["email"]}',
  raw_user_meta_data jsonb default '{}',
  is_anonymous boolean not null default false,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
-- Rows that were copied from a Supabase project may have nulls here.
alter table auth.users alter column aud drop not null, alter column role drop not null,
  alter column raw_app_meta_data drop not null, alter column raw_user_meta_data drop not null,
  alter column created_at drop not null, alter column updated_at drop not null;
alter table auth.users
  add column if not exists instance_id uuid default '00000000-0000-0000-0000-000000000000',
  add column if not exists invited_at timestamptz,
  add column if not exists confirmation_token text default '',
  add column if not exists confirmation_sent_at timestamptz,
  add column if not exists recovery_token text default '',
  add column if not exists recovery_sent_at timestamptz,
  add column if not exists email_change_token_new text default '',
  add column if not exists email_change text default '',
  add column if not exists email_change_sent_at timestamptz,
  add column if not exists is_super_admin boolean,
  add column if not exists phone text default null unique,
  add column if not exists phone_confirmed_at timestamptz,
  add column if not exists phone_change text default '',
  add column if not exists phone_change_token text default '',
  add column if not exists phone_change_sent_at timestamptz,
  add column if not exists confirmed_at timestamptz
    generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
  add column if not exists email_change_token_current text default '',
  add column if not exists email_change_confirm_status smallint default 0,
  add column if not exists reauthentication_token text default '',
  add column if not exists reauthentication_sent_at timestamptz,
  add column if not exists is_sso_user boolean not null default false,
  add column if not exists deleted_at timestamptz;
-- Whether the hub's owner, or a server with the secret key, stands for it that the address is this user's. What comes in
-- by SQL is the owner's; Auth says of those who sign up, or change their address, that it is not so. Accounts that are
-- older than this column cannot be told apart: all of them count as vouched for, and the hub says so in its log.
alter table auth.users add column if not exists hub_vouched boolean not null default true;
create index if not exists users_by_lower_email on auth.users (lower(email));
create index if not exists users_by_created_at on auth.users (created_at, id);

create table if not exists auth.identities (
  provider_id text not null,
  user_id uuid not null references auth.users (id) on delete cascade,
  identity_data jsonb not null,
  provider text not null,
  last_sign_in_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  email text generated always as (lower(identity_data ->> 'email')) stored,
  id uuid primary key default gen_random_uuid(),
  unique (provider_id, provider)
);
create index if not exists identities_by_user on auth.identities (user_id);
-- Users of an older program have none.
insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at)
  select u.id::text, u.id, jsonb_build_object('sub', u.id, 'email', u.email, 'email_verified', true,
         'phone_verified', false), 'email', u.last_sign_in_at, u.created_at
    from auth.users u
   where u.email is not null and u.encrypted_password is not null and u.deleted_at is null
     and not exists (select 1 from auth.identities i where i.user_id = u.id);

do $$
begin
  if not exists (select 1 from pg_type t join pg_namespace n on n.oid = t.typnamespace
                 where n.nspname = 'auth' and t.typname = 'aal_level') then
    create type auth.aal_level as enum ('aal1', 'aal2', 'aal3');
  end if;
end $$;
create table if not exists auth.sessions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users (id) on delete cascade,
  created_at timestamptz default now(),
  refreshed_at timestamptz
);
alter table auth.sessions alter column created_at drop not null;
alter table auth.sessions
  add column if not exists updated_at timestamptz default now(),
  add column if not exists factor_id uuid,
  add column if not exists aal auth.aal_level default 'aal1',
  add column if not exists not_after timestamptz,
  add column if not exists user_agent text,
  add column if not exists ip inet,
  add column if not exists tag text;
create index if not exists sessions_by_user on auth.sessions (user_id);
create table if not exists auth.mfa_amr_claims (
  session_id uuid not null references auth.sessions (id) on delete cascade,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  authentication_method text not null,
  id uuid primary key default gen_random_uuid(),
  unique (session_id, authentication_method)
);

-- `token` and `parent` are SHA-256 digests in hex: a copy of the database is no set of tokens. Else as Supabase's.
do $$
begin
  if exists (select 1 from information_schema.columns
             where table_schema = 'auth' and table_name = 'refresh_tokens' and column_name = 'token_hash') then
    alter table auth.refresh_tokens rename to refresh_tokens_before;
  end if;
end $$;
create table if not exists auth.refresh_tokens (
  instance_id uuid default '00000000-0000-0000-0000-000000000000',
  id bigint generated by default as identity primary key,
  token text not null unique,
  user_id text,
  revoked boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  parent text,
  session_id uuid not null references auth.sessions (id) on delete cascade,
  used_at timestamptz
);
do $$
begin
  if to_regclass('auth.refresh_tokens_before') is not null then
    insert into auth.refresh_tokens (token, user_id, revoked, created_at, updated_at, parent, session_id, used_at)
      select encode(t.token_hash, 'hex'), s.user_id::text, t.used_at is not null, t.created_at,
             coalesce(t.used_at, t.created_at), encode(t.parent, 'hex'), t.session_id, t.used_at
        from auth.refresh_tokens_before t join auth.sessions s on s.id = t.session_id;
    drop table auth.refresh_tokens_before;
    insert into auth.mfa_amr_claims (session_id, authentication_method, created_at)
      select s.id, 'password', s.created_at from auth.sessions s on conflict do nothing;
  end if;
end $$;
create index if not exists refresh_tokens_of_session on auth.refresh_tokens (session_id, created_at);
create index if not exists refresh_tokens_of_parent on auth.refresh_tokens (parent);

-- As on Supabase: the owner of the project sees and changes them, clients never do.
alter table auth.users enable row level security;
alter table auth.identities enable row level security;
alter table auth.sessions enable row level security;
alter table auth.mfa_amr_claims enable row level security;
alter table auth.refresh_tokens enable row level security;
grant all on all tables in schema auth to {owner};
grant all on all sequences in schema auth to {owner};
revoke all on all tables in schema auth from anon, authenticated;

-- Times as GoTrue writes them.
create or replace function auth.hub_time(at timestamptz) returns text language sql stable as $$
  select to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                  nullif(current_setting('request.jwt.claims', true), ''))::jsonb $$;
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
create or replace function auth.role() returns text language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')::text $$;
create or replace function auth.email() returns text language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.email', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')::text $$;

-- --------------------------------------------------------------------------------------------- realtime
create schema if not exists realtime;
grant usage on schema realtime to {owner}, anon, authenticated, service_role;

create table if not exists realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  primary key (id, inserted_at)
);
create index if not exists messages_inserted_at on realtime.messages (inserted_at);
alter table realtime.messages owner to supabase_realtime_admin;
alter table realtime.messages enable row level security;
grant all on realtime.messages to {owner}, service_role;
grant select, insert, update on realtime.messages to anon, authenticated;

-- Messages with bytes instead of JSON, and their replay.
alter table realtime.messages add column if not exists binary_payload bytea;
do $$
begin
  if not exists (select 1 from pg_constraint
                 where conname = 'messages_payload_exclusive' and conrelid = 'realtime.messages'::regclass) then
    alter table realtime.messages
      add constraint messages_payload_exclusive check (payload is null or binary_payload is null) not valid;
  end if;
end $$;
create index if not exists messages_of_topic on realtime.messages (topic, inserted_at desc)
  where private and extension = 'broadcast';

create or replace function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')::text $$;

create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$
declare
  generated_id uuid := gen_random_uuid();
  final_payload jsonb;
begin
  begin
    final_payload := case when payload ? 'id' then payload
                          else jsonb_set(payload, '{id}', to_jsonb(generated_id)) end;
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (generated_id, final_payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end $$;

create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true)
returns void language plpgsql as $$
begin
  begin
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (id, binary_payload, event, topic, private, extension)
    values (gen_random_uuid(), payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end $$;

create or replace function realtime.broadcast_changes(topic_name text, event_name text, operation text,
    table_name text, table_schema text, new record, old record, level text default 'ROW')
returns void language plpgsql as $$
declare row_data jsonb;
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') then
    raise exception 'Unexpected operation type: %', operation;
  end if;
  row_data := jsonb_build_object('old_record', old, 'record', new, 'operation', operation,
                                 'table', table_name, 'schema', table_schema);
  perform realtime.send(row_data, event_name, topic_name);
exception when others then
  raise exception 'Failed to process the row: %', sqlerrm;
end $$;

-- Delivery: the row is the message, the notification only its id (payloads are limited to 8,000 bytes). What the hub
-- has told itself and keeps only for those who come later is not told again.
create or replace function realtime.hub_announce_message() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if new.extension = 'broadcast' and coalesce(current_setting('realtime.hub_told', true), '') <> 'true' then
    perform pg_notify('hub_broadcast', new.id::text);
  end if;
  return null;
end $$;
create or replace trigger hub_announce_message after insert on realtime.messages
  for each row execute function realtime.hub_announce_message();

-- Row changes for postgres_changes: captured only for tables somebody is subscribed to.
create unlogged table if not exists realtime.hub_interest (entity oid primary key);
create unlogged table if not exists realtime.hub_changes (
  id bigint generated always as identity primary key,
  entity oid not null,
  type text not null,
  record jsonb,
  old_record jsonb,
  at timestamptz not null default clock_timestamp()
);
-- Row changes: of a row as it was only the replica identity, of a row that is too large only its key and what is short.
alter table realtime.hub_changes add column if not exists too_large boolean not null default false;
create or replace function realtime.hub_columns(p_table oid, p_identity boolean) returns text[]
language sql stable set search_path = '' as $$
  select coalesce(array_agg(a.attname::text), '{}')
  from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid
  where c.oid = p_table and a.attnum > 0 and not a.attisdropped
    and case when p_identity and c.relreplident = 'f' then true
             when p_identity and c.relreplident = 'n' then false
             else exists (select 1 from pg_catalog.pg_index i
                          where i.indrelid = c.oid and a.attnum = any (i.indkey)
                            and case when p_identity and c.relreplident = 'i' then i.indisreplident
                                     else i.indisprimary end) end $$;
create or replace function realtime.hub_capture() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' set bytea_output = 'hex' as $$
declare
  v_id bigint; v_new jsonb; v_old jsonb; v_names text[]; v_large boolean := false;
begin
  -- A transaction with one snapshot for all its statements may be too old to see who is interested.
  if current_setting('transaction_isolation') = 'read committed'
     and not exists (select 1 from realtime.hub_interest i where i.entity = tg_relid) then
    return null;
  end if;
  if tg_op <> 'DELETE' then
    v_new := to_jsonb(new);
  end if;
  if tg_op <> 'INSERT' then
    v_names := realtime.hub_columns(tg_relid, true);
    select coalesce(jsonb_object_agg(e.key, e.value), '{}') into v_old
      from jsonb_each(to_jsonb(old)) e where e.key = any (v_names);
  end if;
  if octet_length(coalesce(v_new::text, '')) + octet_length(coalesce(v_old::text, '')) > 1048576 then
    v_large := true;
    v_names := realtime.hub_columns(tg_relid, false);
    select jsonb_object_agg(e.key, e.value) into v_new from jsonb_each(v_new) e
     where octet_length(e.value::text) <= 64 or (e.key = any (v_names) and octet_length(e.value::text) <= 8192);
    select jsonb_object_agg(e.key, e.value) into v_old from jsonb_each(v_old) e
     where octet_length(e.value::text) <= 64 or (e.key = any (v_names) and octet_length(e.value::text) <= 8192);
    if tg_op <> 'DELETE' then
      v_new := coalesce(v_new, '{}');
    end if;
  end if;
  insert into realtime.hub_changes (entity, type, record, old_record, too_large)
  values (tg_relid, tg_op, v_new, v_old, v_large) returning id into v_id;
  perform pg_notify('hub_changes', v_id::text);
  return null;
end $$;
-- Waits only a moment for those who write, who would wait behind it: what is left out is tried again by whoever
-- subscribes to it.
create or replace function realtime.hub_capture_published() returns void
language plpgsql set search_path = '' set lock_timeout = '500ms' as $$
declare t record;
begin
  for t in select format('%I.%I', p.schemaname, p.tablename) as name
           from pg_catalog.pg_publication_tables p
           join pg_catalog.pg_namespace n on n.nspname = p.schemaname
           join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
           where p.pubname = 'supabase_realtime' and not exists (
             select 1 from pg_catalog.pg_trigger g where g.tgname = 'hub_capture' and g.tgrelid = c.oid) loop
    begin
      execute format('create trigger hub_capture after insert or update or delete on %s
                      for each row execute function realtime.hub_capture()', t.name);
    exception
      when duplicate_object or undefined_table then null;
      when lock_not_available or deadlock_detected then
        raise warning 'the changes of % are not captured yet: a transaction holds it', t.name;
    end;
  end loop;
end $$;

-- Who belongs to an office decides what its channels tell him: the hub asks their policies again at once.
create or replace function realtime.hub_rights_changed() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op <> 'INSERT' then
    perform pg_notify('hub_rights', old.user_id::text);
  end if;
  if tg_op <> 'DELETE' then
    perform pg_notify('hub_rights', new.user_id::text);
  end if;
  return null;
end $$;
-- After the office's migrations: the table is theirs.
create or replace function realtime.hub_watch_members() returns void
language plpgsql set search_path = '' set lock_timeout = '5s' as $$
declare v_table oid := to_regclass('public.office_members');
begin
  if v_table is not null and not exists (
    select 1 from pg_catalog.pg_trigger g where g.tgname = 'hub_rights_changed' and g.tgrelid = v_table) then
    create trigger hub_rights_changed after insert or update or delete on public.office_members
      for each row execute function realtime.hub_rights_changed();
  end if;
end $$;
revoke all on function realtime.hub_columns(oid, boolean), realtime.hub_capture(),
  realtime.hub_capture_published(), realtime.hub_announce_message(), realtime.hub_rights_changed(),
  realtime.hub_watch_members() from public;

do $$
begin
  if not exists (select 1 from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
    alter publication supabase_realtime owner to {owner};
  end if;
end $$;

-- ---------------------------------------------------------------------------------------- schema cache
create or replace function extensions.hub_schema_changed() returns event_trigger language plpgsql as $$
begin
  perform pg_notify('pgrst', 'reload schema');
end $$;
do $$
begin
  if not exists (select 1 from pg_event_trigger where evtname = 'hub_schema_changed') then
    create event trigger hub_schema_changed on ddl_command_end execute function extensions.hub_schema_changed();
    create event trigger hub_schema_dropped on sql_drop execute function extensions.hub_schema_changed();
  end if;
end $$;

-- ------------------------------------------------------------------------------------ applied migrations
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text primary key,
  name text not null,
  sha256 text not null,
  applied_at timestamptz not null default now()
);
