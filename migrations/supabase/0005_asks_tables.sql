-- What agents wait for people to say, and what was said: one row per permission or question.
-- Writers: only the functions of 0006. Readers: members of the office, by the policy there.

create table if not exists public.session_asks (
  id uuid primary key,                          -- made by the client, so that a repeated report is recognised
  office_id uuid not null references public.offices on delete cascade,
  session_id uuid not null,                     -- its row in `sessions` may come later than the ask
  client_id uuid not null,                      -- whose session it is: the only one that may close the ask
  agent_id uuid,
  command_id uuid references public.agent_commands on delete set null,  -- the command whose turn waits
  kind text not null check (kind in ('permission', 'question', 'login', 'dialog')),
  tool text check (length(tool) <= 200),
  text text not null check (octet_length(text) <= 32768),
  choices jsonb not null default '[]' check (jsonb_typeof(choices) = 'array' and octet_length(choices::text) <= 65536),
  state text not null default 'pending' check (state in ('pending', 'answered', 'withdrawn')),
  answer jsonb check (octet_length(answer::text) <= 16384),  -- null also for one given at the agent's own terminal
  answered_by_way text check (answered_by_way in ('window', 'cli', 'terminal', 'command')),
  answered_by_user uuid,                        -- found by the database, never told by the client
  answered_by_command uuid,
  reason text check (length(reason) <= 1000),   -- why it was withdrawn
  asked_at timestamptz not null default now(),
  closed_at timestamptz,
  foreign key (office_id, client_id) references public.clients (office_id, id) on delete cascade,
  foreign key (office_id, agent_id) references public.agents (office_id, id),
  check ((state = 'pending') = (closed_at is null)),
  check ((state = 'answered') = (answered_by_way is not null))
);
-- What is pending comes first in this order (nulls), then the newest ends.
create index if not exists session_asks_newest on public.session_asks (office_id, closed_at desc, asked_at);
create index if not exists session_asks_by_client on public.session_asks (client_id) where state = 'pending';

-- Nobody may touch it before 0006 has said who may.
alter table public.session_asks enable row level security;
revoke all on public.session_asks from public, anon, authenticated;
