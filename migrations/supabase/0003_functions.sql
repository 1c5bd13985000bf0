-- The only writers. Each checks the caller's role in the office first and answers a foreign office exactly as an
-- unknown one. Statuses are chosen by errcode: 42501 → 403, PT404 → 404, PT409 → 409, PT422 → 422.

-- What the functions below read that came after the first version, so that they work from the moment on at which they are
-- there: each file may be applied by itself, while workstations are at work.

-- How often claims have given each lease: once, and again when the answer before was lost on its way (claim_commands).
alter table private.command_leases add column if not exists given int not null default 1;

-- From which data folder each client works, as a key that no copy of that folder has: two cores that go by one client, since
-- a data folder was copied, are told apart by it. Who came last is the client (register_client); what one has claimed or
-- begun is nothing for the other (claim_commands, begin_command, complete_command).
create table if not exists private.client_folders (
  client_id uuid primary key references public.clients on delete cascade,
  folder uuid not null,
  since timestamptz not null default now()
);
alter table private.client_folders enable row level security;
revoke all on private.client_folders from public, anon, authenticated;
-- By whom each lease was taken, and by whom its command was begun under it; null: by a program of before.
alter table private.command_leases add column if not exists folder uuid;
alter table private.command_leases add column if not exists begun_from uuid;

create or replace function public.create_office(p_name text) returns public.offices
language plpgsql security definer set search_path = '' as $$
declare
  offices_max constant int := 20;                            -- that one user may own
  r public.offices;
  v_user uuid := auth.uid();
begin
  if v_user is null or coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) then
    raise exception 'only a signed-in user can create an office' using errcode = '42501';
  end if;
  if (select count(*) from public.office_members m
      where m.user_id = v_user and m.role = 'owner' and m.revoked_at is null) >= offices_max then
    raise exception 'you own % offices already; that is the limit', offices_max using errcode = 'PT409';
  end if;
  insert into public.offices (name) values (p_name) returning * into r;
  insert into public.office_members (office_id, user_id, role) values (r.id, v_user, 'owner');
  return r;
end $$;

create or replace function public.upsert_agent(p_office uuid, p_agent uuid, p_role text, p_name text,
    p_prompt text default '', p_scope_patterns text[] default '{}', p_core_skills text[] default '{}')
