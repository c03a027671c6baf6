-- What a database knows of its tables, as any role may read it, without what the system brings along. One list per
-- statement, as JSON, in the order in which catalog.rs takes them.
begin isolation level repeatable read read only;

-- The schemas that a bare name is looked up in.
select to_json(current_schemas(true));

-- Those that it is looked up in, or not, by what role the transaction takes on: not each may use them, or bears their name.
select coalesce(json_agg(n.nspname), '[]')
from pg_namespace n cross join lower(current_setting('search_path')) path
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and exists (
  select from pg_roles r
  where r.rolname <> current_user and pg_has_role(current_user, r.oid, 'member') and (
    strpos(path, '$user') > 0 and r.rolname = n.nspname
    or strpos(path, replace(lower(n.nspname), '"', '""')) > 0
      and has_schema_privilege(r.oid, n.oid, 'usage') <> has_schema_privilege(n.oid, 'usage')
  )
);

select coalesce(json_agg(r), '[]') from (
  select n.nspname as schema, c.relname as name, c.relkind as kind
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
) r;

-- Partitions and children.
select coalesce(json_agg(r), '[]') from (
  select n.nspname as schema, c.relname as name, pn.nspname as parent_schema, p.relname as parent_name
  from pg_inherits i
  join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_class p on p.oid = i.inhparent join pg_namespace pn on pn.oid = p.relnamespace
  where c.relkind in ('r', 'p', 'f')
  order by i.inhrelid, i.inhseqno
) r;

-- Columns. A text has one spelling if its collation tells every two texts apart; the type char(n) never does.
select coalesce(json_agg(r), '[]') from (
  select n.nspname as schema, c.relname as table, a.attname as name,
    case
      when t.typnamespace <> 'pg_catalog'::regnamespace and t.typtype <> 'e' then null
      when t.typtype = 'e' then 'text'
      when t.typname in ('int2', 'int4', 'int8') then 'integer'
      when t.typname = 'uuid' then 'uuid'
      when t.typname in ('text', 'varchar') and coalesce(o.collisdeterministic, true) then 'text'
    end as form,
    a.atttypmod <> -1 as is_limited,
    a.atthasdef or a.attidentity <> '' or t.typdefault is not null as has_default,
    a.attidentity <> '' or exists (
      select from pg_attrdef d
      join pg_depend p on p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass
      join pg_class s on s.oid = p.refobjid and s.relkind = 'S'
      where d.adrelid = c.oid and d.adnum = a.attnum
    ) or exists (
      select from pg_depend p join pg_class s on s.oid = p.refobjid and s.relkind = 'S'
      where p.classid = 'pg_type'::regclass and p.objid = t.oid and p.refclassid = 'pg_class'::regclass
    ) as is_numbered,
    a.attgenerated <> '' as is_generated,
    exists (
      select from pg_partitioned_table p
      where p.partrelid = c.oid and (a.attnum = any (p.partattrs::int2[]) or 0 = any (p.partattrs::int2[]))
    ) as is_partitioning
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_type t on t.oid = a.atttypid left join pg_collation o on o.oid = a.attcollation
  where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  order by c.oid, a.attnum
) r;

-- What has to be unique, and what excludes; no columns where an expression or a condition has a part in it, or where two
-- values that the column tells apart can be one in the index: by another collation or another operator class.
select coalesce(json_agg(r), '[]') from (
  select n.nspname as schema, c.relname as table, i.indisprimary as is_primary,
    case when i.indpred is null and i.indexprs is null and not i.indisexclusion and not exists (
      select from unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) with ordinality k(attnum, class, coll, at)
      join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
      join pg_opclass o on o.oid = k.class
      where k.at <= i.indnkeyatts and (k.coll <> a.attcollation or not o.opcdefault)
    ) then (
      select json_agg(a.attname order by k.at)
      from unnest(i.indkey::int2[]) with ordinality k(attnum, at)
      join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
      where k.at <= i.indnkeyatts
    ) end as columns
  from pg_index i
  join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
  where (i.indisunique or i.indisexclusion) and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
) r;

-- Foreign keys.
select coalesce(json_agg(r), '[]') from (
  select n.nspname as schema, c.relname as table, tn.nspname as target_schema, t.relname as target_table,
    k.confdeltype as on_delete, k.confupdtype as on_update,
    (select json_agg(a.attname order by u.at) from unnest(k.conkey) with ordinality u(attnum, at)
      join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum) as columns,
    (select json_agg(a.attname order by u.at) from unnest(k.confkey) with ordinality u(attnum, at)
      join pg_attribute a on a.attrelid = t.oid and a.attnum = u.attnum) as target_columns
  from pg_constraint k
  join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_class t on t.oid = k.confrelid join pg_namespace tn on tn.oid = t.relnamespace
  where k.contype = 'f'
) r;

-- Triggers, but for those that change nothing beside their own row; and rules, but for those that make a view.
select coalesce(json_agg(r), '[]') from (
  select n.nspname as schema, c.relname as table, g.tgname as name,
    g.tgtype & 4 <> 0 as insert, g.tgtype & 16 <> 0 as update, g.tgtype & 8 <> 0 as delete
  from pg_trigger g
  join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_proc f on f.oid = g.tgfoid join pg_language l on l.oid = f.prolang
  where not g.tgisinternal and g.tgenabled <> 'D' and f.pronamespace <> 'pg_catalog'::regnamespace
    and not (l.lanname = 'c' and f.proname = 'moddatetime')
  union all
  select n.nspname, c.relname, w.rulename, w.ev_type = '3', w.ev_type = '2', w.ev_type = '4'
  from pg_rewrite w join pg_class c on c.oid = w.ev_class join pg_namespace n on n.oid = c.relnamespace
  where w.rulename <> '_RETURN' and w.ev_enabled <> 'D'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
) r;

