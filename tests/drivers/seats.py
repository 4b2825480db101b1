"""Seats: the places a driver may sit in: at PostgreSQL itself, at a pool by session, at one by transaction, at one
that sends reads to a replica as well.

Intuition. A behaviour must not know where it sits. It gets a `Seat`, which makes connection strings and direct
connections for looking on from outside, and is otherwise the same everywhere.

Mechanism. The server gets a database and three roles of our own: `driver`, whom all behaviours use, `overseer`, a
superuser, and `reader`, who can only be become. Each seat has a go-between; a pooled one has strangers too.

Failure. What a behaviour leaves behind that outlives its connection (locks, open transactions, tables) is found by
`Seat.tidy` and becomes part of what was observed.
"""

import contextlib
import time
from urllib.parse import urlsplit

import psycopg

from between_process import Between

DATABASE = "drivers"
PASSWORDS = {"driver": "driver-secret", "overseer": "overseer-secret"}
LEFT_WAIT_SECONDS_MAX = 5.0
FOLLOW_SECONDS_MAX = 10.0

ROLES = f"""
DROP ROLE IF EXISTS driver, overseer, reader;
CREATE ROLE reader;
CREATE ROLE driver LOGIN CREATEDB CREATEROLE REPLICATION PASSWORD '{PASSWORDS["driver"]}' IN ROLE reader;
CREATE ROLE overseer LOGIN SUPERUSER PASSWORD '{PASSWORDS["overseer"]}'
"""
SCHEMAS = """
DROP SCHEMA IF EXISTS public, elsewhere, other CASCADE;
CREATE SCHEMA public AUTHORIZATION driver;
CREATE SCHEMA elsewhere AUTHORIZATION driver;
CREATE TABLE elsewhere.whose (who text);
INSERT INTO elsewhere.whose VALUES ('strangers');
ALTER TABLE elsewhere.whose OWNER TO driver;
GRANT ALL ON SCHEMA public TO PUBLIC;
SELECT lo_unlink(oid) FROM pg_largeobject_metadata
"""
# What may be left in this database by a client that has gone; ours and the strangers' own idle connections are none.
LEFT = """
SELECT 'advisory lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND objid <> 424242
UNION ALL
SELECT 'transaction ' || state FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND (state LIKE 'idle in transaction%%' OR state = 'active') AND application_name <> 'stranger'
UNION ALL
SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
"""


class Server:
    """PostgreSQL itself, with the database and roles that the behaviours need."""

    def __init__(self, url, replica=None):
        """`replica`: the URL of a streaming replica, if there is one."""
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.replica = (urlsplit(replica).hostname, urlsplit(replica).port) if replica else None
        with psycopg.connect(url, autocommit=True) as maker:
            maker.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            maker.execute(ROLES)
            maker.execute(f"CREATE DATABASE {DATABASE} OWNER driver")

    def dsn(self, user="overseer"):
        return dsn_of(self.host, self.port, user)

    def replica_dsn(self, user="overseer"):
        return dsn_of(*self.replica, user)


def dsn_of(host, port, user, database=DATABASE, **more):
    """A libpq connection string."""
    words = {"host": host, "port": port, "user": user, "password": PASSWORDS[user], "dbname": database}
    return psycopg.conninfo.make_conninfo(**(words | {"sslmode": "disable", "connect_timeout": 10} | more))


class Seat:
    """One place to sit in."""

    def __init__(self, name, server, address=None, in_turns=False, splits=False):
        """`address` (host, port) of the pooler; None: the server's own. `splits`: reads go to the server's replica."""
        self.name = name
        self.pooled = address is not None
        self.server = server
        stranger = dsn_of(*address, "driver") if address else None
        self.between = Between(address or (server.host, server.port), stranger, in_turns)
        self.admin = psycopg.connect(server.dsn(), autocommit=True, application_name="looking on")
        self.replica = psycopg.connect(server.replica_dsn(), autocommit=True) if splits else None
        self._opened = []

    def dsn(self, user="driver", **more):
        """A libpq connection string for this seat."""
        return dsn_of("127.0.0.1", self.between.port, user, **more)

    def url(self, scheme="postgresql", user="driver", query=""):
        """A URL for this seat."""
        return f"{scheme}://{user}:{PASSWORDS[user]}@127.0.0.1:{self.between.port}/{DATABASE}{query}"

    def environment(self, user="driver"):
        """PGHOST and so on, for programs."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.between.port),
            "PGUSER": user,
            "PGPASSWORD": PASSWORDS[user],
            "PGDATABASE": DATABASE,
            "PGSSLMODE": "disable",
            "DATABASE_URL": self.url(user=user),
            "DIRECT_URL": f"postgresql://overseer:{PASSWORDS['overseer']}@{self.server.host}:{self.server.port}/{DATABASE}",
        }

    def keep(self, connection):
        """Closes it at the end of the behaviour, whatever happens."""
        self._opened.append(connection)
        return connection

    def psycopg(self, user="driver", autocommit=True, **more):
        """A psycopg 3 connection, closed with the behaviour."""
        return self.keep(psycopg.connect(self.dsn(user, **more), autocommit=autocommit))

    def psycopg2(self, user="driver", autocommit=False, **more):
        """A psycopg2 connection, closed with the behaviour."""
        import psycopg2

        connection = self.keep(psycopg2.connect(self.dsn(user, **more)))
        connection.autocommit = autocommit
        return connection

    def fresh(self):
        """A clean database before a behaviour, and in a pooled seat fresh dirt of a stranger."""
        self.admin.execute("SET lock_timeout = '3s'")
        try:
            self.admin.execute(SCHEMAS)
        except psycopg.errors.LockNotAvailable:
            self._throw_out()
            self.admin.execute(SCHEMAS)
        self._follow()
        if self.pooled:
            self.between.ask("soil")

    def _follow(self):
        """What is written past the pooler is no write of its clients: it has to be on the replica before they ask."""
        if self.replica is None:
            return
        written = self.admin.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
        limit = time.monotonic() + FOLLOW_SECONDS_MAX
        replayed = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        while not self.replica.execute(replayed, [written]).fetchone()[0] and time.monotonic() < limit:
            time.sleep(0.002)

    def tidy(self):
        """Closes what was opened; returns what the server still holds for nobody after a while."""
        for connection in self._opened:
            with contextlib.suppress(Exception):
                connection.close()
        self._opened.clear()
        limit = time.monotonic() + LEFT_WAIT_SECONDS_MAX
        while (left := self._left()) and time.monotonic() < limit:
            time.sleep(0.02)
        if left:
            self._throw_out()
        return left

    def _left(self):
        return sorted(row[0] for row in self.admin.execute(LEFT))

    def _throw_out(self):
        self.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        for (gid,) in self.admin.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
            self.admin.execute(f"ROLLBACK PREPARED '{gid}'")

    def close(self):
        self.between.close()
        self.admin.close()
        if self.replica:
            self.replica.close()
