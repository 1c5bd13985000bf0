-- How often claims have given each lease: once, and again when the answer before was lost on its way (claim_commands).
-- Safe to run twice.

alter table private.command_leases add column if not exists given int not null default 1;
