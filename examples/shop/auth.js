'use strict';

const crypto = require('node:crypto');
const { promisify } = require('node:util');
const jwt = require('jsonwebtoken');
const config = require('./config');
const { HttpError } = require('./errors');

const scrypt = promisify(crypto.scrypt);
const KEY_BYTES = 32;

async function hashPassword(password, salt = crypto.randomBytes(16)) {
  const key = await scrypt(password, salt, KEY_BYTES);
  return `${salt.toString('base64')}:${key.toString('base64')}`;
}

async function verifyPassword(password, stored) {
  const [salt, key] = stored.split(':').map((part) => Buffer.from(part, 'base64'));
  return crypto.timingSafeEqual(key, await scrypt(password, salt, KEY_BYTES));
}

function issueToken(user) {
  return jwt.sign({ name: user.name }, config.jwtSecret, { subject: String(user.id), expiresIn: config.jwtLifetime });
}

/** Middleware: sets `req.userId`, or answers 401. */
function requireUser(req, res, next) {
  const [scheme, token] = (req.get('authorization') || '').split(' ');
  if (scheme !== 'Bearer' || !token) return next(new HttpError(401, 'Log in first'));
  try {
    req.userId = Number(jwt.verify(token, config.jwtSecret, { algorithms: ['HS256'] }).sub);
    return next();
  } catch {
    return next(new HttpError(401, 'The session has expired'));
  }
}

module.exports = { hashPassword, verifyPassword, issueToken, requireUser };
