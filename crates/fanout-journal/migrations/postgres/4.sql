-- What is remembered for callers until a time, in milliseconds since 1970; of what is over stays that it was there.

create table fanout.memo (
    n        bigint generated always as identity primary key,
    caller   text   not null,
    text     text,
    bytes    bigint not null,
    until_ms bigint not null
);
create index memo_until on fanout.memo (until_ms) where text is not null;
create index memo_bytes on fanout.memo (n, bytes) where text is not null;

-- What one is found by; the newest of a key counts.
create table fanout.memo_key (
    caller text   not null,
    key    text   not null,
    memo   bigint not null references fanout.memo (n) on delete cascade,
    primary key (caller, key)
);
create index memo_key_memo on fanout.memo_key (memo);
