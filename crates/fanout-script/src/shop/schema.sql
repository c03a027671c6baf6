create table customers (id text primary key, name text not null, email text not null, tier text not null);
create table orders (id text primary key, customer_id text not null, status text not null, total_cents integer not null,
    weight_g integer not null);
create table order_lines (order_id text not null, sku text not null, quantity integer not null, primary key (order_id, sku));
create table inventory (sku text primary key, name text not null, stock integer not null check (stock >= 0));
create table carriers (name text primary key, base_cents integer not null, cents_per_kg integer not null, days integer not null,
    weight_max_g integer not null);
-- Numbered per order or recipient: what one of them is told does not depend on what happens to another meanwhile.
create table payments (order_id text not null, number integer not null, amount_cents integer not null,
    primary key (order_id, number));
create table notes (order_id text not null, number integer not null, text text not null, primary key (order_id, number));
create table emails (recipient text not null, number integer not null, subject text not null, body text not null,
    primary key (recipient, number));

-- Not part of the state: what was asked, and what must not be done twice.
create table ledger (id integer primary key, method text not null, path text not null, idempotency_key text, status integer,
    started_us integer not null, ended_us integer);
create table idempotency (key text primary key, request text not null, status integer not null, body text not null);

insert into customers values ('c7', 'Ada Brook', 'ada@example.com', 'gold'), ('c8', 'Ben Marsh', 'ben@example.com', 'plain');
insert into orders values ('123', 'c7', 'open', 8980, 4200), ('124', 'c8', 'open', 1250, 300);
insert into order_lines values ('123', 'desk-lamp', 2), ('124', 'bulb', 5);
insert into inventory values ('desk-lamp', 'Desk lamp', 12), ('bulb', 'Light bulb', 240), ('shade', 'Lamp shade', 3);
insert into carriers values ('courier', 900, 150, 1, 30000), ('rail', 450, 90, 3, 50000), ('pigeon', 100, 0, 1, 50);
