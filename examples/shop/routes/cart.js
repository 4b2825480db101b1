'use strict';

const express = require('express');
const { requireUser } = require('../auth');
const { query } = require('../db');
const { HttpError, integer } = require('../errors');

const router = express.Router();
router.use('/cart', requireUser);

async function cart(userId) {
  const items = await query(
    `SELECT p.id AS "productId", p.name, p.price_cents AS "priceCents", i.quantity, s.available >= i.quantity AS available
     FROM cart_items i JOIN products p ON p.id = i.product_id JOIN stock s ON s.product_id = p.id
     WHERE i.user_id = $1 ORDER BY i.added_at, p.id`,
    [userId],
  );
  const totalCents = items.rows.reduce((sum, item) => sum + item.priceCents * item.quantity, 0);
  return { items: items.rows, totalCents };
}

router.get('/cart', async (req, res) => {
  res.json(await cart(req.userId));
});

// Sets the quantity, so that a phone that repeats the request does no harm.
router.put('/cart/items/:productId', async (req, res) => {
  const productId = integer(req.params.productId, { name: 'productId' });
  const quantity = integer(req.body?.quantity, { name: 'quantity', max: 99, fallback: 1 });
  const added = await query(
    `INSERT INTO cart_items (user_id, product_id, quantity)
     SELECT $1, id, $3 FROM products WHERE id = $2
     ON CONFLICT (user_id, product_id) DO UPDATE SET quantity = excluded.quantity`,
    [req.userId, productId, quantity],
  );
  if (!added.rowCount) throw new HttpError(404, 'No such product');
  res.json(await cart(req.userId));
});

router.delete('/cart/items/:productId', async (req, res) => {
  const productId = integer(req.params.productId, { name: 'productId' });
  await query('DELETE FROM cart_items WHERE user_id = $1 AND product_id = $2', [req.userId, productId]);
  res.json(await cart(req.userId));
});

module.exports = router;
