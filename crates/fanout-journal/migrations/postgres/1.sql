-- Runs, their events, who works on them, and what makes a call's outcome part of its own transaction.

create table fanout.owner (
    name     text   primary key,
    -- In milliseconds since 1970, by the server's clock; from then on it is taken to be gone.
    until_ms bigint not null,
    -- How many groups of entries it has added.
    appended bigint not null default 0
);

create table fanout.run (
    n         bigint generated always as identity primary key,
    id        text   not null unique,
    kind      text   not null,
    state     text   not null,
    reason    text,
    caller    text   not null,
    project   text,
    title     text   not null,
    began_ms  bigint not null,
    ended_ms  bigint,
    owner     text,
    fence     bigint not null default 0,
    stop      text,
    turns     bigint not null default 0,
    calls     bigint not null default 0,
    failed    bigint not null default 0,
    tokens    bigint not null default 0,
    cost_usd  double precision not null default 0,
    took_us   bigint not null default 0
);
create index run_open on fanout.run (state) where state in ('proposed', 'queued', 'running');

-- Only ever added to; what a run prunes goes with it.
create table fanout.event (
    n     bigint generated always as identity primary key,
    run   bigint not null references fanout.run (n) on delete cascade,
    at_us bigint not null,
    form  int    not null,
    text  text   not null
);
create index event_run on fanout.event (run, n);

create table fanout.outcome (
    run    text not null,
    call   text not null,
    output text not null,
    primary key (run, call)
);

create table fanout.setting (
    name  text primary key,
    value text not null
);
