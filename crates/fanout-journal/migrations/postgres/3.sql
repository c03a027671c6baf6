-- What was spent and set aside, by day of UTC (counted from 1970-01-01) and scope, in billionths of a US dollar.

create table fanout.spent (
    n        bigint generated always as identity unique,
    day      bigint not null,
    scope    text   not null,
    nano_usd bigint not null,
    primary key (day, scope)
);
