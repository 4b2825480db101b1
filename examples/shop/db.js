'use strict';

const { AsyncLocalStorage } = require('node:async_hooks');
const { Pool } = require('pg');
const config = require('./config');

const pool = new Pool({ connectionString: config.databaseUrl, max: config.poolSize });

// An idle connection that the server closed is replaced at the next query; without a listener it would end the process.
pool.on('error', (error) => console.error('idle database connection:', error.message));

// What a proxy in front says of the request: which one it is, and what its client has to see. Behind a pooler with
// replicas each statement tells it, in sqlcommenter's form. Anybody may send these headers, so they are taken only in a
// form that is harmless within a comment.
const requests = new AsyncLocalStorage();
const COMMENTED = [
  ['traceparent', 'traceparent', /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/],
  ['tenfold_position', 'tenfold-position', /^[0-9a-f.]{1,160}$/],
];

/** Express middleware: the statements of a request carry its comment. */
function follow(req, res, next) {
  const pairs = COMMENTED.filter(([, header, form]) => form.test(req.headers[header] || ''));
  const comment = pairs.map(([key, header]) => `${key}='${req.headers[header]}'`).join(',');
  requests.run(comment ? ` /*${comment}*/` : '', next);
}

const commented = (text) => text + (requests.getStore() || '');

const query = (text, values) => pool.query(commented(text), values);

/** Runs `work(client)` in a transaction: committed if it returns, rolled back if it throws. */
async function transaction(work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('BEGIN');
    const result = await work({ query: (text, values) => client.query(commented(text), values) });
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((rollbackError) => {
      broken = rollbackError;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

module.exports = { follow, query, transaction, close: () => pool.end() };
