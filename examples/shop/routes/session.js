'use strict';

const express = require('express');
const auth = require('../auth');
const { query } = require('../db');
const { HttpError } = require('../errors');

const router = express.Router();

router.post('/login', async (req, res) => {
  const { email, password } = req.body || {};
  if (typeof email !== 'string' || typeof password !== 'string') throw new HttpError(400, 'email and password, please');
  const found = await query('SELECT id, name, password_hash FROM users WHERE email = $1', [email.toLowerCase()]);
  const user = found.rows[0];
  if (!user || !(await auth.verifyPassword(password, user.password_hash))) {
    throw new HttpError(401, 'Wrong email or password');
  }
  res.json({ token: auth.issueToken(user), user: { id: user.id, name: user.name } });
});

router.get('/me', auth.requireUser, async (req, res) => {
  const found = await query('SELECT id, email, name FROM users WHERE id = $1', [req.userId]);
  if (!found.rows.length) throw new HttpError(401, 'No such user any more');
  res.json(found.rows[0]);
});

module.exports = router;
