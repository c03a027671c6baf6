-- Who changed what; the last deed about a subject is the order that stands.

create table fanout.deed (
    n       bigint generated always as identity primary key,
    at_ms   bigint not null,
    who     text   not null,
    project text,
    action  text   not null,
    subject text,
    target  text   not null,
    detail  text   not null
);
create index deed_subject on fanout.deed (subject, target, n) where subject is not null;

insert into fanout.deed (at_ms, who, action, subject, target, detail)
    select (extract(epoch from now()) * 1000)::bigint, value, 'pause', 'pause', '', '{}' from fanout.setting where name = 'paused';
delete from fanout.setting where name = 'paused';
