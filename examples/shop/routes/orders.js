'use strict';

const express = require('express');
const { requireUser } = require('../auth');
const { query, transaction } = require('../db');
const { HttpError, integer } = require('../errors');
const payment = require('../payment');

const router = express.Router();
router.use('/orders', requireUser);

const ORDER = 'id::int, status, total_cents AS "totalCents", created_at AS "createdAt", paid_at AS "paidAt"';

/** What is wanted: the body's items, or the cart. Sorted by product, so that two orders never wait for each other. */
async function wantedItems(client, userId, body) {
  if (!Array.isArray(body?.items)) {
    const cart = await client.query(
      `SELECT product_id AS "productId", quantity FROM cart_items WHERE user_id = $1 ORDER BY product_id`,
      [userId],
    );
    return cart.rows;
  }
  if (body.items.length > 50) throw new HttpError(400, 'at most 50 items');
  const byProduct = new Map();
  for (const item of body.items) {
    const productId = integer(item?.productId, { name: 'productId' });
    const quantity = integer(item?.quantity, { name: 'quantity', max: 99, fallback: 1 });
    byProduct.set(productId, (byProduct.get(productId) || 0) + quantity);
  }
  const items = [...byProduct].map(([productId, quantity]) => ({ productId, quantity }));
  return items.sort((left, right) => left.productId - right.productId);
}

/** Takes the stock or throws; the row lock this update holds keeps two buyers from taking the same piece. */
async function reserve(client, { productId, quantity }) {
  const taken = await client.query(
    `UPDATE stock s SET available = available - $2 FROM products p
     WHERE s.product_id = $1 AND p.id = s.product_id AND s.available >= $2
     RETURNING p.price_cents AS "priceCents"`,
    [productId, quantity],
  );
  if (!taken.rowCount) throw new HttpError(409, `Product ${productId} is sold out`);
  return taken.rows[0].priceCents;
}

/** Takes the stock, writes the order and empties the cart of it: all or nothing. */
function placeOrder(userId, body) {
  return transaction(async (client) => {
    const items = await wantedItems(client, userId, body);
    if (!items.length) throw new HttpError(400, 'The cart is empty');
    for (const item of items) item.priceCents = await reserve(client, item);
    const totalCents = items.reduce((sum, item) => sum + item.priceCents * item.quantity, 0);
    const created = await client.query(
      `INSERT INTO orders (user_id, total_cents) VALUES ($1, $2) RETURNING ${ORDER}`,
      [userId, totalCents],
    );
    const order = created.rows[0];
    const column = (key) => items.map((item) => item[key]);
    await client.query(
      `INSERT INTO order_items (order_id, product_id, quantity, price_cents)
       SELECT $1, * FROM unnest($2::int[], $3::int[], $4::int[])`,
      [order.id, column('productId'), column('quantity'), column('priceCents')],
    );
    await client.query('DELETE FROM cart_items WHERE user_id = $1 AND product_id = ANY ($2::int[])', [
      userId,
      column('productId'),
    ]);
    return { ...order, items };
  });
}

/** Charges the card for an order that waits for it. */
async function pay(id, userId, cardToken) {
  // Claimed first: of two taps on "pay", one pays. No connection is held while the provider thinks.
  const claimed = await query(
    `UPDATE orders SET status = 'paying' WHERE id = $1 AND user_id = $2 AND status = 'pending'
     RETURNING total_cents AS "totalCents"`,
    [id, userId],
  );
  if (!claimed.rowCount) throw new HttpError(409, 'This order is not waiting for a payment');
  const result = await payment.charge({ orderId: id, amountCents: claimed.rows[0].totalCents, cardToken });
  if (!result.approved) {
    await cancel(id);
    throw new HttpError(402, 'The card was declined');
  }
  const paid = await query(
    `UPDATE orders SET status = 'paid', payment_ref = $2, paid_at = now() WHERE id = $1 RETURNING ${ORDER}`,
    [id, result.reference],
  );
  return paid.rows[0];
}

/** Gives the pieces back. */
async function cancel(id) {
  await transaction(async (client) => {
    const taken = await client.query(
      'SELECT product_id, quantity FROM order_items WHERE order_id = $1 ORDER BY product_id',
      [id],
    );
    for (const item of taken.rows) {
      await client.query('UPDATE stock SET available = available + $2 WHERE product_id = $1', [
        item.product_id,
        item.quantity,
      ]);
    }
    await client.query("UPDATE orders SET status = 'cancelled' WHERE id = $1", [id]);
  });
}

router.post('/orders', async (req, res) => {
  const order = await placeOrder(req.userId, req.body);
  res.status(201).location(`/api/orders/${order.id}`).json(order);
});

// What the app's "Buy now" does: order and payment in one request.
router.post('/checkout', requireUser, async (req, res) => {
  const order = await placeOrder(req.userId, req.body);
  const paid = await pay(order.id, req.userId, req.body?.cardToken);
  res.status(201).location(`/api/orders/${order.id}`).json({ ...order, ...paid });
});

router.get('/orders', async (req, res) => {
  const orders = await query(`SELECT ${ORDER} FROM orders WHERE user_id = $1 ORDER BY id DESC LIMIT 20`, [req.userId]);
  res.json({ orders: orders.rows });
});

router.get('/orders/:id', async (req, res) => {
  const id = integer(req.params.id, { name: 'id' });
  const found = await query(`SELECT ${ORDER} FROM orders WHERE id = $1 AND user_id = $2`, [id, req.userId]);
  if (!found.rows.length) throw new HttpError(404, 'No such order');
  const items = await query(
    `SELECT product_id AS "productId", quantity, price_cents AS "priceCents" FROM order_items
     WHERE order_id = $1 ORDER BY product_id`,
    [id],
  );
  res.json({ ...found.rows[0], items: items.rows });
});

router.post('/orders/:id/payment', async (req, res) => {
  const id = integer(req.params.id, { name: 'id' });
  res.json(await pay(id, req.userId, req.body?.cardToken));
});

module.exports = router;
