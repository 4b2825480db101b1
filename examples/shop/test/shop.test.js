'use strict';

// Against a real database: DATABASE_URL names an empty one, which is set up first. The application runs in this
// process on a port of its own, and is talked to over HTTP like a phone would.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const path = require('node:path');
const { after, before, test } = require('node:test');

process.env.JWT_SECRET ||= 'for tests only';
const db = require('../db');
const app = require('../app');

const PASSWORD = 'open sesame';
let server;
let base;

before(async () => {
  execFileSync(process.execPath, [path.join(__dirname, '..', 'scripts', 'setup-db.js')], { stdio: 'inherit' });
  server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  base = `http://127.0.0.1:${server.address().port}`;
});

after(async () => {
  server.close();
  server.closeAllConnections();
  await db.close();
});

async function call(method, target, { token, body } = {}) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { 'content-type': 'application/json' }) };
  const response = await fetch(base + target, { method, headers, body: body && JSON.stringify(body) });
  const text = await response.text();
  const isJson = (response.headers.get('content-type') || '').includes('json');
  return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined };
}

async function logIn(n) {
  const { json } = await call('POST', '/api/login', { body: { email: `customer${n}@example.com`, password: PASSWORD } });
  return json.token;
}

const available = async (id) => (await call('GET', `/api/products/${id}/stock`)).json.available;

test('the catalogue can be listed, searched and opened', async () => {
  const page = await call('GET', '/api/products?category=boots&page=2&per_page=10&sort=price');
  assert.equal(page.status, 200);
  assert.equal(page.json.products.length, 10);
  assert.ok(page.json.products.every((product) => product.category === 'boots'));
  assert.ok(page.json.pages > 2);

  const product = (await call('GET', '/api/products/42')).json;
  assert.equal(product.id, 42);
  assert.equal(product.reviews.length, 2);
  assert.equal(product.related.length, 6);
  assert.equal(product.availability, 'in stock');

  const found = (await call('GET', '/api/search?q=wool+scarf')).json.products;
  assert.ok(found.length > 0 && found.every(({ name }) => /wool/i.test(name) && /scarf/i.test(name)));
});

test('pages are HTML and escape what they show', async () => {
  await db.query("UPDATE products SET name = '<script>alert(1)</script>' WHERE id = 7");
  for (const target of ['/', '/categories/boots', '/products/7']) {
    const page = await call('GET', target);
    assert.equal(page.status, 200, target);
    assert.match(page.headers.get('content-type'), /text\/html/);
    assert.ok(!page.text.includes('<script>'), target);
  }
});

test('nonsense is refused with a reason', async () => {
  for (const [target, status] of [
    ['/api/products/x', 400], ['/api/products/99999999999', 400], ['/api/products/24001', 404],
    ['/api/products?page=-1', 400], ['/api/products?sort=__proto__', 400], ['/api/search', 400],
    ['/api/cart', 401], ['/nowhere', 404], ['/products/0', 400], ['/categories/none', 404],
  ]) {
    assert.equal((await call('GET', target)).status, status, target);
  }
  const wrong = await call('POST', '/api/login', { body: { email: 'customer1@example.com', password: 'guess' } });
  assert.equal(wrong.status, 401);
  assert.equal((await call('GET', '/api/cart', { token: 'abc.def.ghi' })).status, 401);
});

test('a cart becomes an order, and the order is paid once', async () => {
  const token = await logIn(1);
  const before = await available(100);
  const cart = await call('PUT', '/api/cart/items/100', { token, body: { quantity: 2 } });
  assert.equal(cart.json.items[0].quantity, 2);
  const order = await call('POST', '/api/orders', { token });
  assert.equal(order.status, 201);
  assert.equal(order.json.totalCents, cart.json.totalCents);
  assert.equal(await available(100), before - 2);
  assert.deepEqual((await call('GET', '/api/cart', { token })).json.items, []);

  const pay = () => call('POST', `/api/orders/${order.json.id}/payment`, { token, body: { cardToken: 'tok_ok' } });
  const payments = await Promise.all([pay(), pay(), pay()]);
  assert.deepEqual(payments.map(({ status }) => status).sort(), [200, 409, 409]);
  assert.equal((await call('GET', `/api/orders/${order.json.id}`, { token })).json.status, 'paid');
  const stranger = await logIn(2);
  assert.equal((await call('GET', `/api/orders/${order.json.id}`, { token: stranger })).status, 404);
});

test('checkout orders and pays in one step', async () => {
  const token = await logIn(5);
  const body = { items: [{ productId: 400 }], cardToken: 'tok_ok' };
  const order = await call('POST', '/api/checkout', { token, body });
  assert.deepEqual([order.status, order.json.status], [201, 'paid']);
  assert.equal((await call('POST', '/api/checkout', { token })).status, 400);
});

test('a declined card gives the pieces back', async () => {
  const token = await logIn(3);
  const before = await available(200);
  const order = await call('POST', '/api/orders', { token, body: { items: [{ productId: 200, quantity: 5 }] } });
  assert.equal(await available(200), before - 5);
  const declined = await call('POST', `/api/orders/${order.json.id}/payment`, { token, body: { cardToken: 'tok_declined' } });
  assert.equal(declined.status, 402);
  assert.equal(await available(200), before);
});

test('fifty buyers at once are sold exactly what there is', async () => {
  const token = await logIn(4);
  const [scarce, plenty] = [24000, 300];
  await db.query('UPDATE stock SET available = 20 WHERE product_id = $1', [scarce]);
  const plentyBefore = await available(plenty);
  // In both orders of the two products: sorted locks mean no deadlock, and a refused order takes nothing at all.
  const buy = (n) => {
    const items = [{ productId: scarce }, { productId: plenty }];
    return call('POST', '/api/orders', { token, body: { items: n % 2 ? items : items.reverse() } });
  };
  const orders = await Promise.all(Array.from({ length: 50 }, (_, n) => buy(n)));
  const count = (wanted) => orders.filter(({ status }) => status === wanted).length;
  assert.deepEqual([count(201), count(409)], [20, 30]);
  assert.equal(await available(scarce), 0);
  assert.equal(await available(plenty), plentyBefore - 20);
  const sold = await db.query('SELECT sum(quantity)::int AS sold FROM order_items WHERE product_id = $1', [scarce]);
  assert.equal(sold.rows[0].sold, 20);
  assert.equal((await call('GET', `/api/products/${scarce}`)).json.availability, 'sold out');
});
