-- After the seed, since building an index at once is several times faster than growing it row by row.

CREATE INDEX products_by_category ON products (category_id, rating DESC, id);
CREATE INDEX products_by_rating ON products (rating DESC, id);
CREATE INDEX products_by_age ON products (created_at DESC, id);
CREATE INDEX products_by_price ON products (price_cents, id);
CREATE INDEX products_search ON products USING gin (search);
CREATE INDEX reviews_by_product ON reviews (product_id, created_at DESC);
CREATE INDEX orders_by_user ON orders (user_id, id DESC);
