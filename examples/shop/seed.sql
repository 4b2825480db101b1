-- Catalogue and customers for development and load tests. Everything follows from the ids, so every run of this file
-- makes the same shop: 24,000 products (the last 100 are the limited drop: 50 pieces each), 48,000 reviews,
-- 300 customers customer0@example.com … customer299@example.com, all with the password "open sesame".

INSERT INTO categories (id, slug, name)
SELECT n, slug, initcap(replace(slug, '-', ' '))
FROM unnest(ARRAY[
    'jackets', 'dresses', 'shirts', 'jeans', 'sneakers', 'boots', 'sandals', 'bags', 'belts', 'hats', 'scarves',
    'sweaters', 'skirts', 'shorts', 'socks', 'swimwear', 'sportswear', 'watches', 'sunglasses', 'jewellery',
    'rainwear', 'nightwear', 'kids', 'limited-drop'
]) WITH ORDINALITY AS listed (slug, n);

INSERT INTO products (id, category_id, name, description, care, price_cents, image_url, attributes, rating, created_at)
SELECT
    id,
    CASE WHEN id > 23900 THEN 24 ELSE 1 + id * 7 % 23 END,
    colours[1 + id * 5 % 12] || ' ' || materials[1 + id * 3 % 10] || ' ' || things[1 + id * 7 % 23] || ' No. ' || id,
    'A ' || moods[1 + id * 11 % 8] || ' piece in ' || lower(colours[1 + id * 5 % 12]) || ' '
        || lower(materials[1 + id * 3 % 10]) || ', made in ' || places[1 + id * 13 % 7]
        || '. Cut for every day and kept for years.',
    'Wash it cold, dry it flat, mend it when it tears. The model is 1.78 m and wears size M. '
        || 'Free returns within thirty days; see the size guide before ordering two.',
    990 + (id * 7919 % 240) * 50,
    'https://images.example.com/products/' || id || '.jpg',
    jsonb_build_object(
        'colour', colours[1 + id * 5 % 12],
        'material', materials[1 + id * 3 % 10],
        'sizes', to_jsonb(ARRAY['XS', 'S', 'M', 'L', 'XL']),
        'madeIn', places[1 + id * 13 % 7]
    ),
    3 + (id * 31 % 21) / 10.0,
    timestamptz '2025-01-01' + id * interval '17 minutes'
FROM generate_series(1, 24000) AS id,
    (SELECT
        ARRAY['Black', 'White', 'Navy', 'Olive', 'Sand', 'Rust', 'Sky', 'Rose', 'Grey', 'Plum', 'Mint', 'Ochre']
            AS colours,
        ARRAY['Cotton', 'Linen', 'Wool', 'Denim', 'Leather', 'Silk', 'Canvas', 'Corduroy', 'Fleece', 'Hemp']
            AS materials,
        ARRAY['Jacket', 'Dress', 'Shirt', 'Jeans', 'Sneaker', 'Boot', 'Sandal', 'Bag', 'Belt', 'Hat', 'Scarf',
            'Sweater', 'Skirt', 'Shorts', 'Socks', 'Swimsuit', 'Tracksuit', 'Watch', 'Sunglasses', 'Necklace',
            'Raincoat', 'Pyjamas', 'Onesie'] AS things,
        ARRAY['relaxed', 'sharp', 'timeless', 'playful', 'quiet', 'bold', 'light', 'sturdy'] AS moods,
        ARRAY['Portugal', 'Italy', 'Japan', 'Peru', 'Vietnam', 'Turkey', 'Scotland'] AS places
    ) AS words;

INSERT INTO stock (product_id, available)
SELECT id, CASE WHEN category_id = 24 THEN 50 ELSE 400 + id * 37 % 600 END FROM products;

INSERT INTO reviews (product_id, author, stars, body, created_at)
SELECT
    id,
    (ARRAY['Ada', 'Grace', 'Linus', 'Mira', 'Tomás', 'Yuki', 'Noor', 'Ola'])[1 + (id + n * 3) % 8],
    3 + (id * n) % 3,
    (ARRAY[
        'Fits as described, would buy again.',
        'Lovely colour, a little long in the sleeves.',
        'Arrived in two days. Feels like it will last.',
        'Smaller than expected; the exchange was easy.',
        'My favourite of the season.'
    ])[1 + (id + n * 7) % 5],
    timestamptz '2025-06-01' + (id + n * 24000) * interval '3 minutes'
FROM generate_series(1, 24000) AS id, generate_series(1, 2) AS n;

INSERT INTO users (id, email, name, password_hash)
SELECT n, 'customer' || n || '@example.com', 'Customer ' || n, 'PASSWORD_HASH'
FROM generate_series(0, 299) AS n;
SELECT setval(pg_get_serial_sequence('users', 'id'), 300, false);
