-- Rings `office:<id>:commands` from the database. Ids only: arguments may hold secrets, and viewers listen too.
-- SECURITY DEFINER because realtime.send runs as its caller and swallows its own errors: called as
-- `authenticated` it would silently send nothing.

create or replace function private.ring_command() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.send(
    jsonb_build_object('v', 1, 'id', new.id, 'agent_id', new.agent_id, 'seq', new.seq,
                       'cancel', new.cancel_requested_at is not null),
    'command', 'office:' || new.office_id || ':commands', true);
  return null;
end $$;

create or replace function private.ring_result() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.send(
    jsonb_build_object('v', 1, 'id', new.id, 'agent_id', new.agent_id, 'seq', new.seq, 'state', new.state),
    'result', 'office:' || new.office_id || ':commands', true);
  return null;
end $$;

revoke all on function private.ring_command(), private.ring_result() from public, anon, authenticated;

drop trigger if exists agent_commands_ring_insert on public.agent_commands;
create trigger agent_commands_ring_insert after insert on public.agent_commands
  for each row execute function private.ring_command();

drop trigger if exists agent_commands_ring_cancel on public.agent_commands;
create trigger agent_commands_ring_cancel after update of cancel_requested_at on public.agent_commands
  for each row when (new.state = 'leased' and new.cancel_requested_at is distinct from old.cancel_requested_at)
  execute function private.ring_command();

drop trigger if exists agent_commands_ring_result on public.agent_commands;
create trigger agent_commands_ring_result after update of state on public.agent_commands
  for each row when (new.state is distinct from old.state and new.state not in ('queued', 'leased'))
  execute function private.ring_result();
