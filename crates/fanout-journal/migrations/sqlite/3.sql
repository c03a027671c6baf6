-- What was spent and set aside, by day of UTC (counted from 1970-01-01) and scope, in billionths of a US dollar.

create table fanout_spent (
    day      integer not null,
    scope    text    not null,
    nano_usd integer not null,
    primary key (day, scope)
) without rowid;
