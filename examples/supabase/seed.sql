-- Two users and an order of each, to try it with.

insert into customers (user_id, name, email) values
  ('a11ce000-0000-4000-8000-000000000001', 'Alice Adler', 'alice@example.com'),
  ('b0b00000-0000-4000-8000-000000000002', 'Bob Baum', 'bob@example.com');

insert into orders (id, customer_id, status)
select place.id, customers.id, place.status
from (values (1001, 'Alice Adler', 'packed'), (2001, 'Bob Baum', 'shipped')) as place (id, name, status)
join customers using (name);

insert into order_lines (order_id, line, sku, quantity, price) values
  (1001, 1, 'desk-lamp', 2, 39.90),
  (1001, 2, 'oak-shelf', 1, 129.00),
  (2001, 1, 'wool-rug', 1, 240.00);

insert into shipments (order_id, carrier, tracking, due) values
  (1001, 'Swift', 'SW-1001-A', '2026-12-01'),
  (2001, 'Heron', 'HE-2001-B', '2026-11-28');