returns public.agents language plpgsql security definer set search_path = '' as $$
declare r public.agents;
begin
  if not private.may_operate(p_office, array['owner']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  insert into public.agents as a (id, office_id, role, name, prompt, scope_patterns, core_skills)
  values (coalesce(p_agent, gen_random_uuid()), p_office, p_role, p_name, coalesce(p_prompt, ''),
          coalesce(p_scope_patterns, '{}'), coalesce(p_core_skills, '{}'))
  on conflict (id) do update
     set role = excluded.role, name = excluded.name, prompt = excluded.prompt,
         scope_patterns = excluded.scope_patterns, core_skills = excluded.core_skills,
         updated_at = clock_timestamp()
   where a.office_id = p_office
  returning * into r;
  if r.id is null then
    raise exception 'this agent id is taken' using errcode = 'PT409';
  end if;
  return r;
end $$;

-- That of before, without `p_folder`: two that take the same arguments could not be told apart.
drop function if exists public.register_client(uuid, uuid, text, text, text);

-- `p_folder`: the key of the data folder from which this client works from now on. Whoever works from another one is not
-- this client any more: its claims are refused, and it can begin nothing. Null leaves that as it is.
create or replace function public.register_client(p_office uuid, p_client uuid, p_name text,
    p_platform text default '', p_version text default '', p_folder uuid default null)
returns public.clients language plpgsql security definer set search_path = '' as $$
declare r public.clients;
begin
  if not private.has_office_role(p_office, array['owner', 'device']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  insert into public.clients as c (id, office_id, name, platform, version, user_id)
  values (p_client, p_office, p_name, coalesce(p_platform, ''), coalesce(p_version, ''), auth.uid())
  on conflict (id) do update
     set name = excluded.name, platform = excluded.platform, version = excluded.version,
         last_seen_at = clock_timestamp()
   where c.user_id = auth.uid() and c.office_id = p_office
  returning * into r;
  if r.id is null then
    raise exception 'this client id is taken' using errcode = 'PT409',
      hint = 'Make a new client id on this machine and register again.';
  end if;
  if p_folder is not null then
    insert into private.client_folders as f (client_id, folder) values (p_client, p_folder)
    on conflict (client_id) do update set folder = excluded.folder, since = clock_timestamp()
     where f.folder <> excluded.folder;
  end if;
  return r;
end $$;

-- True when this client works from another data folder than `p_folder`: whoever asks is a copy, or was copied.
create or replace function private.is_elsewhere(p_client uuid, p_folder uuid) returns boolean
language sql stable security definer set search_path = '' as $$
  select exists (select 1 from private.client_folders f where f.client_id = p_client and f.folder <> p_folder) $$;

-- True when `p_client` is registered in the office by the one who asks.
create or replace function private.is_my_client(p_office uuid, p_client uuid) returns boolean
language sql stable security definer set search_path = '' as $$
  select exists (select 1 from public.clients c
                 where c.id = p_client and c.office_id = p_office and c.user_id = (select auth.uid())) $$;

create or replace function public.upsert_session(p_session uuid, p_office uuid, p_client uuid, p_agent uuid,
    p_state text, p_repository text default null, p_branch text default null)
returns public.sessions language plpgsql security definer set search_path = '' as $$
declare r public.sessions;
begin
  if not private.has_office_role(p_office, array['owner', 'device']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  if not private.is_my_client(p_office, p_client) then
    raise exception 'no such client' using errcode = 'PT404', hint = 'Call register_client first.';
  end if;
  insert into public.sessions as s (id, office_id, client_id, agent_id, state, repository, branch, ended_at)
  values (p_session, p_office, p_client, p_agent, p_state, p_repository, p_branch,
          case when p_state = 'exited' then clock_timestamp() end)
  on conflict (id) do update
     set agent_id = excluded.agent_id, state = excluded.state,
         repository = coalesce(excluded.repository, s.repository),
         branch = coalesce(excluded.branch, s.branch),
         ended_at = case when excluded.ended_at is not null then coalesce(s.ended_at, excluded.ended_at) end,
         updated_at = clock_timestamp()
   where s.office_id = p_office and s.client_id = p_client
  returning * into r;
  if r.id is null then
    raise exception 'this session id belongs to another client' using errcode = 'PT409';
  end if;
  return r;
end $$;

-- The session a command is about: named by the caller, or in the arguments as `session`.
create or replace function private.session_of(p_session uuid, p_args jsonb) returns uuid
language sql immutable set search_path = '' as $$
  select coalesce(p_session,
    case when lower(p_args ->> 'session') ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
         then (p_args ->> 'session')::uuid end) $$;

-- Kinds that free what others wait for: an answer or an end must not stand behind the prompts that it would let go on.
-- A caller that names a priority has it as named.
create or replace function private.priority_of(p_kind text, p_priority int) returns int
language sql immutable set search_path = '' as $$
  select coalesce(p_priority, case when p_kind in ('approve', 'cancel', 'terminate') then 100 else 0 end) $$;

create or replace function public.enqueue_command(p_office uuid, p_kind text, p_args jsonb, p_key text,
    p_agent uuid default null, p_session uuid default null, p_priority int default null, p_ttl_s int default 3600)
returns public.agent_commands language plpgsql security definer set search_path = '' as $$
declare
  r public.agent_commands;
  v_args jsonb := coalesce(p_args, '{}');
  v_session uuid := private.session_of(p_session, p_args);
begin
  if not private.may_operate(p_office, array['owner', 'operator']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  if p_agent is not null
     and not exists (select 1 from public.agents a where a.id = p_agent and a.office_id = p_office) then
    raise exception 'no such agent in this office' using errcode = 'PT404';
  end if;
  insert into public.agent_commands
    (office_id, agent_id, session_id, kind, args, idempotency_key, priority, expires_at, created_by)
  values (p_office, p_agent, v_session, p_kind, v_args, p_key, private.priority_of(p_kind, p_priority),
          clock_timestamp() + make_interval(secs => greatest(1, least(coalesce(p_ttl_s, 3600), 2592000))), auth.uid())
  on conflict (office_id, idempotency_key) do nothing
  returning * into r;
  if r.id is null then                                       -- the same key again: give back the first one
    select * into r from public.agent_commands c where c.office_id = p_office and c.idempotency_key = p_key;
    if r.kind is distinct from p_kind or r.args is distinct from v_args
       or r.agent_id is distinct from p_agent or r.session_id is distinct from v_session then
      raise exception 'idempotency key reused with other content' using errcode = 'PT409';
    end if;
  end if;
  return r;
end $$;

-- True when a client has said that the effect of this command is about to happen (see begin_command): `p_but` is not
-- counted. Whoever has begun it is the only one that may go on with it.
create or replace function private.is_begun(p_command uuid, p_but uuid default null) returns boolean
language sql stable security definer set search_path = '' as $$
  select exists (select 1 from public.agent_command_results r
                 where r.command_id = p_command and r.status = 'progress' and r.outcome = 'begun'
                   and r.client_id is distinct from p_but) $$;

-- Ends what nobody will carry out any more. Called by every claim, so that no scheduler is needed. Who held the last
-- lease may still report (see complete_command): for `expires_at` a holder that lost its network has 15 minutes, in
-- which it can also renew. What was begun may be taken up by its own client as often as it likes, so attempts do not
-- end it; nobody may say that it expired, since some of it has been done.
create or replace function private.reap_commands() returns void
language sql security definer set search_path = '' as $$
  update public.agent_commands
     set state = case when cancel_requested_at is not null then 'cancelled'
                      when state = 'queued' or (expires_at < clock_timestamp() and not private.is_begun(id))
                      then 'expired' else 'dead' end,
         lease_until = null, finished_at = clock_timestamp()
   where id in (
     select c.id from public.agent_commands c
      where (c.state = 'queued' and c.expires_at < clock_timestamp())
         or (c.state = 'leased' and c.lease_until < clock_timestamp()
             and ((c.attempt >= c.max_attempts and not private.is_begun(c.id)) or c.cancel_requested_at is not null
                  or greatest(c.expires_at, c.lease_until) < clock_timestamp() - interval '15 minutes'))
      order by c.id limit 500 for update skip locked) $$;

-- Those of before, with fewer arguments: two that take the same could not be told apart.
drop function if exists public.claim_commands(uuid, uuid, int, int);
drop function if exists public.claim_commands(uuid, uuid, int, int, text[]);
drop function if exists public.claim_commands(uuid, uuid, int, int, text[], uuid[]);

-- What a claim looks up for each prompt: those before it in its session. Without it every claim would read all that is
-- open, once for each session that waits.
create index if not exists agent_commands_of_session on public.agent_commands (session_id, priority desc, seq)
  where state in ('queued', 'leased') and kind = 'send_prompt';

-- Takes commands under a lease. `p_kinds`: only these kinds (a client whose line is full still answers and ends).
-- `p_known`: what this client knows to have. What is leased to it beside that came in an answer that it never heard, and
-- is given again as it was, under the same token, so that neither its lease nor an attempt is lost with the answer. Not
-- for ever: whatever keeps the answer from being taken must not keep the client from all other commands. Without
-- `p_known` nothing is given before its lease is over.
-- `p_folder`: from which data folder this client works (register_client). What was claimed from another one is not given
-- again before its lease is over.
-- `begun`: this very client has begun it before (begin_command); nobody else gets it then.
create or replace function public.claim_commands(p_office uuid, p_client uuid, p_limit int default 10,
    p_lease_s int default 60, p_kinds text[] default null, p_known uuid[] default null, p_folder uuid default null)
returns table (id uuid, seq bigint, office_id uuid, agent_id uuid, session_id uuid, kind text, args jsonb,
    attempt int, priority smallint, created_at timestamptz, expires_at timestamptz, lease_token uuid,
    lease_until timestamptz, cancel_requested_at timestamptz, begun boolean)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  given_max constant int := 5;                               -- how often one lease is given in all
  v_now timestamptz;
begin
  if not private.has_office_role(p_office, array['owner', 'device']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  if not private.is_my_client(p_office, p_client) then
    raise exception 'no such client' using errcode = 'PT404', hint = 'Call register_client first.';
  end if;
  if private.is_elsewhere(p_client, p_folder) then
    raise exception 'another core works as this client' using errcode = 'PT409',
      hint = 'Its data folder is a copy of this one, or this is a copy of its.';
  end if;
  update public.clients c set last_seen_at = clock_timestamp()
   where c.id = p_client and c.last_seen_at < clock_timestamp() - interval '5 seconds';
  perform private.reap_commands();
  v_now := clock_timestamp();
  return query
  with picked as materialized (                              -- fence: LIMIT is honoured before the UPDATE
    select c.id, c.state = 'leased' and c.lease_until > v_now as again
    from public.agent_commands c
    where c.office_id = p_office
      and c.state in ('queued', 'leased')                    -- repeats the index predicate literally
      and (c.state = 'queued'
           or (c.lease_until <= v_now and not private.is_begun(c.id, p_client)
               and (c.attempt < c.max_attempts or private.is_begun(c.id)))
           or (c.lease_until > v_now and c.client_id = p_client and c.id <> all (p_known)
               and not private.is_begun(c.id)
               and exists (select 1 from private.command_leases l
                           where l.command_id = c.id and l.attempt = c.attempt and l.given < given_max
                             and l.folder is not distinct from p_folder)))
      and c.not_before <= v_now
      and (c.expires_at is null or c.expires_at > v_now
           or (c.state = 'leased' and private.is_begun(c.id)))
      and c.cancel_requested_at is null
      and (p_kinds is null or c.kind = any (p_kinds))
      and (c.session_id is null or not exists (
            select 1 from public.sessions s
            where s.id = c.session_id and s.office_id = p_office and s.client_id <> p_client))
      -- Prompts for one session go out one by one: an answer of this function may get lost, and what it took would
      -- be passed by the next.
      and (c.kind <> 'send_prompt' or c.session_id is null or not exists (
            select 1 from public.agent_commands e
            where e.office_id = p_office and e.state in ('queued', 'leased')
              and e.session_id = c.session_id and e.kind = 'send_prompt' and e.id <> c.id
              and (e.priority > c.priority or (e.priority = c.priority and e.seq < c.seq))
              and (e.state = 'leased' or e.not_before <= v_now)))
    order by c.priority desc, c.seq
    limit greatest(1, least(coalesce(p_limit, 10), 50))
    for update skip locked
  ), taken as (
    update public.agent_commands c
       set state = 'leased', attempt = c.attempt + case when picked.again then 0 else 1 end, client_id = p_client,
           lease_until = clock_timestamp()
                         + make_interval(secs => greatest(5, least(coalesce(p_lease_s, 60), 900)))
      from picked where c.id = picked.id
    returning c.*, picked.again
  ), new_leases as (
    insert into private.command_leases (command_id, attempt, owner, client_id, folder)
    select t.id, t.attempt, auth.uid(), p_client, p_folder from taken t where not t.again
    returning command_id, token
  ), old_leases as (
    update private.command_leases l set given = l.given + 1
      from taken t where t.again and l.command_id = t.id and l.attempt = t.attempt
    returning l.command_id, l.token
  )
  select t.id, t.seq, t.office_id, t.agent_id, t.session_id, t.kind, t.args, t.attempt, t.priority, t.created_at,
         t.expires_at, l.token, t.lease_until, t.cancel_requested_at, private.is_begun(t.id)
    from taken t
    join (select * from new_leases union all select * from old_leases) l on l.command_id = t.id
   order by t.priority desc, t.seq;
end $$;

-- True when this command was begun from another data folder than that one.
create or replace function private.is_begun_away(p_command uuid, p_folder uuid) returns boolean
language sql stable set search_path = '' as $$
  select exists (select 1 from private.command_leases l where l.command_id = p_command and l.begun_from <> p_folder) $$;

-- True when `p_lease` is in force for this command: the lease of its present attempt, or an earlier one of the same
-- client in the same data folder, whose answer to its own newest claim may have been lost; but not in a folder from which
-- the client does not work any more, once another one has begun it. Or an earlier one of the folder from which the client
-- works now, when the present attempt was claimed from another one, which has begun nothing and can no more.
create or replace function private.is_fence(p_lease private.command_leases, p_command public.agent_commands)
returns boolean language sql stable set search_path = '' as $$
  with its as (
    select private.is_elsewhere(p_lease.client_id, p_lease.folder) as is_elsewhere,
           private.is_begun_away(p_command.id, p_lease.folder) as is_begun_away
  ), newest as (
    select n.folder is not distinct from p_lease.folder as is_same,
           private.is_elsewhere(n.client_id, n.folder) as is_elsewhere
      from private.command_leases n where n.command_id = p_command.id and n.attempt = p_command.attempt
  )
  select p_lease.token is not null and p_lease.command_id = p_command.id and case
           when p_lease.attempt = p_command.attempt then not (its.is_elsewhere and its.is_begun_away)
           when p_lease.client_id <> p_command.client_id or newest.is_same is null then false
           when newest.is_same then not (its.is_elsewhere and its.is_begun_away)
           else newest.is_elsewhere and not its.is_elsewhere and not its.is_begun_away end
    from its left join newest on true $$;

create or replace function public.renew_lease(p_command uuid, p_token uuid, p_lease_s int default 60)
returns table (held boolean, cancel boolean) language plpgsql security definer set search_path = '' as $$
begin
  return query
  update public.agent_commands c
     set lease_until = clock_timestamp()
                       + make_interval(secs => greatest(5, least(coalesce(p_lease_s, 60), 900)))
    from private.command_leases l
   where c.id = p_command and c.state = 'leased'
     and l.command_id = c.id and private.is_fence(l, c) and l.token = p_token and l.owner = auth.uid()
     and private.has_office_role(c.office_id, array['owner', 'device'])
  returning true, c.cancel_requested_at is not null;
  if not found then                                          -- the lease is lost: the work must stop
    return query select false, true;
  end if;
end $$;

-- Asked before the first effect of a command, and again when that has to wait: the fence. Answers `begun`: from now on
-- this command is given to nobody else. `cancel`: it is to be given up. `expired`: nothing was done before its time was
-- over. `lost`: somebody else has it, or it is over. Nothing may be done for it unless the answer is `begun`.
-- `p_folder`: from which data folder it is begun. A copy of that folder has the same client and the same tokens, and
-- begins nothing that was begun from the other one.
drop function if exists public.begin_command(uuid, uuid, int);
create or replace function public.begin_command(p_command uuid, p_token uuid, p_lease_s int default 60,
    p_folder uuid default null)
returns text language plpgsql security definer set search_path = '' as $$
declare
  c public.agent_commands;
  l private.command_leases;
begin
  select * into c from public.agent_commands a where a.id = p_command for update;
  if not found or not private.has_office_role(c.office_id, array['owner', 'device']) then
    raise exception 'no such command' using errcode = 'PT404';
  end if;
  select * into l from private.command_leases x
   where x.command_id = p_command and x.token = p_token and x.owner = auth.uid();
  if l.token is null or not private.is_fence(l, c) or c.state <> 'leased'
     or private.is_elsewhere(l.client_id, p_folder)
     or private.is_begun_away(c.id, p_folder) then
    return 'lost';
  elsif c.cancel_requested_at is not null then
    return 'cancel';
  end if;
  if c.expires_at <= clock_timestamp() then                  -- also of what was begun before, and had no effect
    return 'expired';
  end if;
  if not private.is_begun(c.id) then
    insert into public.agent_command_results
      (id, command_id, office_id, client_id, attempt, status, outcome, created_by)
    values (gen_random_uuid(), c.id, c.office_id, l.client_id, c.attempt, 'progress', 'begun', auth.uid());
  end if;
  update private.command_leases x set begun_from = p_folder
   where x.token = l.token and x.begun_from is distinct from p_folder and p_folder is not null;
  update public.agent_commands a
     set lease_until = clock_timestamp()
                       + make_interval(secs => greatest(5, least(coalesce(p_lease_s, 60), 900)))
   where a.id = c.id;
  return 'begun';
end $$;

create or replace function public.complete_command(p_command uuid, p_token uuid, p_result uuid, p_status text,
    p_outcome text default null, p_output jsonb default null, p_error jsonb default null,
    p_evidence jsonb default null, p_timings jsonb default null)
returns text language plpgsql security definer set search_path = '' as $$
declare
  extra_max constant int := 200;                             -- rows of progress and late ones one command may have
  v_full boolean;
  c public.agent_commands;
  l private.command_leases;
  v_held boolean;
  v_given_up boolean := false;
  v_before text;                                             -- as what this result is kept already
begin
  select * into c from public.agent_commands a where a.id = p_command for update;
  if not found or not private.has_office_role(c.office_id, array['owner', 'device']) then
    raise exception 'no such command' using errcode = 'PT404';
  end if;
  if p_status is null or p_status not in ('progress', 'succeeded', 'unconfirmed', 'failed', 'cancelled') then
    raise exception 'p_status must be progress, succeeded, unconfirmed, failed or cancelled' using errcode = 'PT422';
  end if;
  select r.status into v_before from public.agent_command_results r
   where r.id = p_result and r.command_id = p_command;
  if v_before <> 'late' then
    return 'duplicate';                                      -- the outbox sent it twice: fine
  end if;
  select * into l from private.command_leases x
   where x.command_id = p_command and x.token = p_token and x.owner = auth.uid();
  -- The last one to claim it, or the data folder of its client that has begun it, under whichever of its leases: no other
  -- one may. And no final result yet: also after the reaper ended it, since finished work counts; then from whichever
  -- folder of the client it comes.
  v_held := l.token is not null
    and ((c.state = 'leased'
          and (private.is_fence(l, c)
               or (l.client_id = c.client_id
                   and exists (select 1 from private.command_leases x
                               where x.command_id = c.id and x.client_id = c.client_id
                                 and (x.token = l.token or x.folder = l.folder) and x.begun_from is not null))))
         or (c.state in ('expired', 'dead', 'cancelled') and (private.is_fence(l, c) or l.client_id = c.client_id)
             and not exists (select 1 from public.agent_command_results r
                             where r.command_id = p_command
                               and r.status in ('succeeded', 'unconfirmed', 'failed', 'cancelled'))));
  -- What another folder has begun this one knows nothing of: it may say that it is unconfirmed. Any other end is kept as
  -- evidence, and the command is given up, until the one that has begun it comes back and says more.
  if v_held and p_status not in ('progress', 'unconfirmed') and private.is_begun_away(c.id, l.folder) then
    v_held := false;
    v_given_up := c.state = 'leased';
  end if;
  v_full := (not v_held or p_status = 'progress')
    and (select count(*) from public.agent_command_results r
         where r.command_id = p_command and r.status in ('progress', 'late')) >= extra_max;
  if v_given_up then
    update public.agent_commands a
       set state = 'dead', lease_until = null, finished_at = clock_timestamp()
     where a.id = c.id;
  end if;
  if v_before = 'late' and (not v_held or p_status = 'progress') then
    return 'duplicate';                                      -- the outbox sent it twice: as late as before
  end if;
  if not v_held and (l.token is null or v_full) then
    return 'late';                                           -- no claim of the caller's, or enough of them: not kept
  end if;
  if v_full then
    raise exception 'more than % rows of progress', extra_max using errcode = 'PT429';
  end if;
  if v_before = 'late' then
    -- It came too late when it was first said. It counts all the same: nobody has said more, and who says it may again.
    update public.agent_command_results r set status = p_status where r.id = p_result;
  else
    insert into public.agent_command_results
      (id, command_id, office_id, client_id, attempt, status, outcome, output, error, evidence, timings, created_by)
    values (p_result, c.id, c.office_id, l.client_id, coalesce(l.attempt, c.attempt),
            case when v_held then p_status else 'late' end, p_outcome, p_output, p_error, p_evidence, p_timings,
            auth.uid());
  end if;
  if not v_held then
    return 'late';                                           -- somebody else owns it now: kept as evidence only
  end if;
  if p_status <> 'progress' then
    update public.agent_commands a
       set state = p_status, lease_until = null, finished_at = clock_timestamp()
     where a.id = c.id;
  end if;
  return 'recorded';
end $$;

create or replace function public.cancel_command(p_command uuid) returns text
language plpgsql security definer set search_path = '' as $$
declare c public.agent_commands;
begin
  select * into c from public.agent_commands a where a.id = p_command for update;
  if not found or not private.may_operate(c.office_id, array['owner', 'operator']) then
    raise exception 'no such command' using errcode = 'PT404';
  end if;
  if c.state = 'queued' then
    update public.agent_commands a
       set state = 'cancelled', cancel_requested_at = clock_timestamp(), finished_at = clock_timestamp()
     where a.id = c.id;
    return 'cancelled';
  elsif c.state = 'leased' then
    update public.agent_commands a set cancel_requested_at = coalesce(a.cancel_requested_at, clock_timestamp())
     where a.id = c.id;
    return 'requested';
  end if;
  return c.state;
end $$;

-- Removes what has been finished for 90 days, one batch at a time, with its results and leases; gives back how many
-- commands went. Called by whoever keeps the database tidy (the hub); nothing depends on it.
create or replace function private.forget_commands(p_limit int default 500) returns bigint
language sql security definer set search_path = '' as $$
  with gone as (
    delete from public.agent_commands
     where id in (
       select c.id from public.agent_commands c
        where c.state not in ('queued', 'leased') and c.finished_at < clock_timestamp() - interval '90 days'
        limit greatest(1, least(coalesce(p_limit, 500), 5000)) for update skip locked)
    returning 1)
  select count(*) from gone $$;

revoke all on function private.reap_commands(), private.forget_commands(int), private.is_begun(uuid, uuid),
  private.is_my_client(uuid, uuid), private.is_elsewhere(uuid, uuid), private.is_begun_away(uuid, uuid),
  private.session_of(uuid, jsonb), private.priority_of(text, int),
  private.is_fence(private.command_leases, public.agent_commands) from public, anon, authenticated;

revoke all on function public.create_office(text),
  public.upsert_agent(uuid, uuid, text, text, text, text[], text[]),
  public.register_client(uuid, uuid, text, text, text, uuid),
  public.upsert_session(uuid, uuid, uuid, uuid, text, text, text),
  public.enqueue_command(uuid, text, jsonb, text, uuid, uuid, int, int),
  public.claim_commands(uuid, uuid, int, int, text[], uuid[], uuid),
  public.renew_lease(uuid, uuid, int),
  public.begin_command(uuid, uuid, int, uuid),
  public.complete_command(uuid, uuid, uuid, text, text, jsonb, jsonb, jsonb, jsonb),
  public.cancel_command(uuid) from public, anon, authenticated;
grant execute on function public.create_office(text),
  public.upsert_agent(uuid, uuid, text, text, text, text[], text[]),
  public.register_client(uuid, uuid, text, text, text, uuid),
  public.upsert_session(uuid, uuid, uuid, uuid, text, text, text),
  public.enqueue_command(uuid, text, jsonb, text, uuid, uuid, int, int),
  public.claim_commands(uuid, uuid, int, int, text[], uuid[], uuid),
  public.renew_lease(uuid, uuid, int),
  public.begin_command(uuid, uuid, int, uuid),
  public.complete_command(uuid, uuid, uuid, text, text, jsonb, jsonb, jsonb, jsonb),
  public.cancel_command(uuid) to authenticated;
grant execute on function public.enqueue_command(uuid, text, jsonb, text, uuid, uuid, int, int),
  public.upsert_agent(uuid, uuid, text, text, text, text[], text[]),
  public.cancel_command(uuid) to service_role;
