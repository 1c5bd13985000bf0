-- What a Supabase project lacks of what migrations/supabase make, and what it has that opens it too far.
--
-- One read-only statement, for a search_path without our schemas but `public`. psql's variable `migrations` is the text
-- of the migrations, one after the other (scripts/check-supabase.sh sets both), so that nothing is listed twice.
-- Expressions are compared without what Postgres adds when it writes them down: parentheses, types, names. No row: all
-- is well. `fault`: must be put right. `note`: to be looked at.
with said as (
  -- without comments, so that no word in one counts
  select regexp_replace(:'migrations', '--[^\n]*', '', 'g') as text
),
wanted_function as (
  select substring(chunk from '^([a-z_]+\.[a-z_]+)') as name, split_part(chunk, '$$', 1) as head,
         split_part(original, '$$', 2) as body
    from (select chunk, row_number() over () as at
            from said, regexp_split_to_table(text, 'create or replace function ') chunk) c
    join (select original, row_number() over () as at
            from regexp_split_to_table(:'migrations', '(?n)^create or replace function ') original) o using (at)
   where at > 1
),
has_function as (
  select p.oid, n.nspname || '.' || p.proname as name, p.prosrc, p.prosecdef, p.proconfig, p.prorettype
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
   where n.nspname in ('public', 'private')
),
wanted_table as (
  select substring(chunk from '^([a-z_]+\.[a-z_]+)') as name, split_part(chunk, E'\n);', 1) as body
    from said, regexp_split_to_table(text, 'create table if not exists ') with ordinality as t (chunk, at)
   where at > 1
),
has_table as (
  select c.oid, n.nspname || '.' || c.relname as name, n.nspname as schema, c.relrowsecurity, c.relkind, c.reloptions
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where n.nspname in ('public', 'private') and c.relkind in ('r', 'p', 'v', 'm')
),
wanted_column as (
  select w.name, substring(line from '^  ([a-z_]+) ') as col
    from wanted_table w, regexp_split_to_table(w.body, '\n') line
   where substring(line from '^  ([a-z_]+) ') not in ('primary', 'unique', 'foreign', 'check', 'constraint')
  union
  select substring(chunk from '^([a-z_]+\.[a-z_]+)'), substring(chunk from 'add column if not exists ([a-z_]+)')
    from said, regexp_split_to_table(text, 'alter table ') with ordinality as t (chunk, at)
   where at > 1 and split_part(chunk, ';', 1) like '%add column if not exists%'
),
wanted_index as (
  select m[2] as name, m[3] as of_table, m[1] is not null as is_unique
    from said, regexp_matches(text, 'create (unique )?index if not exists ([a-z_]+)\s+on ([a-z_]+\.[a-z_]+)', 'g') m
),
wanted_policy as (
  select m[1] as name, m[2] as of_table, m[3] as cmd, m[4] as role,
         regexp_replace(lower(m[5]), '[()\s]', '', 'g') as meaning
    from said, regexp_matches(text,
           'create policy ([a-z_]+) on ([a-z_]+\.[a-z_]+) for ([a-z]+) to ([a-z_]+)\s+using \(([^;]+)\);', 'g') m
),
has_policy as (
  select policyname::text as name, schemaname || '.' || tablename as of_table, lower(cmd) as cmd, roles::text[] as roles,
         coalesce(qual, '') || coalesce(' with check ' || with_check, '') as text,
         regexp_replace(regexp_replace(lower(coalesce(qual, '') || coalesce(' with check ' || with_check, '')),
                                       '\s+as\s+[a-z_]+', '', 'g'), '::text|[()\s]', '', 'g') as meaning,
         permissive = 'PERMISSIVE' as is_permissive
    from pg_policies
),
wanted_trigger as (
  select substring(chunk from '^([a-z_]+)') as name, substring(chunk from ' on ([a-z_]+\.[a-z_]+)') as of_table,
         regexp_replace(lower(split_part(chunk, ';', 1)), '[()\s]', '', 'g') as meaning
    from said, regexp_split_to_table(text, 'create trigger ') with ordinality as t (chunk, at)
   where at > 1
),
has_trigger as (
  select t.tgname::text as name, t.tgrelid, t.tgenabled, pg_get_triggerdef(t.oid) as text,
         replace(replace(regexp_replace(lower(regexp_replace(pg_get_triggerdef(t.oid), '^CREATE TRIGGER ', '')),
                                        '::text|[][()\s]', '', 'g'), '<>allarray', 'notin'), '=anyarray', 'in') as meaning
    from pg_trigger t where not t.tgisinternal
),
client_role as (
  select rolname::text as role from pg_roles where rolname in ('anon', 'authenticated')
)
select 'fault' as level, 'function ' || w.name || ' is missing' as what, 'apply migrations/supabase' as remedy
  from wanted_function w where not exists (select 1 from has_function h where h.name = w.name)
