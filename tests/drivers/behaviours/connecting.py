"""Connecting, cancelling and leaving: what happens around a session rather than in it."""

import threading
import time

import psycopg

from .registry import behaviour, describe, rows, value


@behaviour
def refused_logins(seat, see):
    see.error("wrong password", lambda: psycopg.connect(seat.dsn(), password="wrong"))
    see.error("no password", lambda: psycopg.connect(seat.dsn(), password=""))
    see.error("unknown user", lambda: psycopg.connect(seat.dsn(), user="nobody"))
    see.error("unknown database", lambda: psycopg.connect(seat.dsn(), dbname="nowhere"))
    see.error("through psycopg2", lambda: __import__("psycopg2").connect(seat.dsn(), password="wrong"))
    see("good ones work", value(seat.psycopg(), "SELECT 1"))


@behaviour
def what_libpq_tells(seat, see):
    connection = seat.psycopg()
    info = connection.info
    see("server", (info.server_version, info.encoding, info.user, info.dbname))
    raw = connection.pgconn
    see("protocol", (raw.protocol_version, raw.backend_pid != 0, raw.used_password, raw.needs_password, raw.ssl_in_use))


@behaviour
def many_at_once(seat, see):
    connections = [seat.psycopg() for _ in range(30)]
    see("sum", sum(value(connection, "SELECT %s::int", [n]) for n, connection in enumerate(connections)))
    for connection in connections:
        connection.close()


@behaviour
def many_in_turn(seat, see):
    total = 0
    for n in range(40):
        with psycopg.connect(seat.dsn()) as connection:
            total += value(connection, "SELECT %s::int", [n])
    see("sum", total)


@behaviour
def a_pool_of_the_drivers_own(seat, see):
    import queue

    connections = queue.Queue()
    for _ in range(4):
        connections.put(seat.psycopg(autocommit=False))
    seat.psycopg().execute("CREATE TABLE t (a int)")

    def work(n):
        connection = connections.get()
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (%s)", [n])
        connections.put(connection)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    see("rows", rows(seat.psycopg(), "SELECT count(*), sum(a) FROM t"))


