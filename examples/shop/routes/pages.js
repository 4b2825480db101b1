'use strict';

const express = require('express');
const catalogue = require('../catalogue');
const { HttpError, integer } = require('../errors');

const router = express.Router();

router.get('/', async (req, res) => {
  const [categories, best, newest] = await Promise.all([
    catalogue.categories(),
    catalogue.cards({ sort: 'rating', limit: 12 }),
    catalogue.cards({ sort: 'newest', limit: 12 }),
  ]);
  res.render('home', { title: 'Shop', categories, best, newest });
});

router.get('/categories/:slug', async (req, res) => {
  const page = integer(req.query.page, { name: 'page', max: 2000, fallback: 1 });
  const categories = await catalogue.categories();
  const category = categories.find(({ slug }) => slug === req.params.slug);
  if (!category) throw new HttpError(404, 'No such category');
  const found = await catalogue.list({ category: category.slug, page });
  res.render('category', { title: category.name, categories, category, ...found });
});

router.get('/products/:id', async (req, res) => {
  const [product, categories] = await Promise.all([
    catalogue.detail(integer(req.params.id, { name: 'id' })),
    catalogue.categories(),
  ]);
  if (!product) throw new HttpError(404, 'No such product');
  res.render('product', { title: product.name, categories, product });
});

module.exports = router;
