-- Who may see what. Members read the rows of their offices; nobody writes a table directly.

-- SECURITY DEFINER so that policies do not recurse into the row level security of office_members.
create or replace function private.has_office_role(p_office uuid, p_roles text[]) returns boolean
language sql stable security definer set search_path = '' as $$
  select exists (select 1 from public.office_members m
                 where m.office_id = p_office and m.user_id = (select auth.uid())
                   and m.revoked_at is null and m.role = any (p_roles)) $$;

-- People who may tell the office what to do, and servers that hold the secret key.
create or replace function private.may_operate(p_office uuid, p_roles text[]) returns boolean
language sql stable security definer set search_path = '' as $$
  select private.has_office_role(p_office, p_roles)
      or (coalesce((select auth.jwt()) ->> 'role', '') = 'service_role'
          and exists (select 1 from public.offices o where o.id = p_office)) $$;

create or replace function private.my_offices() returns setof uuid
language sql stable security definer set search_path = '' as $$
  select m.office_id from public.office_members m
  where m.user_id = (select auth.uid()) and m.revoked_at is null $$;

-- Total: a hostile topic must give null, never an error (an error in a policy would be shown at the join).
create or replace function private.topic_office(p_topic text) returns uuid
language sql immutable set search_path = '' as $$
  select case when p_topic ~ '^office:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:commands$'
              then substr(p_topic, 8, 36)::uuid end $$;

revoke all on all functions in schema private from public, anon, authenticated;
grant usage on schema private to authenticated;              -- policies run as the one who asks
grant execute on function private.has_office_role(uuid, text[]), private.my_offices(), private.topic_office(text)
  to authenticated;

alter table public.offices               enable row level security;
alter table public.office_members        enable row level security;
alter table public.agents                enable row level security;
alter table public.clients               enable row level security;
alter table public.sessions              enable row level security;
alter table public.agent_commands        enable row level security;
alter table public.agent_command_results enable row level security;

-- Supabase grants everything on new tables: take it all back, then give only what is needed.
revoke all on public.offices, public.office_members, public.agents, public.clients, public.sessions,
              public.agent_commands, public.agent_command_results from public, anon, authenticated;
grant select on public.offices, public.office_members, public.agents, public.clients, public.sessions,
                public.agent_commands, public.agent_command_results to authenticated;
grant all on public.offices, public.office_members, public.agents, public.clients, public.sessions,
             public.agent_commands, public.agent_command_results to service_role;

drop policy if exists office_read on public.offices;
create policy office_read on public.offices for select to authenticated
  using (id in (select private.my_offices()));
drop policy if exists member_read on public.office_members;
create policy member_read on public.office_members for select to authenticated
  using (office_id in (select private.my_offices()));
drop policy if exists agent_read on public.agents;
create policy agent_read on public.agents for select to authenticated
  using (office_id in (select private.my_offices()));
drop policy if exists client_read on public.clients;
create policy client_read on public.clients for select to authenticated
  using (office_id in (select private.my_offices()));
drop policy if exists session_read on public.sessions;
create policy session_read on public.sessions for select to authenticated
  using (office_id in (select private.my_offices()));
drop policy if exists command_read on public.agent_commands;
create policy command_read on public.agent_commands for select to authenticated
  using (office_id in (select private.my_offices()));
drop policy if exists result_read on public.agent_command_results;
create policy result_read on public.agent_command_results for select to authenticated
  using (office_id in (select private.my_offices()));
-- No INSERT, UPDATE or DELETE policies: every write goes through the functions of 0003.

-- The doorbell: members may listen on their office's private topic. No INSERT policy: nobody may ring it by hand.
drop policy if exists office_commands_receive on realtime.messages;
create policy office_commands_receive on realtime.messages for select to authenticated
  using (extension = 'broadcast'
         and private.topic_office((select realtime.topic())) in (select private.my_offices()));
