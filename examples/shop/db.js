'use strict';

const { Pool } = require('pg');
const config = require('./config');

const pool = new Pool({ connectionString: config.databaseUrl, max: config.poolSize });

// An idle connection that the server closed is replaced at the next query; without a listener it would end the process.
pool.on('error', (error) => console.error('idle database connection:', error.message));

const query = (text, values) => pool.query(text, values);

/** Runs `work(client)` in a transaction: committed if it returns, rolled back if it throws. */
async function transaction(work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('BEGIN');
    const result = await work(client);
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

module.exports = { query, transaction, close: () => pool.end() };
