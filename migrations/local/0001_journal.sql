-- The client's journal: what it was told, what it did, what it still has to report.
-- Times are milliseconds since 1970 (UTC). Ids are lower-case UUID texts. JSON is kept as text.

-- One row per command that was ever claimed; written before any effect.
create table inbox (
  command_id  text primary key,
  office_id   text not null,
  agent_id    text,
  session_id  text,
  kind        text not null,
  args        text not null,
  attempt     integer not null,
  lease_token text not null,
  phase       text not null check (phase in ('received', 'started', 'finished')),
  received_at integer not null,
  started_at  integer,
  finished_at integer
) strict, without rowid;

create index inbox_open on inbox (received_at) where phase <> 'finished';
create index inbox_finished on inbox (finished_at) where phase = 'finished';

-- One row per result; written in the transaction that finishes its command, kept until the office has it.
create table outbox (
  command_id      text primary key references inbox (command_id) on delete cascade,
  result_id       text not null unique,
  lease_token     text not null,
  status          text not null check (status in ('succeeded', 'unconfirmed', 'failed', 'cancelled')),
  outcome         text,
  output          text,
  error           text,
  evidence        text,
  timings         text,
  created_at      integer not null,
  tries           integer not null default 0,
  next_try_at     integer not null,
  last_error      text,
  acknowledged    text check (acknowledged in ('recorded', 'duplicate', 'late', 'rejected')),
  acknowledged_at integer
) strict, without rowid;

create index outbox_waiting on outbox (next_try_at) where acknowledged is null;

-- One row per session that was ever started here.
create table sessions (
  session_id text primary key,
  office_id  text not null,
  agent_id   text not null,
  title      text not null,
  repository text not null,
  worktree   text not null,
  branch     text not null,
  base       text,
  state      text not null,
  started_at integer not null,
  ended_at   integer
) strict, without rowid;

create index sessions_open on sessions (started_at) where ended_at is null;

-- One row per prompt that was submitted to a session.
create table turns (
  turn_id       text primary key,
  session_id    text not null references sessions (session_id) on delete cascade,
  command_id    text,
  prompt_sha256 text not null,
  started_at    integer not null,
  ended_at      integer,
  outcome       text,
  rule          text
) strict, without rowid;

create index turns_of_session on turns (session_id, started_at);
create index turns_open on turns (started_at) where ended_at is null;
