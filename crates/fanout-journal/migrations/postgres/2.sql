-- Calls that need a person's word, and what people decided.

create table fanout.approval (
    n            bigint generated always as identity primary key,
    id           text    not null unique,
    run          text    not null,
    call         text    not null,
    caller       text    not null,
    project      text,
    tool         text    not null,
    input        text    not null,
    hash         text    not null,
    asked_ms     bigint  not null,
    expires_ms   bigint  not null,
    -- The call that waits for it or ran by it; the next that is the same takes it up if there is none.
    holder_run   text,
    holder_call  text,
    agreed       boolean,
    decided_by   text,
    words        text,
    decided_ms   bigint,
    is_used      boolean not null default false,
    is_withdrawn boolean not null default false
);
create index approval_hash on fanout.approval (hash);
create index approval_holder on fanout.approval (holder_run) where agreed is null;
