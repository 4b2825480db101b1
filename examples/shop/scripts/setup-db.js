'use strict';

// Makes the tables, the seed and the indexes in the empty database that DATABASE_URL names.

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { Client } = require('pg');

const PASSWORD = 'open sesame';

function passwordHash() {
  const salt = crypto.randomBytes(16);
  return `${salt.toString('base64')}:${crypto.scryptSync(PASSWORD, salt, 32).toString('base64')}`;
}

async function main() {
  const read = (name) => fs.readFileSync(path.join(__dirname, '..', name), 'utf8');
  const client = new Client({ connectionString: process.env.DATABASE_URL });
  await client.connect();
  try {
    await client.query(read('schema.sql'));
    await client.query(read('seed.sql').replace('PASSWORD_HASH', passwordHash()));
    await client.query(read('indexes.sql'));
    // Statistics and visibility now, rather than whenever autovacuum comes by.
    await client.query('VACUUM ANALYZE');
  } finally {
    await client.end();
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