-- What views, policies, defaults and checks are made of, and what making a value of a column's type calls: a domain's
-- checks and default where it is written, a cast always. What the system brings along is not listed there by itself.
/* converted */, owned as (
  select w.ev_class as relation, 'view' as of, 'pg_rewrite'::regclass as classid, w.oid as objid
  from pg_rewrite w join pg_class c on c.oid = w.ev_class where w.rulename = '_RETURN' and c.relkind = 'v'
  union all
  select p.polrelid, 'always', 'pg_policy'::regclass, p.oid
  from pg_policy p join pg_class c on c.oid = p.polrelid where c.relrowsecurity
  union all
  select adrelid, 'write', 'pg_attrdef'::regclass, oid from pg_attrdef
  union all
  select conrelid, 'write', 'pg_constraint'::regclass, oid from pg_constraint where contype = 'c' and conrelid <> 0
), used as (
  select o.relation, o.of, d.refclassid, d.refobjid
  from owned o join pg_depend d on d.classid = o.classid and d.objid = o.objid
), functions as (
  select relation, of, refobjid as function from used where refclassid = 'pg_proc'::regclass
  union
  select u.relation, u.of, p.oprcode from used u join pg_operator p on p.oid = u.refobjid
  where u.refclassid = 'pg_operator'::regclass
  union
  select u.relation, u.of, c.function from used u join converted c on c.type = u.refobjid
  where u.refclassid = 'pg_type'::regclass
  union
  select a.attrelid, c.of, c.function from converted c join pg_attribute a on a.atttypid = c.type and a.attnum > 0
)
select coalesce(json_agg(r), '[]') from (
  select distinct n.nspname as schema, c.relname as table, f.of, true as is_function,
    fn.nspname as used_schema, p.proname as used_name
  from functions f
  join pg_class c on c.oid = f.relation join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = f.function join pg_namespace fn on fn.oid = p.pronamespace
  where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and fn.nspname <> 'pg_catalog'
  union all
  select distinct n.nspname, c.relname, u.of, false, un.nspname, x.relname
  from used u
  join pg_class c on c.oid = u.relation join pg_namespace n on n.oid = c.relnamespace
  join pg_class x on x.oid = u.refobjid join pg_namespace un on un.oid = x.relnamespace
  where u.refclassid = 'pg_class'::regclass and x.oid <> c.oid
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and un.nspname <> 'pg_catalog'
    -- A table that draws from its own sequence is numbered, which its columns say.
    and not (x.relkind = 'S' and exists (
      select from pg_depend d
      where d.classid = 'pg_class'::regclass and d.objid = x.oid and d.refclassid = 'pg_class'::regclass
        and d.refobjid = c.oid and d.deptype in ('a', 'i')
    ))
  union all
  -- What a policy says of its own columns is listed like a query in it on its own table: only its tree tells.
  select distinct n.nspname, c.relname, 'always', false, n.nspname, c.relname
  from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
  where c.relrowsecurity and concat(p.polqual::text, p.polwithcheck::text) ~ format(':relid %s\M', c.oid)
) r;

-- Functions. An aggregate is what its parts are. A body counts only where its names mean what they would mean to the
-- caller: with another role's rights they may not.
select coalesce(json_agg(r), '[]') from (
  select n.nspname as schema, p.proname as name, l.lanname as language,
    coalesce((
      select max(f.provolatile::text) from pg_aggregate a join pg_proc f on f.oid in (
        a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn,
        a.aggmfinalfn
      ) where a.aggfnoid = p.oid
    ), p.provolatile::text) as volatility,
    case when l.lanname = 'sql' and p.provolatile <> 'i' and p.prosrc <> '' and case
      when p.prosecdef then p.proconfig && array['search_path=', 'search_path=""']
      else not exists (
        select from unnest(p.proconfig) s(setting)
        where s.setting like 'search\_path=%' and s.setting not in ('search_path=', 'search_path=""')
      )
    end then p.prosrc end as body,
    exists (select from pg_type t where t.oid = p.proargtypes[0] and t.typtype in ('c', 'd', 'p')) as of_row
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
  where n.nspname not in ('pg_catalog', 'information_schema')
) r;

select coalesce(json_agg(distinct proname), '[]') from pg_proc
where pronamespace = 'pg_catalog'::regnamespace and provolatile = 'v';

-- What calls a function without its name: operators, the types with checks and casts of their own, and what takes or gives
-- a value of those. Of a cast between two of the system's types no name has to tell.
/* converted */
select coalesce(json_agg(r), '[]') from (
  select distinct m.text, m.is_row, n.nspname as schema, p.proname as name
  from (
    select oprname::text as text, false as is_row, oprcode::oid as function from pg_operator
    where oprnamespace <> 'pg_catalog'::regnamespace
    union all
    select t.typname, t.typrelid <> 0, c.function from converted c join pg_type t on t.oid = c.type
    union all
    select f.proname, false, c.function
    from converted c join pg_proc f on c.type in (f.prorettype) or c.type = any (f.proargtypes) or c.type = any (f.proallargtypes)
    union all
    select o.oprname, false, c.function
    from converted c join pg_operator o on c.type in (o.oprleft, o.oprright, o.oprresult)
    union all
    select '', false, k.castfunc from pg_cast k
    where k.castfunc <> 0 and k.castsource in (select oid from pg_type where typnamespace = 'pg_catalog'::regnamespace)
      and k.casttarget in (select oid from pg_type where typnamespace = 'pg_catalog'::regnamespace)
  ) m
  join pg_proc p on p.oid = m.function join pg_namespace n on n.oid = p.pronamespace
  where p.provolatile <> 'i' and n.nspname <> 'pg_catalog'
) r;

commit;
