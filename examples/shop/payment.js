'use strict';

// Stands in for a card processor: 150 to 400 ms away, as they are, and it declines a card now and then if told to.
// The only artificial wait in the shop.

const crypto = require('node:crypto');
const { setTimeout: wait } = require('node:timers/promises');

const FASTEST_MS = 150;
const SLOWEST_MS = 400;

/** Resolves to `{ approved, reference }`. The card token `tok_declined` is declined, as in providers' test modes. */
async function charge({ orderId, amountCents, cardToken }) {
  await wait(FASTEST_MS + Math.random() * (SLOWEST_MS - FASTEST_MS));
  if (cardToken === 'tok_declined') return { approved: false };
  return { approved: true, reference: `pay_${orderId}_${amountCents}_${crypto.randomBytes(6).toString('hex')}` };
}

module.exports = { charge };
