-- A client calls itself through the office's doorbell: only what it hears of its own ring proves the whole way from
-- the database to its ears. "Connected" is shown on that proof, not on an open socket. Ids only, as in 0004; other
-- members hear it, too, and take it as a proof of theirs.

create or replace function public.prove_doorbell(p_office uuid, p_nonce uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if p_office is null or not p_office in (select private.my_offices()) then
    raise exception 'not allowed in this office' using errcode = '42501';
  end if;
  perform realtime.send(jsonb_build_object('v', 1, 'nonce', p_nonce), 'proof',
    'office:' || p_office || ':commands', true);
end $$;

revoke all on function public.prove_doorbell(uuid, uuid) from public, anon, authenticated;
grant execute on function public.prove_doorbell(uuid, uuid) to authenticated;
