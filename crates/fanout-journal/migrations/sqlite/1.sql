-- Runs, their events, and what makes a call's outcome part of its own transaction.

create table fanout_run (
    n         integer primary key autoincrement,
    id        text    not null unique,
    kind      text    not null,
    state     text    not null,
    reason    text,
    caller    text    not null,
    project   text,
    title     text    not null,
    began_ms  integer not null,
    ended_ms  integer,
    owner     text,
    fence     integer not null default 0,
    stop      text,
    turns     integer not null default 0,
    calls     integer not null default 0,
    failed    integer not null default 0,
    tokens    integer not null default 0,
    cost_usd  real    not null default 0,
    took_us   integer not null default 0
);
create index fanout_run_open on fanout_run (state) where state in ('proposed', 'queued', 'running');

-- Only ever added to; what a run prunes goes with it.
create table fanout_event (
    n     integer primary key autoincrement,
    run   integer not null references fanout_run (n) on delete cascade,
    at_us integer not null,
    form  integer not null,
    text  text    not null
);
create index fanout_event_run on fanout_event (run);

create table fanout_outcome (
    run    text not null,
    call   text not null,
    output text not null,
    primary key (run, call)
) without rowid;

create table fanout_setting (
    name  text primary key,
    value text not null
) without rowid;
