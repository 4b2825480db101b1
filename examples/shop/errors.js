'use strict';

/** An error the client is told about. */
class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** A whole number within bounds from a path, query or body; `fallback` when absent. */
function integer(value, { name, min = 1, max = 2 ** 31 - 1, fallback }) {
  if (value === undefined && fallback !== undefined) return fallback;
  const number = /^\d{1,10}$/.test(String(value)) ? Number(value) : NaN;
  if (!(number >= min && number <= max)) throw new HttpError(400, `${name} must be a number from ${min} to ${max}`);
  return number;
}

function notFound(req, res, next) {
  next(new HttpError(404, 'Not found'));
}

// Express knows an error handler by its four parameters.
// eslint-disable-next-line no-unused-vars
function handler(error, req, res, next) {
  const status = error.status >= 400 && error.status < 500 ? error.status : 500;
  if (status === 500) console.error(`${req.method} ${req.originalUrl}:`, error);
  if (res.headersSent) return next(error);
  const message = status === 500 ? 'Something went wrong' : error.message;
  if (req.path.startsWith('/api/')) return res.status(status).json({ error: message });
  return res.status(status).render('error', { title: message, status });
}

module.exports = { HttpError, integer, notFound, handler };
