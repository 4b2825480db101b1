// The shop with node-postgres alone: named statements, a pool of six, queries that queue up on one connection.
//
// Mechanism. Standard input has the moments of `shops/workload.jsonl`; each request below /api is answered by a function
// of `routes`, which returns what is told (with 200) or `[status, told]`. Answers are printed as JSON.
//
// Failure. A function that throws `{ status }` is told so; any other error is told as 500 with its text.
'use strict'
const crypto = require('node:crypto')
const { once } = require('node:events')
const pg = require('pg')

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 6 })
const CARD = 'p.id, p.name, p.price_cents AS price, p.rating::float AS rating, c.slug AS category'
const PRODUCTS = 'products p JOIN categories c ON c.id = p.category_id'
const BILL = 'id::int, status, total_cents AS total, created_at AS "createdAt", paid_at AS "paidAt"'
const SORTS = { rating: 'p.rating DESC, p.id', newest: 'p.created_at DESC, p.id', price: 'p.price_cents, p.id' }
const CART = `SELECT p.id AS "productId", p.name, p.price_cents AS price, i.quantity, s.available >= i.quantity AS available
  FROM cart_items i JOIN products p ON p.id = i.product_id JOIN stock s ON s.product_id = p.id
  WHERE i.user_id = $1 ORDER BY i.added_at, p.id`

// A statement's name follows from its text, so that each connection prepares it once.
const named = (text, values = []) => ({ name: crypto.createHash('md5').update(text).digest('hex'), text, values })
const rows = async (text, values, client = pool) => (await client.query(named(text, values))).rows

const refused = (status, why) => Object.assign(new Error(why), { status })

