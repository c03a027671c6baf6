-- Calls that need a person's word, and what people decided.

create table fanout_approval (
    n            integer primary key autoincrement,
    id           text    not null unique,
    run          text    not null,
    call         text    not null,
    caller       text    not null,
    project      text,
    tool         text    not null,
    input        text    not null,
    hash         text    not null,
    asked_ms     integer not null,
    expires_ms   integer not null,
    -- The call that waits for it or ran by it; the next that is the same takes it up if there is none.
    holder_run   text,
    holder_call  text,
    agreed       integer,
    decided_by   text,
    words        text,
    decided_ms   integer,
    is_used      integer not null default 0,
    is_withdrawn integer not null default 0
);
create index fanout_approval_hash on fanout_approval (hash);
create index fanout_approval_holder on fanout_approval (holder_run) where agreed is null;
