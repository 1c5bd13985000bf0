-- Asks: who may read them, the functions that write them, the doorbell. And the settings of an office.

revoke all on public.session_asks from public, anon, authenticated;
grant select on public.session_asks to authenticated;
grant all on public.session_asks to service_role;
drop policy if exists ask_read on public.session_asks;
create policy ask_read on public.session_asks for select to authenticated
  using (office_id in (select private.my_offices()));
-- No INSERT, UPDATE or DELETE policies: every write goes through the functions below.

-- Removes what was closed long ago, and what has waited longer than any session lives. Called with every new ask, so
-- that no scheduler is needed.
create or replace function private.forget_asks(p_office uuid) returns void
language sql security definer set search_path = '' as $$
  delete from public.session_asks
   where id in (
     select a.id from public.session_asks a
      where a.office_id = p_office
        and (a.closed_at < clock_timestamp() - interval '90 days'
             or (a.state = 'pending' and a.asked_at < clock_timestamp() - interval '30 days'))
      order by a.asked_at limit 100 for update skip locked) $$;

-- Why choices cannot be as they are; null when they can. Every workstation of the office reads them. Total: whatever
-- comes, it never raises. The bounds are above those of the client (16 choices of some 1000 bytes).
create or replace function private.choices_fault(p_choices jsonb) returns text
language plpgsql immutable set search_path = '' as $$
declare
  choices_max constant int := 16;
  choice_max constant int := 2000;                           -- characters
