'use strict';

const path = require('node:path');
const express = require('express');
const db = require('./db');
const errors = require('./errors');

const app = express();
app.set('view engine', 'ejs');
app.set('views', path.join(__dirname, 'views'));
const euros = new Intl.NumberFormat('en-IE', { style: 'currency', currency: 'EUR' });
app.locals.money = (cents) => euros.format(cents / 100);

app.use(express.json());
app.get('/health', (req, res) => res.json({ status: 'ok' }));
app.use(db.follow);
app.use('/api', require('./routes/session'));
app.use('/api', require('./routes/products'));
app.use('/api', require('./routes/cart'));
app.use('/api', require('./routes/orders'));
app.use(require('./routes/pages'));
app.use(errors.notFound);
app.use(errors.handler);

module.exports = app;
