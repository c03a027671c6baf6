-- A shop whose customers see their own orders and nobody else's, whoever asks for them and in whatever words.
--
-- For a Supabase project (SQL editor, or a migration). It has the roles and auth.uid() already.

create table customers (
  id      bigint generated always as identity primary key,
  user_id uuid not null unique, -- in a real project: references auth.users
  name    text not null,
  email   text not null
);

create table orders (
  id          bigint primary key,
  customer_id bigint not null references customers,
  status      text not null default 'open',
  note        text,
  version     integer not null default 1,
  placed_at   timestamptz not null default now()
);

create table order_lines (
  order_id bigint not null references orders,
  line     integer not null,
  sku      text not null,
  quantity integer not null check (quantity > 0),
  price    numeric(12, 2) not null,
  primary key (order_id, line)
);

create table shipments (
  order_id bigint primary key references orders,
  carrier  text not null,
  tracking text not null,
  due      date not null
);

create index on orders (customer_id);

alter table customers enable row level security;
alter table orders enable row level security;
alter table order_lines enable row level security;
alter table shipments enable row level security;

-- A user's own rows. Each policy looks through the one before it: what cannot be seen above is not there below.
create policy own on customers for select to authenticated
  using (user_id = (select auth.uid()));
create policy own on orders for select to authenticated
  using (customer_id in (select id from customers));
create policy own on order_lines for select to authenticated
  using (order_id in (select id from orders));
create policy own on shipments for select to authenticated
  using (order_id in (select id from orders));

-- The one thing that a user may change.
revoke insert, update, delete on customers, orders, order_lines, shipments from anon, authenticated;
grant update (note, version) on orders to authenticated;
create policy noted on orders for update to authenticated
  using (customer_id in (select id from customers));
