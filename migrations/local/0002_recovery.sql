-- What the next core needs to go on where this one ended, and what it made of each command.

-- Order does not hang on the wall clock, which people and time servers set back.
alter table inbox add column place integer not null default 0;
update inbox set place = o.place
  from (select command_id, row_number() over (order by received_at, command_id) as place from inbox) as o
 where inbox.command_id = o.command_id;
create index inbox_place on inbox (place);
drop index inbox_open;
create index inbox_open on inbox (place, phase) where phase <> 'finished';

-- The claimed row as it came. 'null': claimed by a version that did not keep it.
alter table inbox add column claimed text not null default 'null';
alter table inbox add column recovered text check (recovered in ('followed', 'reported', 'run_again', 'unknown'));

alter table turns add column place integer not null default 0;
update turns set place = o.place
  from (select turn_id, row_number() over (order by started_at, turn_id) as place from turns) as o
 where turns.turn_id = o.turn_id;
create index turns_place on turns (place);
drop index turns_open;
create index turns_open on turns (place) where ended_at is null;

alter table turns add column request text not null default 'null';
-- A turn of the version before had been handed to its session: Enter may have been pressed.
alter table turns add column stage text not null default 'entering' check (stage in ('begun', 'entering', 'taken'));
alter table turns add column mark text;
alter table turns add column taken_at integer;
create index turns_of_command on turns (command_id, place) where command_id is not null;
create index turns_of_people on turns (ended_at) where command_id is null and ended_at is not null;

alter table sessions add column detail text not null default 'null';
create index sessions_ended on sessions (ended_at) where ended_at is not null;

-- One row per start of a core on this file. The number grows for ever, also across a file that was set aside.
create table launches (
  epoch       integer primary key,
  launched_at integer not null
) strict;

-- Small things that the client remembers across its starts.
create table memory (
  key   text primary key,
  value text not null
) strict, without rowid;