union all
select 'fault', format('function %s is of another version: line %s of it is `%s`, not `%s`',
                       w.name, d.at, btrim(d.has), btrim(d.wanted)),
       'apply migrations/supabase again, all files in order'
  from wanted_function w
 cross join lateral (
   select d.at, coalesce(d.has, '') as has, coalesce(d.wanted, '') as wanted
     from (select h.prosrc from has_function h where h.name = w.name order by h.oid limit 1) h
    cross join lateral (
      select at, a.line as has, b.line as wanted
        from regexp_split_to_table(h.prosrc, '\n') with ordinality as a (line, at)
        full join regexp_split_to_table(w.body, '\n') with ordinality as b (line, at) using (at)) d
    where d.has is distinct from d.wanted
    order by d.at limit 1) d
 where not exists (select 1 from has_function h where h.name = w.name and h.prosrc = w.body)
union all
select 'fault', 'function ' || h.name || ' has no fixed search_path, or does not run as its owner as it should',
       'apply migrations/supabase again'
  from has_function h join wanted_function w on w.name = h.name and w.body = h.prosrc
 where (w.head ~ 'security definer') <> h.prosecdef
    or (w.head ~ 'set search_path = ''''') <> ('search_path=""' = any (coalesce(h.proconfig, '{}')))
union all
select 'fault', 'anybody with the publishable key may call ' || h.name,
       format('revoke all on function %s from public, anon', h.oid::regprocedure)
  from has_function h join (select distinct name from wanted_function) w on w.name = h.name
 where has_function_privilege('anon', h.oid, 'execute')
union all
select 'fault', 'members cannot call ' || h.name,
       format('grant execute on function %s to authenticated', h.oid::regprocedure)
  from has_function h join wanted_function w on w.name = h.name and w.body = h.prosrc
 where h.name like 'public.%' and not has_function_privilege('authenticated', h.oid, 'execute')
union all
select 'fault', 'policies cannot call ' || h.name, 'apply migrations/supabase again'
  from has_function h
 where h.name in ('private.has_office_role', 'private.my_offices', 'private.topic_office')
   and not (has_function_privilege('authenticated', h.oid, 'execute')
            and has_schema_privilege('authenticated', 'private', 'usage'))
union all
select 'fault', 'table ' || w.name || ' is missing', 'apply migrations/supabase'
  from wanted_table w where not exists (select 1 from has_table h where h.name = w.name)
union all
select 'fault', 'column ' || w.name || '.' || w.col || ' is missing', 'apply migrations/supabase'
  from wanted_column w join has_table h on h.name = w.name
 where not exists (select 1 from pg_attribute a
                    where a.attrelid = h.oid and a.attname = w.col and not a.attisdropped)
union all
select 'fault', 'index ' || w.name || ' is missing', 'apply migrations/supabase'
  from wanted_index w where to_regclass(split_part(w.of_table, '.', 1) || '.' || w.name) is null
union all
select 'fault', 'index ' || w.name || case when w.is_unique then ' is not unique' else ' is unique' end,
       'drop it, and apply migrations/supabase again'
  from wanted_index w join pg_index i on i.indexrelid = to_regclass(split_part(w.of_table, '.', 1) || '.' || w.name)
 where i.indisunique <> w.is_unique or not i.indisvalid
union all
select 'fault', 'row level security is off for ' || h.name, format('alter table %s enable row level security', h.name)
  from has_table h join wanted_table w on w.name = h.name where not h.relrowsecurity
union all
select 'fault', format('%s may %s %s directly', r.role, p.what, h.name),
       format('revoke all on %s from %s, and apply migrations/supabase again', h.name, r.role)
  from has_table h join wanted_table w on w.name = h.name
 cross join client_role r
 cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p (what)
 where has_table_privilege(r.role, h.oid, p.what)
   and not (p.what = 'select' and r.role = 'authenticated' and h.schema = 'public')
union all
select 'fault', 'members may not read ' || h.name, format('grant select on %s to authenticated', h.name)
  from has_table h join wanted_table w on w.name = h.name
 where h.schema = 'public' and not has_table_privilege('authenticated', h.oid, 'select')
union all
select 'fault', format('policy %s of %s is missing', w.name, w.of_table), 'apply migrations/supabase again'
  from wanted_policy w
 where not exists (select 1 from has_policy h
                    where h.name = w.name and h.of_table = w.of_table and h.cmd = w.cmd and h.roles = array[w.role])
union all
select 'fault', format('policy %s of %s says something else: `%s`%s', w.name, w.of_table, h.text,
                       case when h.is_permissive then '' else ', and restricts' end),
       'apply migrations/supabase again'
  from wanted_policy w
  join has_policy h on h.name = w.name and h.of_table = w.of_table and h.cmd = w.cmd and h.roles = array[w.role]
 where h.meaning <> w.meaning or not h.is_permissive
union all
select 'fault', format('policy %s of %s is none of ours: policies add up, so it opens the table further', h.name, h.of_table),
       format('drop policy %I on %s', h.name, h.of_table)
  from has_policy h join wanted_table t on t.name = h.of_table
 where not exists (select 1 from wanted_policy w where w.name = h.name and w.of_table = h.of_table)
union all
select case when h.cmd in ('insert', 'all') then 'fault' else 'note' end,
       format('policy %s of realtime.messages is none of ours', h.name),
       'make sure that it does not let anybody into topics that begin with `office:`'
  from has_policy h
 where h.of_table = 'realtime.messages'
   and not exists (select 1 from wanted_policy w where w.name = h.name and w.of_table = h.of_table)
union all
select 'fault', format('trigger %s of %s is missing or switched off', w.name, w.of_table), 'apply migrations/supabase again'
  from wanted_trigger w
 where not exists (select 1 from pg_trigger t
                    where t.tgname = w.name and t.tgrelid = to_regclass(w.of_table) and t.tgenabled in ('O', 'A'))
union all
select 'fault', format('trigger %s of %s does something else: `%s`', w.name, w.of_table, h.text),
       'apply migrations/supabase again'
  from wanted_trigger w join has_trigger h on h.name = w.name and h.tgrelid = to_regclass(w.of_table)
 where h.meaning <> w.meaning
union all
select 'fault', 'row level security is off for realtime.messages', 'ask Supabase: it is on in every project'
  from pg_class c where c.oid = to_regclass('realtime.messages') and not c.relrowsecurity
union all
select 'fault', 'realtime.send is missing', 'switch Realtime on for the project'
 where to_regprocedure('realtime.send(jsonb,text,text,boolean)') is null
union all
select 'fault', 'the schema private is served over REST', 'Settings → API → Exposed schemas: take `private` out'
  from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) c
 where r.rolname = 'authenticator' and c ~ '^pgrst\.db_schemas?=.*\mprivate\M'
union all
select 'note', 'row level security is off for ' || h.name || ', which is served over REST',
       format('alter table %s enable row level security', h.name)
  from has_table h
 where h.schema = 'public' and h.relkind in ('r', 'p') and not h.relrowsecurity
   and not exists (select 1 from wanted_table w where w.name = h.name)
   and has_table_privilege('anon', h.oid, 'select, insert, update, delete')
union all
select 'note', 'view ' || h.name || ' shows its owner''s rows to everybody who may read it',
       format('alter view %s set (security_invoker = true)', h.name)
  from has_table h
 where h.schema = 'public' and h.relkind = 'v' and not coalesce(h.reloptions::text ~ 'security_invoker=(true|on|1)', false)
order by 1, 2;
