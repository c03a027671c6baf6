-- Who changed what; the last deed about a subject is the order that stands.

create table fanout_deed (
    n       integer primary key autoincrement,
    at_ms   integer not null,
    who     text    not null,
    project text,
    action  text    not null,
    subject text,
    target  text    not null,
    detail  text    not null
);
create index fanout_deed_subject on fanout_deed (subject, target, n) where subject is not null;

insert into fanout_deed (at_ms, who, action, subject, target, detail)
    select unixepoch() * 1000, value, 'pause', 'pause', '', '{}' from fanout_setting where name = 'paused';
delete from fanout_setting where name = 'paused';
