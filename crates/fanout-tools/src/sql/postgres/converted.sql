-- What begins the statements of `catalog.sql` that name it: which functions making a value of a type calls, through the types
-- that are made of it.
with recursive made as (
  select k.contypid as type, d.refclassid, d.refobjid
  from pg_constraint k join pg_depend d on d.classid = 'pg_constraint'::regclass and d.objid = k.oid where k.contypid <> 0
  union all
  select t.oid, d.refclassid, d.refobjid
  from pg_type t join pg_depend d on d.classid = 'pg_type'::regclass and d.objid = t.oid where t.typtype = 'd'
), called as (
  select type, 'write' as of, refobjid as function from made where refclassid = 'pg_proc'::regclass
  union all
  select m.type, 'write', o.oprcode from made m join pg_operator o on o.oid = m.refobjid
  where m.refclassid = 'pg_operator'::regclass
  union all
  select x.type, 'always', k.castfunc from pg_cast k cross join lateral (values (k.castsource), (k.casttarget)) x(type)
), converted as (
  select c.type, c.of, c.function
  from called c join pg_proc p on p.oid = c.function join pg_type t on t.oid = c.type
  where p.provolatile <> 'i' and p.pronamespace <> 'pg_catalog'::regnamespace and t.typnamespace <> 'pg_catalog'::regnamespace
  union
  select t.oid, c.of, c.function
  from converted c join pg_type t on t.typbasetype = c.type or t.typelem = c.type
    or exists (select from pg_range r where r.rngtypid = t.oid and r.rngsubtype = c.type)
    or t.typrelid <> 0 and exists (
      select from pg_attribute a where a.attrelid = t.typrelid and a.atttypid = c.type and a.attnum > 0
    )
)