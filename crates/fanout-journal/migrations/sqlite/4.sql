-- What is remembered for callers until a time, in milliseconds since 1970; of what is over stays that it was there.

create table fanout_memo (
    n        integer primary key autoincrement,
    caller   text    not null,
    text     text,
    bytes    integer not null,
    until_ms integer not null
);
create index fanout_memo_until on fanout_memo (until_ms) where text is not null;
create index fanout_memo_bytes on fanout_memo (n, bytes) where text is not null;

-- What one is found by; the newest of a key counts.
create table fanout_memo_key (
    caller text    not null,
    key    text    not null,
    memo   integer not null references fanout_memo (n) on delete cascade,
    primary key (caller, key)
) without rowid;
create index fanout_memo_key_memo on fanout_memo_key (memo);
