-- The office: who belongs to it, its AI team, the clients that run them, and what the office was told.
-- Written for Supabase's roles (anon, authenticated, service_role) and for `postgres` as owner; safe to run twice.
-- Writers: only the functions of 0003. Readers: members of the office, by the policies of 0002.

create schema if not exists private;
revoke all on schema private from public, anon, authenticated;

create table if not exists public.offices (
  id uuid primary key default gen_random_uuid(),
  name text not null check (length(name) between 1 and 200),
  settings jsonb not null default '{}' check (jsonb_typeof(settings) = 'object'),
  created_at timestamptz not null default now()
);

create table if not exists public.office_members (
  office_id uuid not null references public.offices on delete cascade,
  user_id uuid not null references auth.users (id) on delete cascade,
  role text not null check (role in ('owner', 'operator', 'viewer', 'device')),
  revoked_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (office_id, user_id)
);
create index if not exists office_members_by_user on public.office_members (user_id) where revoked_at is null;

-- Members of the AI team, with their persona.
create table if not exists public.agents (
  id uuid primary key default gen_random_uuid(),
  office_id uuid not null references public.offices on delete cascade,
  role text not null check (length(role) between 1 and 64),
  name text not null check (length(name) between 1 and 100),
  prompt text not null default '' check (octet_length(prompt) <= 65536),
  scope_patterns text[] not null default '{}' check (cardinality(scope_patterns) <= 200),
  core_skills text[] not null default '{}' check (cardinality(core_skills) <= 200),
  provider text not null default 'claude' check (provider ~ '^[a-z][a-z0-9_-]{0,31}$'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (office_id, id),
  unique (office_id, name)
);

-- A running core on a workstation: the thing that claims.
create table if not exists public.clients (
  id uuid primary key default gen_random_uuid(),
  office_id uuid not null references public.offices on delete cascade,
  name text not null check (length(name) between 1 and 200),
  platform text not null default '' check (length(platform) <= 100),
  version text not null default '' check (length(version) <= 100),
  user_id uuid not null references auth.users (id) on delete cascade,
  last_seen_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  unique (office_id, id)
);

-- One agent process in one terminal; the id is made by the client and is the provider's session id too.
create table if not exists public.sessions (
  id uuid primary key default gen_random_uuid(),
  office_id uuid not null references public.offices on delete cascade,
  client_id uuid not null,
  agent_id uuid,
  state text not null check (state ~ '^[a-z][a-z_]{0,39}$'),
  repository text check (length(repository) <= 1000),
  branch text check (length(branch) <= 300),
  started_at timestamptz not null default now(),
  ended_at timestamptz,
  updated_at timestamptz not null default now(),
  foreign key (office_id, client_id) references public.clients (office_id, id) on delete cascade,
  foreign key (office_id, agent_id) references public.agents (office_id, id)
);
create index if not exists sessions_by_office on public.sessions (office_id, updated_at desc);

create table if not exists public.agent_commands (
  id uuid primary key default gen_random_uuid(),
  seq bigint generated always as identity,      -- order for display and claiming; not a cursor for catching up
  office_id uuid not null references public.offices on delete cascade,
  agent_id uuid,                                -- null: any agent of the office
  client_id uuid,                               -- the client that holds it or has carried it out
  session_id uuid,                              -- goes only to the client that has this session
  kind text not null check (length(kind) between 1 and 64),
  args jsonb not null default '{}' check (jsonb_typeof(args) = 'object' and octet_length(args::text) <= 262144),
  idempotency_key text not null check (length(idempotency_key) between 1 and 200),
  state text not null default 'queued'
    check (state in ('queued', 'leased', 'succeeded', 'unconfirmed', 'failed', 'cancelled', 'expired', 'dead')),
  priority smallint not null default 0,
  not_before timestamptz not null default now(),
  expires_at timestamptz,
  attempt int not null default 0,
  max_attempts int not null default 3 check (max_attempts between 1 and 20),
  lease_until timestamptz,                      -- the token that goes with it is in private.command_leases
  cancel_requested_at timestamptz,
  created_by uuid,
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  unique (office_id, idempotency_key),
  foreign key (office_id, agent_id) references public.agents (office_id, id),
  check ((state = 'leased') = (lease_until is not null))
);
-- The claim repeats this predicate word for word; any other index makes it sort every open row.
create index if not exists agent_commands_open on public.agent_commands (office_id, priority desc, seq)
  where state in ('queued', 'leased');
create index if not exists agent_commands_leased on public.agent_commands (lease_until) where state = 'leased';
create index if not exists agent_commands_expiring on public.agent_commands (expires_at) where state = 'queued';
create index if not exists agent_commands_newest on public.agent_commands (office_id, seq desc);
alter table public.agent_commands set (autovacuum_vacuum_scale_factor = 0.01);

create table if not exists public.agent_command_results (
  id uuid primary key,                          -- made by the client, so that a repeated report is recognised
  command_id uuid not null references public.agent_commands on delete cascade,
  office_id uuid not null references public.offices on delete cascade,
  client_id uuid,
  attempt int not null,
  status text not null check (status in ('progress', 'succeeded', 'unconfirmed', 'failed', 'cancelled', 'late')),
  outcome text check (length(outcome) <= 64),
  output jsonb check (octet_length(output::text) <= 4194304),
  error jsonb check (octet_length(error::text) <= 262144),
  evidence jsonb check (octet_length(evidence::text) <= 1048576),
  timings jsonb check (octet_length(timings::text) <= 65536),
  created_by uuid not null,
  created_at timestamptz not null default now()
);
create index if not exists agent_command_results_by_command
  on public.agent_command_results (command_id, created_at);
create index if not exists agent_command_results_newest
  on public.agent_command_results (office_id, created_at desc);
create unique index if not exists agent_command_results_one_final
  on public.agent_command_results (command_id) where status in ('succeeded', 'unconfirmed', 'failed', 'cancelled');

-- Every lease ever given, apart from what members can read: the token is the fence. The one of the command's
-- present attempt is in force while the command is leased; older ones tell to which attempt a late result belongs.
create table if not exists private.command_leases (
  token uuid primary key default gen_random_uuid(),
  command_id uuid not null references public.agent_commands on delete cascade,
  attempt int not null,
  owner uuid not null,
  client_id uuid not null,
  created_at timestamptz not null default now(),
  unique (command_id, attempt)
);
alter table private.command_leases enable row level security;
revoke all on private.command_leases from public, anon, authenticated;

-- Row changes for followers that use postgres_changes; the publication itself belongs to Supabase.
do $$
declare t text;
begin
  if exists (select 1 from pg_publication where pubname = 'supabase_realtime' and not puballtables) then
    foreach t in array array['agent_commands', 'agent_command_results'] loop
      if not exists (select 1 from pg_publication_tables
                     where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = t) then
        execute format('alter publication supabase_realtime add table public.%I', t);
      end if;
    end loop;
  end if;
end $$;