begin
  if jsonb_typeof(p_choices) <> 'array' then
    return 'p_choices must be a list of texts';
  end if;
  if jsonb_array_length(p_choices) > choices_max then
    return format('p_choices has more than %s entries', choices_max);
  end if;
  if exists (select 1 from jsonb_array_elements(p_choices) e
             where jsonb_typeof(e) <> 'string' or length(e #>> '{}') > choice_max) then
    return format('p_choices must be a list of texts of at most %s characters', choice_max);
  end if;
  return null;
end $$;

-- Tells the office of an ask. The same id again changes what is pending, and nothing once it is closed.
create or replace function public.upsert_ask(p_ask uuid, p_office uuid, p_client uuid, p_session uuid, p_agent uuid,
    p_command uuid, p_kind text, p_tool text, p_text text, p_choices jsonb default '[]',
    p_asked_at timestamptz default null)
returns public.session_asks language plpgsql security definer set search_path = '' as $$
declare
  pending_max constant int := 100;                           -- of one client
  v_choices jsonb := coalesce(p_choices, '[]');
  v_fault text := private.choices_fault(v_choices);
  r public.session_asks;
begin
  if not private.has_office_role(p_office, array['owner', 'device']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  if not private.is_my_client(p_office, p_client) then
    raise exception 'no such client' using errcode = 'PT404', hint = 'Call register_client first.';
  end if;
  if v_fault is not null then
    raise exception '%', v_fault using errcode = 'PT422';
  end if;
  if exists (select 1 from public.sessions s
             where s.id = p_session and (s.office_id <> p_office or s.client_id <> p_client)) then
    raise exception 'this session id belongs to another client' using errcode = 'PT409';
  end if;
  perform private.forget_asks(p_office);
  if (select count(*) from public.session_asks a
      where a.office_id = p_office and a.client_id = p_client and a.state = 'pending' and a.id <> p_ask)
     >= pending_max then
    raise exception 'this client has % pending asks already; that is the limit', pending_max using errcode = 'PT409';
  end if;
  insert into public.session_asks as a
    (id, office_id, session_id, client_id, agent_id, command_id, kind, tool, text, choices, asked_at)
  values (p_ask, p_office, p_session, p_client, p_agent,
          (select c.id from public.agent_commands c where c.id = p_command and c.office_id = p_office),
          p_kind, p_tool, p_text, v_choices,
          -- A client's clock may be wrong; an ask must neither come from the future nor be forgotten at once.
          greatest(clock_timestamp() - interval '7 days',
                   least(coalesce(p_asked_at, clock_timestamp()), clock_timestamp())))
  on conflict (id) do update
     set kind = excluded.kind, tool = excluded.tool, text = excluded.text, choices = excluded.choices
   where a.office_id = p_office and a.client_id = p_client and a.session_id = p_session and a.state = 'pending'
  returning * into r;
  if r.id is null then                                       -- closed already: it stays as it is
    select * into r from public.session_asks a
     where a.id = p_ask and a.office_id = p_office and a.client_id = p_client and a.session_id = p_session;
    if r.id is null then
      raise exception 'this ask id is taken' using errcode = 'PT409';
    end if;
  end if;
  return r;
end $$;

-- Closes an ask: `closed`, or `already` when it was closed before. The first end stays.
create or replace function public.close_ask(p_ask uuid, p_state text, p_answer jsonb default null,
    p_way text default null, p_command uuid default null, p_reason text default null)
returns text language plpgsql security definer set search_path = '' as $$
declare a public.session_asks;
begin
  select * into a from public.session_asks s where s.id = p_ask for update;
  if not found or not private.has_office_role(a.office_id, array['owner', 'device'])
     or not private.is_my_client(a.office_id, a.client_id) then
    raise exception 'no such ask' using errcode = 'PT404';
  end if;
  if p_state is null or p_state not in ('answered', 'withdrawn') or (p_state = 'answered') <> (p_way is not null) then
    raise exception 'p_state must be answered (with p_way) or withdrawn' using errcode = 'PT422';
  end if;
  if a.state <> 'pending' then
    return 'already';
  end if;
  update public.session_asks s
     set state = p_state, answer = p_answer, answered_by_way = p_way, reason = p_reason,
         answered_by_command = case when p_way = 'command' then p_command end,
         answered_by_user = case
           when p_way in ('window', 'cli') then auth.uid()
           when p_way = 'command' then (select c.created_by from public.agent_commands c
                                        where c.id = p_command and c.office_id = a.office_id and c.kind = 'approve')
         end,
         closed_at = clock_timestamp()
   where s.id = a.id;
  return 'closed';
end $$;

-- Why a setting of an office cannot be as it is; null when it can. Total: whatever comes, it never raises. The bounds
-- are those of the client, which would not use what is beyond them.
create or replace function private.setting_fault(p_key text, p_value jsonb) returns text
language plpgsql immutable set search_path = '' as $$
declare v_low int; v_high int; v_count int;
begin
  if p_key in ('sessions_max', 'idle_minutes', 'memory_mb_max') then
    v_low := case p_key when 'memory_mb_max' then 512 else 1 end;
    v_high := case p_key when 'sessions_max' then 24 when 'idle_minutes' then 1440 else 1048576 end;
    -- Digits only: 4.0 would be kept as it was written, and is no whole number to those who read it.
    if jsonb_typeof(p_value) <> 'number' or (p_value #>> '{}') !~ '^[0-9]+$' then
      return format('`%s` must be a whole number from %s to %s', p_key, v_low, v_high);
    end if;
    if (p_value #>> '{}')::numeric not between v_low and v_high then
      return format('`%s` must be a whole number from %s to %s', p_key, v_low, v_high);
    end if;
  elsif p_key in ('warm_roles', 'completion_patterns', 'error_patterns') then
    v_count := case p_key when 'warm_roles' then 24 else 32 end;
    v_high := case p_key when 'warm_roles' then 32 else 500 end;
    if jsonb_typeof(p_value) <> 'array' then
      return format('`%s` must be a list of texts', p_key);
    end if;
    if jsonb_array_length(p_value) > v_count then
      return format('`%s` has more than %s entries', p_key, v_count);
    end if;
    -- Blanks around a role do not count; those of a pattern are part of it.
    if exists (select 1 from jsonb_array_elements(p_value) e
               where jsonb_typeof(e) <> 'string'
                  or length(case p_key when 'warm_roles' then regexp_replace(e #>> '{}', '^\s+|\s+$', '', 'g')
                            else e #>> '{}' end) not between 1 and v_high) then
      return format('`%s` must be a list of texts of 1 to %s characters', p_key, v_high);
    end if;
  else
    return format('`%s` is no setting of an office; there are sessions_max, idle_minutes, memory_mb_max, warm_roles, '
                  'completion_patterns and error_patterns', left(p_key, 64));
  end if;
  return null;
end $$;

-- Changes the named settings of an office and leaves the others; null takes one away. Gives back the office.
create or replace function public.update_office_settings(p_office uuid, p_settings jsonb) returns public.offices
language plpgsql security definer set search_path = '' as $$
declare
  r public.offices;
  v_fault text;
begin
  if not private.may_operate(p_office, array['owner']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  if p_settings is null or jsonb_typeof(p_settings) <> 'object' then
    raise exception 'p_settings must be an object' using errcode = 'PT422';
  end if;
  select private.setting_fault(s.key, s.value) into v_fault from jsonb_each(p_settings) s
   where s.value <> 'null'::jsonb and private.setting_fault(s.key, s.value) is not null
   order by s.key limit 1;
  if v_fault is not null then
    raise exception '%', v_fault using errcode = 'PT422';
  end if;
  update public.offices o
     set settings = (o.settings || p_settings)
                    - array(select s.key from jsonb_each(p_settings) s where s.value = 'null'::jsonb)
   where o.id = p_office returning * into r;
  return r;
end $$;

revoke all on function private.forget_asks(uuid), private.setting_fault(text, jsonb), private.choices_fault(jsonb)
  from public, anon, authenticated;
revoke all on function
  public.upsert_ask(uuid, uuid, uuid, uuid, uuid, uuid, text, text, text, jsonb, timestamptz),
  public.close_ask(uuid, text, jsonb, text, uuid, text),
  public.update_office_settings(uuid, jsonb) from public, anon, authenticated;
grant execute on function
  public.upsert_ask(uuid, uuid, uuid, uuid, uuid, uuid, text, text, text, jsonb, timestamptz),
  public.close_ask(uuid, text, jsonb, text, uuid, text),
  public.update_office_settings(uuid, jsonb) to authenticated;
grant execute on function public.update_office_settings(uuid, jsonb) to service_role;

-- The doorbell rings for asks, and for what changes an office itself: ids only, like that of 0004.
create or replace function private.ring_ask() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.send(
    jsonb_build_object('v', 1, 'id', new.id, 'session_id', new.session_id, 'agent_id', new.agent_id,
                       'state', new.state),
    'ask', 'office:' || new.office_id || ':commands', true);
  return null;
end $$;

create or replace function private.ring_office() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.send(jsonb_build_object('v', 1, 'id', new.id), 'office',
    'office:' || new.id || ':commands', true);
  return null;
end $$;

create or replace function private.ring_agent() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.send(jsonb_build_object('v', 1, 'id', new.office_id, 'agent_id', new.id), 'office',
    'office:' || new.office_id || ':commands', true);
  return null;
end $$;

revoke all on function private.ring_ask(), private.ring_office(), private.ring_agent()
  from public, anon, authenticated;

drop trigger if exists session_asks_ring on public.session_asks;
create trigger session_asks_ring after insert or update of state on public.session_asks
  for each row execute function private.ring_ask();

drop trigger if exists offices_ring on public.offices;
create trigger offices_ring after update of settings, name on public.offices
  for each row when (new.settings is distinct from old.settings or new.name is distinct from old.name)
  execute function private.ring_office();

drop trigger if exists agents_ring on public.agents;
create trigger agents_ring after insert or update on public.agents
  for each row execute function private.ring_agent();
