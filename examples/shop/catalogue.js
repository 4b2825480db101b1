'use strict';

// What the shop knows about its products: the queries behind both the JSON API and the pages.

const { query } = require('./db');

const CARD = `
  p.id, p.name, p.price_cents AS "priceCents", p.currency, p.image_url AS "imageUrl", p.rating::float AS rating,
  c.slug AS category`;

const SORTS = {
  rating: 'p.rating DESC, p.id',
  newest: 'p.created_at DESC, p.id',
  price: 'p.price_cents, p.id',
};

async function categories() {
  return (await query('SELECT slug, name FROM categories ORDER BY id')).rows;
}

const inCategory = (category) => (category ? 'WHERE p.category_id = (SELECT id FROM categories WHERE slug = $1)' : '');

async function cards({ category, sort, limit, offset = 0 }) {
  const found = await query(
    `SELECT ${CARD} FROM products p JOIN categories c ON c.id = p.category_id ${inCategory(category)}
     ORDER BY ${SORTS[sort]} LIMIT ${limit} OFFSET ${offset}`,
    category ? [category] : [],
  );
  return found.rows;
}

async function count(category) {
  const text = `SELECT count(*)::int AS total FROM products p ${inCategory(category)}`;
  return (await query(text, category ? [category] : [])).rows[0].total;
}

async function list({ category, sort = 'rating', page = 1, perPage = 24 }) {
  const [products, total] = await Promise.all([
    cards({ category, sort, limit: perPage, offset: (page - 1) * perPage }),
    count(category),
  ]);
  return { products, page, perPage, total, pages: Math.ceil(total / perPage) };
}

async function search(text, limit = 20) {
  const found = await query(
    `SELECT ${CARD} FROM products p JOIN categories c ON c.id = p.category_id,
            websearch_to_tsquery('english', $1) AS wanted
     WHERE p.search @@ wanted
     ORDER BY ts_rank(p.search, wanted) DESC, p.rating DESC, p.id LIMIT $2`,
    [text, limit],
  );
  return found.rows;
}

/** A product with its latest reviews and a few like it; undefined if there is none. */
async function detail(id) {
  const found = await query(
    `SELECT ${CARD}, p.description, p.care, p.attributes, p.created_at AS "createdAt", p.category_id,
            c.name AS "categoryName", s.available
     FROM products p JOIN categories c ON c.id = p.category_id JOIN stock s ON s.product_id = p.id
     WHERE p.id = $1`,
    [id],
  );
  if (!found.rows.length) return undefined;
  const { category_id: categoryId, available, ...product } = found.rows[0];
  const [reviews, related] = await Promise.all([
    query(
      `SELECT author, stars, body, created_at AS "createdAt" FROM reviews
       WHERE product_id = $1 ORDER BY created_at DESC LIMIT 5`,
      [id],
    ),
    query(
      `SELECT ${CARD} FROM products p JOIN categories c ON c.id = p.category_id
       WHERE p.category_id = $1 AND p.id <> $2 ORDER BY p.rating DESC, p.id LIMIT 6`,
      [categoryId, id],
    ),
  ]);
  return { ...product, availability: availability(available), reviews: reviews.rows, related: related.rows };
}

async function stock(id) {
  const found = await query('SELECT available FROM stock WHERE product_id = $1', [id]);
  return found.rows[0];
}

function availability(available) {
  if (available === 0) return 'sold out';
  return available < 10 ? 'few left' : 'in stock';
}

module.exports = { categories, cards, list, search, detail, stock, SORTS };
