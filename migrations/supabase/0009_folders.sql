-- From which data folder each client works, as a key that no copy of that folder has: two cores that go by one client, since
-- a data folder was copied, are told apart by it. Who came last is the client (register_client); what one has claimed or
-- begun is nothing for the other (claim_commands, begin_command). Safe to run twice.

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
