"""Strangers: other clients of the same pool, with settings of their own, who get in between.

Intuition. What a pooler forgets to clean or to bring along shows only if somebody else used the connection meanwhile.

Mechanism. Two strangers hold open transactions in turns. At each `stir`, the one that is free opens a transaction,
which takes the connection that was given back last, and the other ends its own: so the client's next transaction runs
on another connection than its last. `soil` is a visitor that leaves every kind of session state behind and goes.

Failure. A stranger that is thrown out (restarts, terminated backends) connects again at the next stir.
"""

import contextlib
import os
import socket
import threading

import psycopg

SETTINGS = (
    "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601';"
    "SET bytea_output = 'escape'; SET extra_float_digits = -5; SET statement_timeout = '59s';"
    "SET lock_timeout = '50min'; SET search_path = elsewhere; SET application_name = 'stranger';"
    "SET default_transaction_isolation = 'repeatable read'; SET app.tenant = 'stranger'; SET work_mem = '7MB'"
)
DIRT = (
    "PREPARE stranger AS SELECT 'stranger'; LISTEN stranger; CREATE TEMP TABLE stranger_temp (x int);"
    "SELECT pg_try_advisory_lock(424242); SELECT set_config('app.tenant', 'soiled', false);"
    "SELECT set_config('TimeZone', 'Asia/Tokyo', false)"
)


STRANGER_SECONDS_MAX = 5.0


def within_time(connection, sql):
    """Executes `sql`; a pooler that does not answer gets the connection cut, and the caller an error."""
    end = socket.socket(fileno=os.dup(connection.fileno()))
    watch = threading.Timer(STRANGER_SECONDS_MAX, lambda: end.shutdown(socket.SHUT_RDWR))
    watch.start()
    try:
        connection.execute(sql)
    finally:
        watch.cancel()
        end.close()


class Strangers:
    """The strangers of one pooled seat; `dsn` leads to the pooler itself, not to the go-between."""

    def __init__(self, dsn, in_turns):
        self.dsn = dsn
        self.in_turns = in_turns
        self._lock = threading.Lock()
        self._pair = [None, None]
        self._turn = 0

    def stir(self):
        if not self.in_turns:
            return
        with self._lock:
            newcomer, leaver = self._turn, 1 - self._turn
            self._turn = leaver
            self._try(newcomer, "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT 1")
            self._try(leaver, "SELECT 1; COMMIT")

    def _try(self, index, sql):
        for _ in range(2):
            with contextlib.suppress(psycopg.Error):
                if self._pair[index] is None:
                    self._pair[index] = psycopg.connect(self.dsn, autocommit=True)
                    within_time(self._pair[index], SETTINGS)
                within_time(self._pair[index], sql)
                return
            self._drop(index)

    def soil(self):
        """A visitor leaves dirt. Refused by nobody: a pooler that cannot do it has nothing to clean either."""
        with contextlib.suppress(psycopg.Error), psycopg.connect(self.dsn, autocommit=True) as visitor:
            within_time(visitor, SETTINGS)
            within_time(visitor, DIRT)

    def _drop(self, index):
        if self._pair[index] is not None:
            self._pair[index].close()
            self._pair[index] = None

    def leave(self):
        """Ends both: for behaviours that need the pool to be empty, and at the end."""
        with self._lock:
            self._drop(0)
            self._drop(1)
