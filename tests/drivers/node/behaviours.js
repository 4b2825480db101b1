// node-postgres: each behaviour is a function; the one named on the command line tells its steps as JSON, [[label, value], …].
//
// Failure. A behaviour that throws tells the error's fields; a rejected promise nobody waits for ends the program.
'use strict'
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const pg = require('pg')
const Cursor = require('pg-cursor')
const QueryStream = require('pg-query-stream')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

const connectionString = process.env.DATABASE_URL
const FIELDS = ['severity', 'code', 'message', 'detail', 'hint', 'position', 'where', 'schema', 'table', 'column', 'constraint', 'routine']

const told = (error) => Object.fromEntries(FIELDS.filter((field) => error[field] !== undefined).map((field) => [field, error[field]]))
const seen = (value) => JSON.parse(JSON.stringify(value ?? null, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)))

async function fails(act) {
  try {
    return { 'no error': seen(await act()) }
  } catch (error) {
    return told(error)
  }
}

async function within(act, options = {}) {
  const client = new pg.Client({ connectionString, ...options })
  client.on('error', () => {})
  await client.connect()
  try {
    return await act(client)
  } finally {
    await client.end()
  }
}

const rows = async (client, text, values) => (await client.query(text, values)).rows

const behaviours = {
  values: (see) =>
    within(async (client) => {
      const values = [1, 'text', true, null, new Date(0), Buffer.from('00ff', 'hex'), { a: [1] }, [1, 2, null], ['a', 'b"c'], 1.5]
      const types = ['int', 'text', 'bool', 'int', 'timestamptz', 'bytea', 'jsonb', 'int[]', 'text[]', 'float8']
      for (const [i, value] of values.entries()) see(types[i], await rows(client, `SELECT $1::${types[i]} AS v`, [value]))
      see('numeric and bigint', await rows(client, 'SELECT 1.50::numeric AS n, 9223372036854775807 AS b, count(*) FROM pg_class WHERE false'))
      const result = await client.query({ text: 'SELECT 1 AS a, 2 AS a', rowMode: 'array' })
      see('rows as arrays', [result.rows, result.command, result.rowCount, result.fields.map((f) => [f.name, f.dataTypeID])])
    }),

  named: (see) =>
    within(async (client) => {
      for (let n = 0; n < 5; n++) see(n, await rows(client, { name: 'mine', text: 'SELECT $1::int + 1 AS v', values: [n] }))
      for (let n = 0; n < 3; n++) see(`other ${n}`, await rows(client, { name: 'other', text: 'SELECT $1::text AS v', values: [`${n}`] }))
      see('same name, other text', await fails(() => client.query({ name: 'mine', text: 'SELECT 2' })))
      await client.query('CREATE TABLE node_named (a int)')
      await client.query({ name: 'star', text: 'SELECT * FROM node_named' })
      await client.query('ALTER TABLE node_named ADD COLUMN b int')
      see('after a change', await fails(async () => (await client.query({ name: 'star', text: 'SELECT * FROM node_named' })).fields.length))
    }),

  errors: (see) =>
    within(async (client) => {
      await client.query('CREATE TABLE node_errors (a int PRIMARY KEY, b int NOT NULL CHECK (b > 0)); INSERT INTO node_errors VALUES (1, 1)')
      for (const sql of ['SELEC 1', 'SELECT 1/0', 'INSERT INTO node_errors VALUES (1, 1)', 'INSERT INTO node_errors VALUES (2, NULL)',
        'INSERT INTO node_errors VALUES (2, 0)', 'SELECT * FROM nowhere', "SELECT 'x'::int"]) {
        see(sql, await fails(() => client.query(sql)))
        see(`${sql} (extended)`, await fails(() => client.query(`${sql} -- $1`, [])))
      }
      see('after', await rows(client, 'SELECT 1 AS v'))
    }),

  notices: (see) =>
    within(async (client) => {
      const got = []
      client.on('notice', (notice) => got.push(told(notice)))
      await client.query("DO $$ BEGIN RAISE NOTICE 'n' USING HINT = 'h'; RAISE WARNING 'w'; END $$")
      see('got', got)
    }),

  statements: (see) =>
    within(async (client) => {
      const results = await client.query("SELECT 1 AS a; CREATE TABLE node_many (a int); INSERT INTO node_many VALUES (1), (2); SELECT 'x' AS b")
      see('several', results.map((result) => [result.command, result.rowCount, result.rows]))
      see('empty', (await client.query('')).command)
      see('queued', await Promise.all([1, 2, 3].map((n) => rows(client, 'SELECT $1::int AS v', [n]))))
      see('queued with an error', await Promise.all([fails(() => rows(client, 'SELECT 1 AS v')), fails(() => rows(client, 'SELECT nope')),
        fails(() => rows(client, 'SELECT 3 AS v'))]))
    }),

  transactions: (see) =>
    within(async (client) => {
      await client.query('CREATE TABLE node_tx (a int)')
      for (const [n, end] of [[1, 'ROLLBACK'], [2, 'COMMIT']]) {
        await client.query('BEGIN')
        await client.query('INSERT INTO node_tx VALUES ($1)', [n])
        await client.query('SAVEPOINT s')
        see('error', await fails(() => client.query('SELECT 1/0')))
        see('failed', await fails(() => client.query('SELECT 1')))
        await client.query('ROLLBACK TO s')
        await client.query(end)
      }
      see('rows', await rows(client, 'SELECT * FROM node_tx'))
    }),

  cursors: (see) =>
    within(async (client) => {
      const cursor = client.query(new Cursor('SELECT generate_series(1, $1::int) AS v', [1000]))
      see('first', await cursor.read(3))
      see('then', (await cursor.read(500)).length)
      await cursor.close()
      let sum = 0
      for await (const row of client.query(new QueryStream('SELECT generate_series(1, 5000) AS v', [], { batchSize: 70 }))) sum += row.v
      see('streamed', sum)
      const failing = client.query(new Cursor('SELECT 10 / (5 - i) AS v FROM generate_series(1, 10) i'))
      see('rows before the error', (await failing.read(4)).length)
      see('error', await fails(() => failing.read(10)))
      see('after', await rows(client, 'SELECT 1 AS v'))
    }),

  copies: (see) =>
    within(async (client) => {
      await client.query('CREATE TABLE node_copy (a int, b text)')
      const lines = Array.from({ length: 5000 }, (_, i) => `${i}\t${'x'.repeat(i % 60)}\n`)
      await pipeline(Readable.from(lines), client.query(copyFrom('COPY node_copy FROM STDIN')))
      see('in', await rows(client, 'SELECT count(*)::int AS c, sum(length(b))::int AS s FROM node_copy'))
      let bytes = 0
      for await (const chunk of client.query(copyTo('COPY node_copy TO STDOUT'))) bytes += chunk.length
      see('out', bytes)
      see('bad', await fails(() => pipeline(Readable.from(['x\ty\n']), client.query(copyFrom('COPY node_copy FROM STDIN')))))
      see('after', await rows(client, 'SELECT 1 AS v'))
    }),

  notifications: (see) =>
    within((listener) =>
      within(async (sender) => {
        const got = []
        let arrived
        const next = () => new Promise((resolve) => (arrived = resolve))
        listener.on('notification', (n) => {
          got.push([n.channel, n.payload])
          arrived?.()
        })
        await listener.query('LISTEN node')
        for (const payload of ['one', 'two']) {
          const came = next()
          await sender.query('SELECT pg_notify($1, $2)', ['node', payload])
          await came
        }
        see('got', got)
      }),
    ),

  settings: (see) =>
    within(
      async (client) => {
        see('at login', await rows(client, "SELECT current_setting('application_name') AS a, current_setting('statement_timeout') AS t, current_setting('work_mem') AS w"))
        see('timeout', await fails(() => client.query('SELECT pg_sleep(5)')))
        await client.query("SET TimeZone = 'Asia/Tokyo'")
        see('kept', await rows(client, "SELECT current_setting('TimeZone') AS z, '2024-01-01 00:00+00'::timestamptz AS t"))
        see('kept', await rows(client, "SELECT current_setting('TimeZone') AS z"))
      },
      { application_name: 'node', statement_timeout: 300, options: '-c work_mem=3MB' },
    ),

  session: (see) =>
    within(async (client) => {
      await client.query('CREATE TEMP TABLE node_temp (a int)')
      for (let n = 0; n < 3; n++) await client.query('INSERT INTO node_temp VALUES ($1)', [n])
      see('temporary', await rows(client, 'SELECT count(*)::int AS c FROM node_temp'))
      await client.query('SELECT pg_advisory_lock(77)')
      see('locked', await within((other) => rows(other, 'SELECT pg_try_advisory_lock(77) AS v')))
      see('unlocked', await rows(client, 'SELECT pg_advisory_unlock(77) AS v'))
    }),

  pools: async (see) => {
    const pool = new pg.Pool({ connectionString, max: 6 })
    pool.on('error', () => {})
    const sums = await Promise.all(Array.from({ length: 100 }, (_, n) => pool.query('SELECT $1::int AS v', [n])))
    see('sum', sums.reduce((total, result) => total + result.rows[0].v, 0))
    const named = await Promise.all(Array.from({ length: 100 }, (_, n) => pool.query({ name: `s${n % 9}`, text: `SELECT $1::int + ${n % 9} AS v`, values: [n] })))
    see('named', named.reduce((total, result) => total + result.rows[0].v, 0))
    await pool.end()
  },

  refused: async (see) => {
    see('password', await fails(() => within(() => null, { password: 'wrong', connectionString: connectionString.replace(/:[^:@/]+@/, ':wrong@') })))
    see('database', await fails(() => within((client) => client.query('SELECT 1'), { connectionString: connectionString.replace(/[^/]+$/, 'nowhere') })))
  },
}

async function main(name) {
  const steps = []
  const see = (label, value) => steps.push([label, seen(value)])
  try {
    await behaviours[name](see)
  } catch (error) {
    see('raised', told(error))
  }
  console.log(JSON.stringify(steps))
}

if (process.argv[2]) main(process.argv[2])
else console.log(JSON.stringify(Object.keys(behaviours)))
