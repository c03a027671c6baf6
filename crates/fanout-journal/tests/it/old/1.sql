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
pragma user_version = 1;
insert into fanout_run (n, id, kind, state, caller, title, began_ms, ended_ms, turns, calls, tokens, cost_usd, took_us) values (1, 'run_old', 'agent', 'done', 'local', 'How is order 7?', 1795473000000, 1795473001000, 2, 1, 90, 0.001, 1000000);
insert into fanout_event (run, at_us, form, text) values (1, 0, 1, '{"e":"run_started","kind":"agent","given":"{\"model\":\"claude-sonnet-5-5\",\"max_tokens\":8192,\"messages\":[{\"role\":\"user\",\"content\":\"How is order 7?\"}]}"}');
insert into fanout_event (run, at_us, form, text) values (1, 10, 1, '{"e":"turn_started","turn":1}');
insert into fanout_event (run, at_us, form, text) values (1, 400, 1, '{"e":"model_ended","turn":1,"stop":"tool_use","tokens":[40,5,0,0],"usd":0.0005}');
insert into fanout_event (run, at_us, form, text) values (1, 410, 1, '{"e":"appended","message":"{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"get_order\",\"input\":{\"id\":7}}]}"}');
insert into fanout_event (run, at_us, form, text) values (1, 420, 1, '{"e":"call_arrived","call":"toolu_1","tool":"get_order","at":"0","declared":true,"input":{"id":7}}');
insert into fanout_event (run, at_us, form, text) values (1, 430, 1, '{"e":"attempt_started","call":"toolu_1","n":1}');
insert into fanout_event (run, at_us, form, text) values (1, 900, 1, '{"e":"attempt_ended","call":"toolu_1","n":1}');
insert into fanout_event (run, at_us, form, text) values (1, 910, 1, '{"e":"call_ended","call":"toolu_1","attempts":1,"shown":["{\"status\":\"sent\"}"]}');
insert into fanout_event (run, at_us, form, text) values (1, 1000000, 1, '{"e":"run_ended","status":"done"}');