async function transaction(work, begin = 'BEGIN') {
  const client = await pool.connect()
  try {
    await client.query(begin)
    const told = await work((text, values) => rows(text, values, client))
    await client.query('COMMIT')
    return told
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
}

const cart = async (customer) => ({ items: await rows(CART, [customer]) })

// One connection, three questions before the first is answered.
const product = ({ numbers: [id] }) =>
  transaction(async (query) => {
    const [[found], reviews, related] = await Promise.all([
      query(`SELECT ${CARD}, p.description, p.attributes, s.available FROM ${PRODUCTS} JOIN stock s ON s.product_id = p.id WHERE p.id = $1`, [id]),
      query('SELECT author, stars, body, created_at FROM reviews WHERE product_id = $1 ORDER BY created_at DESC LIMIT 5', [id]),
      query(`SELECT ${CARD} FROM ${PRODUCTS} WHERE p.id <> $1 AND p.category_id = (SELECT category_id FROM products WHERE id = $1)
             ORDER BY p.rating DESC, p.id LIMIT 6`, [id]),
    ])
    if (!found) throw refused(404, 'No such product')
    return { ...found, reviews, related }
  }, 'BEGIN READ ONLY')

async function products({ query }) {
  const sort = SORTS[query.get('sort') || 'rating']
  const [page, perPage] = [Number(query.get('page') || 1), Number(query.get('per_page') || 24)]
  const where = 'WHERE $1::text IS NULL OR c.slug = $1'
  const [found, [{ total }]] = await Promise.all([
    rows(`SELECT ${CARD} FROM ${PRODUCTS} ${where} ORDER BY ${sort} LIMIT $2 OFFSET $3`, [query.get('category'), perPage, (page - 1) * perPage]),
    rows(`SELECT count(*)::int AS total FROM ${PRODUCTS} ${where}`, [query.get('category')]),
  ])
  return { total, products: found }
}

async function search({ query }) {
  if (!query.get('q')) throw refused(400, 'q is missing')
  return rows(`SELECT ${CARD} FROM ${PRODUCTS} WHERE p.search @@ websearch_to_tsquery('english', $1) ORDER BY p.rating DESC, p.id LIMIT 20`, [query.get('q')])
}

async function login({ body: { email, password } }) {
  const [user] = await rows('SELECT id, name, password_hash FROM users WHERE email = $1', [email])
  const [salt, key] = user.password_hash.split(':').map((part) => Buffer.from(part, 'base64'))
  if (!crypto.scryptSync(password, salt, key.length).equals(key)) throw refused(401, 'Wrong email or password')
  return { id: user.id, name: user.name }
}

async function put({ customer, numbers: [id], body }) {
  await rows(`INSERT INTO cart_items (user_id, product_id, quantity) VALUES ($1, $2, $3)
              ON CONFLICT (user_id, product_id) DO UPDATE SET quantity = excluded.quantity`, [customer, id, body.quantity || 1])
  return cart(customer)
}

async function remove({ customer, numbers: [id] }) {
  await rows('DELETE FROM cart_items WHERE user_id = $1 AND product_id = $2', [customer, id])
  return cart(customer)
}

const order = ({ customer, body }) =>
  transaction(async (query) => {
    const inCart = () => query('SELECT product_id AS "productId", quantity FROM cart_items WHERE user_id = $1', [customer])
    const items = body?.items ? body.items.map(({ productId, quantity = 1 }) => ({ productId, quantity })) : await inCart()
    if (!items.length) throw refused(400, 'The cart is empty')
    items.sort((left, right) => left.productId - right.productId)
    let total = 0
    for (const item of items) {
      const [taken] = await query(
        `UPDATE stock s SET available = available - $2 FROM products p
         WHERE s.product_id = $1 AND p.id = s.product_id AND s.available >= $2 RETURNING p.price_cents AS price`,
        [item.productId, item.quantity],
      )
      if (!taken) throw refused(409, `Product ${item.productId} is sold out`)
      item.price = taken.price
      total += taken.price * item.quantity
    }
    const [made] = await query(`INSERT INTO orders (user_id, total_cents) VALUES ($1, $2) RETURNING ${BILL}`, [customer, total])
    await query('INSERT INTO order_items SELECT $1, * FROM unnest($2::int[], $3::int[], $4::int[])', [
      made.id, ...['productId', 'quantity', 'price'].map((key) => items.map((item) => item[key])),
    ])
    await query('DELETE FROM cart_items WHERE user_id = $1 AND product_id = ANY ($2::int[])', [customer, items.map((item) => item.productId)])
    return [201, made]
  })

async function orderOf({ customer, numbers: [id] }) {
  const [found] = await rows(`SELECT ${BILL} FROM orders WHERE id = $1 AND user_id = $2`, [id, customer])
  if (!found) throw refused(404, 'No such order')
  return { ...found, items: await rows('SELECT product_id, quantity, price_cents FROM order_items WHERE order_id = $1 ORDER BY product_id', [id]) }
}

async function pay({ customer, numbers: [id], body }) {
  const claim = "UPDATE orders SET status = 'paying' WHERE id = $1 AND user_id = $2 AND status = 'pending' RETURNING id"
  if (!(await rows(claim, [id, customer])).length) throw refused(409, 'This order is not waiting for a payment')
  if (body.cardToken !== 'tok_declined') {
    return (await rows(`UPDATE orders SET status = 'paid', paid_at = now() WHERE id = $1 RETURNING ${BILL}`, [id]))[0]
  }
  await transaction(async (query) => {
    for (const item of await query('SELECT product_id, quantity FROM order_items WHERE order_id = $1 ORDER BY product_id', [id])) {
      await query('UPDATE stock SET available = available + $2 WHERE product_id = $1', [item.product_id, item.quantity])
    }
    await query("UPDATE orders SET status = 'cancelled' WHERE id = $1", [id])
  })
  return [402, { error: 'The card was declined' }]
}

const OWN = /^\/api\/(me|cart|orders)\b/
const routes = [
  ['GET', /^\/api\/categories$/, () => rows('SELECT slug, name FROM categories ORDER BY id')],
  ['GET', /^\/api\/products$/, products],
  ['GET', /^\/api\/products\/(\d+)$/, product],
  ['GET', /^\/api\/products\/(\d+)\/stock$/, async ({ numbers }) => (await rows('SELECT available FROM stock WHERE product_id = $1', numbers))[0]],
  ['GET', /^\/api\/search$/, search],
  ['POST', /^\/api\/login$/, login],
  ['GET', /^\/api\/me$/, async ({ customer }) => (await rows('SELECT id, email, name FROM users WHERE id = $1', [customer]))[0]],
  ['GET', /^\/api\/cart$/, ({ customer }) => cart(customer)],
  ['PUT', /^\/api\/cart\/items\/(\d+)$/, put],
  ['DELETE', /^\/api\/cart\/items\/(\d+)$/, remove],
  ['POST', /^\/api\/orders$/, order],
  ['GET', /^\/api\/orders$/, ({ customer }) => rows(`SELECT ${BILL} FROM orders WHERE user_id = $1 ORDER BY id DESC LIMIT 20`, [customer])],
  ['GET', /^\/api\/orders\/(\d+)$/, orderOf],
  ['POST', /^\/api\/orders\/(\d+)\/payment$/, pay],
]

/** `[status, told]`; null for a page, which is the real shop's. */
async function ask({ method, path, customer, body }) {
  const { pathname, searchParams: query } = new URL(path, 'http://shop')
  const [, form, act] = routes.find(([wanted, form]) => wanted === method && form.test(pathname)) || []
  if (!act) return null
  if (OWN.test(pathname) && !customer) return [401, {}]
  try {
    const told = await act({ customer, query, body, numbers: form.exec(pathname).slice(1).map(Number) })
    return Array.isArray(told) && typeof told[0] === 'number' ? told : [200, told]
  } catch (error) {
    return error.status ? [error.status, { error: error.message }] : [500, { error: String(error) }]
  }
}

async function main() {
  process.stdin.setEncoding('utf8')
  let text = ''
  process.stdin.on('data', (chunk) => (text += chunk))
  await once(process.stdin, 'end')
  const answers = []
  for (const moment of text.trim().split('\n')) answers.push(...(await Promise.all(JSON.parse(moment).map(ask))))
  await pool.end()
  process.stdout.write(JSON.stringify(answers))
}

main()
