-- A client calls itself through the office's doorbell: only what it hears of its own ring proves the whole way from
-- the database to its ears. "Connected" is shown on that proof, not on an open socket. Ids only, as in 0004; other
-- members hear it, too, and take it as a proof of theirs.
--
-- Who may ring: whoever works with the office, not who only looks on. A viewer hears what the others ring.

-- How often each has rung in the present minute.
create table if not exists private.proofs (
  office_id uuid not null references public.offices on delete cascade,
  user_id uuid not null,
  since timestamptz not null,
  rings int not null,
  primary key (office_id, user_id)
);
alter table private.proofs enable row level security;
revoke all on private.proofs from public, anon, authenticated;

create or replace function public.prove_doorbell(p_office uuid, p_nonce uuid) returns void
language plpgsql security definer set search_path = '' as $$
declare
  -- Of one user in one office and minute. A client rings once per join and then every five minutes; one user may run
  -- many. Each ring wakes every member's client.
  rings_max constant int := 120;
  v_now timestamptz := clock_timestamp();
  v_rings int;
begin
  if not private.has_office_role(p_office, array['owner', 'operator', 'device']) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  insert into private.proofs as p (office_id, user_id, since, rings) values (p_office, auth.uid(), v_now, 1)
  on conflict (office_id, user_id) do update
     set rings = case when v_now - p.since between interval '0' and interval '1 minute' then p.rings + 1 else 1 end,
         since = case when v_now - p.since between interval '0' and interval '1 minute' then p.since else v_now end
  returning p.rings into v_rings;
  if v_rings > rings_max then
    raise exception 'you have rung % times within a minute; that is the limit', rings_max using errcode = 'PT429';
  end if;
  perform realtime.send(jsonb_build_object('v', 1, 'nonce', p_nonce), 'proof',
    'office:' || p_office || ':commands', true);
end $$;

revoke all on function public.prove_doorbell(uuid, uuid) from public, anon, authenticated;
grant execute on function public.prove_doorbell(uuid, uuid) to authenticated;
