'use strict';

const express = require('express');
const catalogue = require('../catalogue');
const { HttpError, integer } = require('../errors');

const router = express.Router();

router.get('/categories', async (req, res) => {
  res.json({ categories: await catalogue.categories() });
});

router.get('/products', async (req, res) => {
  const { category, sort = 'rating' } = req.query;
  if (!Object.hasOwn(catalogue.SORTS, sort)) throw new HttpError(400, 'sort must be rating, newest or price');
  const page = integer(req.query.page, { name: 'page', max: 2000, fallback: 1 });
  const perPage = integer(req.query.per_page, { name: 'per_page', max: 100, fallback: 24 });
  res.json(await catalogue.list({ category: category && String(category), sort, page, perPage }));
});

router.get('/products/:id', async (req, res) => {
  const product = await catalogue.detail(integer(req.params.id, { name: 'id' }));
  if (!product) throw new HttpError(404, 'No such product');
  res.json(product);
});

router.get('/products/:id/stock', async (req, res) => {
  const id = integer(req.params.id, { name: 'id' });
  const stock = await catalogue.stock(id);
  if (!stock) throw new HttpError(404, 'No such product');
  res.json({ productId: id, available: stock.available });
});

router.get('/search', async (req, res) => {
  const text = String(req.query.q || '').trim().slice(0, 100);
  if (!text) throw new HttpError(400, 'q is missing');
  res.json({ query: text, products: await catalogue.search(text) });
});

module.exports = router;