@behaviour
def threads_on_one_connection(seat, see):
    connection = seat.psycopg()
    got = []
    threads = [threading.Thread(target=lambda n=n: got.append(value(connection, "SELECT %s::int", [n]))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    see("sum", (len(got), sum(got)))


def sleeper(connection, outcome, sql="SELECT pg_sleep(20)"):
    """Runs `sql` in a thread and keeps the error it ends with."""

    def run():
        try:
            connection.execute(sql)
            outcome.append("no error")
        except psycopg.Error as error:
            outcome.append(describe(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_until_active(seat, part):
    """Until a statement with this text runs at the server."""
    limit = time.monotonic() + 5
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()"
    while not value(seat.admin, sql, [f"%{part}%"]) and time.monotonic() < limit:
        time.sleep(0.01)


@behaviour
def cancelled_from_another_thread(seat, see):
    connection = seat.psycopg()
    for cancel in (connection.cancel, connection.cancel_safe):
        outcome = []
        thread = sleeper(connection, outcome)
        wait_until_active(seat, "pg_sleep(20)")
        cancel()
        thread.join()
        see("outcome", outcome)
        see("after", value(connection, "SELECT 1"))


@behaviour
def cancelled_in_a_transaction(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int)")
    outcome = []
    thread = sleeper(connection, outcome)
    wait_until_active(seat, "pg_sleep(20)")
    connection.cancel()
    thread.join()
    see("outcome", outcome)
    see("state", connection.info.transaction_status.name)
    connection.rollback()
    see.error("rolled back", lambda: connection.execute("SELECT * FROM t"))


@behaviour
def cancelled_when_idle(seat, see):
    connection = seat.psycopg()
    value(connection, "SELECT 1")
    connection.cancel_safe()
    see("nothing happens", [value(connection, "SELECT %s::int", [n]) for n in range(5)])


@behaviour
def cancelled_while_waiting_for_a_lock(seat, see):
    holder, waiter = seat.psycopg(autocommit=False), seat.psycopg()
    holder.execute("CREATE TABLE t (a int)")
    holder.commit()
    holder.execute("LOCK TABLE t")
    outcome = []
    thread = sleeper(waiter, outcome, "SELECT count(*) FROM t")
    wait_until_active(seat, "count(*) FROM t")
    waiter.cancel_safe()
    thread.join()
    see("outcome", outcome)
    holder.rollback()
    see("after", value(waiter, "SELECT count(*) FROM t"))


@behaviour
def cancelled_through_psycopg2(seat, see):
    connection = seat.psycopg2()
    outcome = []

    def run():
        try:
            connection.cursor().execute("SELECT pg_sleep(20)")
        except Exception as error:  # noqa: BLE001
            outcome.append(describe(error))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until_active(seat, "pg_sleep(20)")
    connection.cancel()
    thread.join()
    see("outcome", outcome)
    connection.rollback()


@behaviour
def cancelled_copy(seat, see):
    connection = seat.psycopg()
    outcome = []

    def run():
        try:
            with connection.cursor().copy("COPY (SELECT pg_sleep(0.01) FROM generate_series(1, 5000)) TO STDOUT") as copy:
                for _ in copy:
                    pass
        except psycopg.Error as error:
            outcome.append(describe(error))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until_active(seat, "COPY (SELECT pg_sleep")
    connection.cancel_safe()
    thread.join()
    see("outcome", outcome)
    see("after", value(connection, "SELECT 1"))


@behaviour
def interrupted_by_the_keyboard(seat, see):
    """What psycopg does at Ctrl-C, and at an abandoned generator: cancel and go on."""
    connection = seat.psycopg()
    generator = connection.cursor().stream("SELECT i, pg_sleep(0.001) FROM generate_series(1, 100000) i")
    see("first", next(generator)[0])
    generator.close()
    see("after", value(connection, "SELECT 1"))


@behaviour
def wants_a_primary(seat, see):
    connection = seat.psycopg(target_session_attrs="read-write")
    see("read-write", value(connection, "SELECT 1"))
    see("primary", value(seat.psycopg(target_session_attrs="primary"), "SELECT 2"))
    see.error("standby", lambda: seat.psycopg(target_session_attrs="standby"))


@behaviour
def pings(seat, see):
    from psycopg import pq

    see("accepts", pq.Ping(pq.PGconn.ping(seat.dsn().encode())).name)


@behaviour
def connected_anew(seat, see):
    connection = seat.psycopg()
    connection.execute("SET TimeZone = 'Asia/Tokyo'; CREATE TEMP TABLE t (a int); PREPARE p AS SELECT 1")
    connection.pgconn.reset()
    for sql in ("SELECT * FROM t", "EXECUTE p"):
        see.error(sql, lambda sql=sql: connection.execute(sql))
    see("time zone", value(connection, "SHOW TimeZone") != "Asia/Tokyo")


@behaviour
def reset_by_psycopg2(seat, see):
    connection = seat.psycopg2(autocommit=True)
    cursor = connection.cursor()
    cursor.execute("SET work_mem = '3MB'")
    connection.reset()
    cursor.execute("SHOW work_mem")
    see("work_mem", cursor.fetchone())


@behaviour
def replication_connections(seat, see):
    import psycopg2
    from psycopg2.extras import LogicalReplicationConnection

    connection = seat.keep(psycopg2.connect(seat.dsn(), connection_factory=LogicalReplicationConnection))
    cursor = connection.cursor()
    cursor.execute("IDENTIFY_SYSTEM")
    system = cursor.fetchone()
    see("system", (len(system), system[3]))
    cursor.execute("SHOW work_mem")
    see("show", cursor.fetchone())
    cursor.execute("SELECT 1")
    see("select", cursor.fetchone())


@behaviour
def logical_decoding(seat, see):
    import psycopg2
    from psycopg2.extras import LogicalReplicationConnection

    writer = seat.psycopg()
    writer.execute("CREATE TABLE t (a int)")
    connection = psycopg2.connect(seat.dsn(), connection_factory=LogicalReplicationConnection)
    cursor = connection.cursor()
    cursor.execute("CREATE_REPLICATION_SLOT drivers TEMPORARY LOGICAL test_decoding")
    cursor.start_replication("drivers", options={"include-xids": "0"})
    writer.execute("INSERT INTO t VALUES (7)")
    got = []
    limit = time.monotonic() + 5
    while len(got) < 3 and time.monotonic() < limit:
        message = cursor.read_message()
        if message is None:
            time.sleep(0.01)
            continue
        got.append(message.payload)
        message.cursor.send_feedback(flush_lsn=message.data_start)
    see("changes", got)
    connection.close()


@behaviour
def half_a_message_then_gone(seat, see):
    """A client that leaves within a message harms nobody."""
    connection = seat.psycopg()
    end = __import__("socket").socket(fileno=__import__("os").dup(connection.fileno()))
    end.sendall(b"Q\x00\x00\x10\x00SELECT")
    end.shutdown(2)
    end.close()
    see("others", value(seat.psycopg(), "SELECT 1"))


@behaviour
def bytes_that_are_no_message(seat, see):
    import os
    import socket

    connection = seat.psycopg()
    end = socket.socket(fileno=os.dup(connection.fileno()))
    end.sendall(b"?\x00\x00\x00\x04")
    end.close()
    see.error("refused", lambda: connection.execute("SELECT 1"))
    see("others", value(seat.psycopg(), "SELECT 1"))


@behaviour
def fast_path_calls(seat, see):
    connection = seat.psycopg2()
    big = connection.lobject(0, "wb")
    see("written", big.write(b"x" * 100000))
    see("at", big.tell())
    connection.rollback()


@behaviour
def created_databases(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE DATABASE drivers_made")
    try:
        with psycopg.connect(seat.dsn(dbname="drivers_made")) as other:
            see("there", value(other, "SELECT current_database()"))
    finally:
        seat.admin.execute("DROP DATABASE drivers_made WITH (FORCE)")
    see.error("dropped", lambda: psycopg.connect(seat.dsn(dbname="drivers_made")).execute("SELECT 1"))
