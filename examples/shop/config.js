'use strict';

// Everything the environment decides, read once.

function required(name) {
  const value = process.env[name];
  if (!value) {
    console.error(`${name} is not set`);
    process.exit(2);
  }
  return value;
}

module.exports = {
  port: Number(process.env.PORT || 3000),
  host: process.env.HOST || '127.0.0.1',
  databaseUrl: required('DATABASE_URL'),
  jwtSecret: required('JWT_SECRET'),
  jwtLifetime: '12h',
  poolSize: Number(process.env.DATABASE_POOL_SIZE || 10),
  shutdownMs: 10_000,
};
