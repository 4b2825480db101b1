'use strict';

const app = require('./app');
const config = require('./config');
const db = require('./db');

const server = app.listen(config.port, config.host, (error) => {
  if (error) {
    console.error(`cannot listen on ${config.host}:${config.port}: ${error.message}`);
    process.exit(1);
  }
  console.log(`shop listening on http://${config.host}:${server.address().port}`);
});

// Stop accepting, finish what runs, then leave; after ten seconds, leave anyway.
function shutDown() {
  setTimeout(() => process.exit(1), config.shutdownMs).unref();
  server.close(async () => {
    await db.close();
    process.exit(0);
  });
  server.closeIdleConnections();
}

process.once('SIGTERM', shutDown);
process.once('SIGINT', shutDown);
