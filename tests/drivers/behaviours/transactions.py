"""Transactions: what begins, commits, rolls back, and what the driver believes about it."""

import psycopg

from .registry import behaviour, rows, value


def state(connection):
    return connection.info.transaction_status.name


@behaviour
def commit_and_rollback(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int)")
    connection.commit()
    connection.execute("INSERT INTO t VALUES (1)")
    connection.rollback()
    connection.execute("INSERT INTO t VALUES (2)")
    connection.commit()
    see("rows", rows(connection, "SELECT * FROM t"))
    see("state", state(connection))


@behaviour
def state_after_each_statement(seat, see):
    connection = seat.psycopg()
    for sql in ("BEGIN", "SELECT 1", "SAVEPOINT a", "ROLLBACK TO a", "RELEASE a", "COMMIT", "BEGIN", "ROLLBACK", "BEGIN", "COMMIT"):
        see(sql, (connection.execute(sql).statusmessage, state(connection)))
    connection.execute("BEGIN")
    see.error("error", lambda: connection.execute("SELECT nope"))
    see("failed", state(connection))
    see("rollback", (connection.execute("ROLLBACK").statusmessage, state(connection)))


@behaviour
def warnings_of_odd_commands(seat, see):
    connection = seat.psycopg()
    notices = []
    connection.add_notice_handler(lambda diag: notices.append((diag.severity, diag.sqlstate, diag.message_primary)))
    for sql in ("COMMIT", "ROLLBACK", "BEGIN", "BEGIN", "COMMIT", "SET LOCAL work_mem = '1MB'", "ABORT", "END", "SAVEPOINT x",
                "RELEASE x", "ROLLBACK TO x", "LOCK TABLE pg_class", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SET TRANSACTION READ ONLY",
                "DECLARE c CURSOR FOR SELECT 1", "SET CONSTRAINTS ALL DEFERRED", "START TRANSACTION", "START TRANSACTION", "ROLLBACK"):
        see.error(sql, lambda sql=sql: connection.execute(sql))
        see("state", state(connection))
    see("warnings", notices)


@behaviour
def savepoints(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
    for n in range(3):
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (%s)", [n])
    try:
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (10)")
            connection.execute("INSERT INTO t VALUES (1)")
    except psycopg.Error as error:
        see("error", error.sqlstate)
    see("state", state(connection))
    connection.execute("SAVEPOINT a; INSERT INTO t VALUES (20); SAVEPOINT a; INSERT INTO t VALUES (21); ROLLBACK TO a; RELEASE a")
    connection.commit()
    see("rows", rows(connection, "SELECT a FROM t ORDER BY a"))


@behaviour
def isolation_levels(seat, see):
    for level in psycopg.IsolationLevel:
        connection = seat.psycopg(autocommit=False)
        connection.isolation_level, connection.read_only, connection.deferrable = level, True, True
        for _ in range(2):
            see(level.name, (value(connection, "SHOW transaction_isolation"), value(connection, "SHOW transaction_read_only"),
                             value(connection, "SHOW transaction_deferrable")))
            connection.commit()


@behaviour
def set_transaction(seat, see):
    connection = seat.psycopg()
    connection.execute("BEGIN")
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    see("within", (value(connection, "SHOW transaction_isolation"), value(connection, "SHOW transaction_read_only")))
    see.error("too late", lambda: connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
    connection.execute("ROLLBACK")
    see("after", value(connection, "SHOW transaction_isolation"))


@behaviour
def session_characteristics(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")
    connection.commit()
    for _ in range(2):
        see("next", (value(connection, "SHOW transaction_isolation"), value(connection, "SHOW transaction_read_only")))
        see.error("write", lambda: connection.execute("CREATE TABLE t (a int)"))
        connection.rollback()
    connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
    connection.commit()
    see("write", connection.execute("CREATE TABLE t (a int)").statusmessage)


@behaviour
def a_snapshot_stays(seat, see):
    writer, reader = seat.psycopg(), seat.psycopg(autocommit=False)
    writer.execute("CREATE TABLE t (a int)")
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    for n in range(3):
        see("reader", value(reader, "SELECT count(*) FROM t"))
        writer.execute("INSERT INTO t VALUES (%s)", [n])
    reader.rollback()
    see("after", value(reader, "SELECT count(*) FROM t"))


@behaviour
def time_stands_still_from_begin(seat, see):
    """`now()` is the time of the first statement after BEGIN's message reached the server."""
    connection = seat.psycopg()
    connection.execute("BEGIN")
    first = value(connection, "SELECT now()")
    value(connection, "SELECT pg_sleep(0.01)")
    see("the same", (value(connection, "SELECT now()") == first, value(connection, "SELECT clock_timestamp() > now()")))
    see("statement", value(connection, "SELECT statement_timestamp() > transaction_timestamp()"))
    connection.execute("COMMIT")
    see("moved", value(connection, "SELECT now()") > first)


@behaviour
def begin_long_before_the_first_statement(seat, see):
    """Between BEGIN and the first statement time passes: `now()` is still the time of BEGIN."""
    import time

    connection = seat.psycopg()
    connection.execute("BEGIN")
    time.sleep(0.3)
    see("now is BEGIN's time", value(connection, "SELECT clock_timestamp() - now() > '0.25s'"))


@behaviour
def begin_sees_what_was_committed_after_it(seat, see):
    """The snapshot is taken by the first statement, not by BEGIN, also in REPEATABLE READ."""
    connection, writer = seat.psycopg(), seat.psycopg()
    writer.execute("CREATE TABLE t (a int)")
    for begin in ("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"):
        connection.execute(begin)
        writer.execute("INSERT INTO t VALUES (1)")
        see(begin, value(connection, "SELECT count(*) FROM t"))
        connection.execute("COMMIT")


@behaviour
def chained_transactions(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int)")
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    connection.execute("INSERT INTO t VALUES (1)")
    see("chain", (connection.execute("COMMIT AND CHAIN").statusmessage, state(connection)))
    see("isolation", value(connection, "SHOW transaction_isolation"))
    connection.execute("INSERT INTO t VALUES (2)")
    see("rollback", (connection.execute("ROLLBACK AND CHAIN").statusmessage, state(connection)))
    connection.execute("COMMIT")
    see("rows", rows(connection, "SELECT * FROM t"))


@behaviour
def two_phase_commit(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int)")
    connection.commit()
    for gid, end in (("one", connection.tpc_commit), ("two", connection.tpc_rollback)):
        connection.tpc_begin(connection.xid(1, gid, "b"))
        connection.execute("INSERT INTO t VALUES (1)")
        connection.tpc_prepare()
        see("prepared", state(connection))
        end()
    see("rows", rows(connection, "SELECT * FROM t"))
    connection.rollback()
    connection.tpc_begin("later")
    connection.execute("INSERT INTO t VALUES (2)")
    connection.tpc_prepare()
    other = seat.psycopg()
    see("recovered", [str(xid) for xid in other.tpc_recover()])
    other.tpc_commit("later")
    see("rows", rows(other, "SELECT * FROM t ORDER BY a"))


@behaviour
def two_phase_through_psycopg2(seat, see):
    connection = seat.psycopg2()
    connection.cursor().execute("CREATE TABLE t (a int)")
    connection.commit()
    connection.tpc_begin(connection.xid(42, "gid", "branch"))
    connection.cursor().execute("INSERT INTO t VALUES (5)")
    connection.tpc_prepare()
    connection.reset()
    other = seat.psycopg2()
    see("recovered", [str(xid) for xid in other.tpc_recover()])
    other.reset()
    other.tpc_commit(other.xid(42, "gid", "branch"))
    cursor = other.cursor()
    cursor.execute("SELECT * FROM t")
    see("rows", cursor.fetchall())


@behaviour
def commits_within_procedures(seat, see):
    connection = seat.psycopg()
    connection.execute("""CREATE TABLE t (a int);
        CREATE PROCEDURE steps(n int) LANGUAGE plpgsql AS $$ BEGIN
          FOR i IN 1..n LOOP INSERT INTO t VALUES (i); IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF; END LOOP; END $$""")
    see("call", connection.execute("CALL steps(6)").statusmessage)
    see("rows", rows(connection, "SELECT * FROM t"))
    see("do", connection.execute("DO $$ BEGIN INSERT INTO t VALUES (9); COMMIT; INSERT INTO t VALUES (10); ROLLBACK; END $$").statusmessage)
    connection.execute("BEGIN")
    see.error("within a transaction", lambda: connection.execute("CALL steps(2)"))
    connection.execute("ROLLBACK")
    see("rows", rows(connection, "SELECT * FROM t"))


@behaviour
def statements_that_want_no_transaction(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int)")
    for sql in ("VACUUM t", "CREATE INDEX CONCURRENTLY i ON t (a)", "REINDEX TABLE CONCURRENTLY t", "DROP INDEX CONCURRENTLY i"):
        see.error(sql, lambda sql=sql: connection.execute(sql))
    connection.execute("BEGIN")
    see.error("within", lambda: connection.execute("VACUUM t"))


@behaviour
def closed_in_the_middle(seat, see):
    watcher = seat.psycopg()
    watcher.execute("CREATE TABLE t (a int)")
    leaver = seat.psycopg(autocommit=False)
    leaver.execute("INSERT INTO t VALUES (1)")
    leaver.execute("LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE")
    leaver.close()
    watcher.execute("SET lock_timeout = '5s'")
    see("its locks are gone", watcher.execute("INSERT INTO t VALUES (2)").statusmessage)
    see("rows", rows(watcher, "SELECT * FROM t"))


@behaviour
def cut_off_in_the_middle(seat, see):
    import socket
    import struct

    watcher = seat.psycopg()
    watcher.execute("CREATE TABLE t (a int)")
    leaver = seat.psycopg(autocommit=False)
    leaver.execute("INSERT INTO t VALUES (1)")
    leaver.execute("LOCK TABLE t")
    end = socket.socket(fileno=leaver.fileno())
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.shutdown(socket.SHUT_RDWR)
    end.detach()
    watcher.execute("SET lock_timeout = '5s'")
    see("its locks are gone", watcher.execute("INSERT INTO t VALUES (2)").statusmessage)
    see("rows", rows(watcher, "SELECT * FROM t"))


@behaviour
def idle_for_too_long(seat, see):
    import time

    connection = seat.psycopg()
    connection.execute("SET idle_in_transaction_session_timeout = '100ms'")
    connection.execute("BEGIN")
    connection.execute("SELECT 1")
    time.sleep(0.4)
    see.error("ended", lambda: connection.execute("SELECT 2"))
    see("closed", connection.closed)


@behaviour
def thousand_small_transactions(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (0)")
    connection.commit()
    for n in range(300):
        connection.execute("UPDATE t SET a = a + 1")
        connection.rollback() if n % 3 == 0 else connection.commit()
    see("sum", rows(connection, "SELECT a FROM t"))


@behaviour
def an_exported_snapshot(seat, see):
    holder, user, writer = seat.psycopg(), seat.psycopg(), seat.psycopg()
    writer.execute("CREATE TABLE t (a int)")
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    name = value(holder, "SELECT pg_export_snapshot()")
    writer.execute("INSERT INTO t VALUES (1)")
    user.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    user.execute(f"SET TRANSACTION SNAPSHOT '{name}'")
    see("as the holder", value(user, "SELECT count(*) FROM t"))


@behaviour
def transaction_ids(seat, see):
    connection = seat.psycopg()
    connection.execute("BEGIN")
    first = value(connection, "SELECT txid_current()")
    see("one transaction", value(connection, "SELECT txid_current()") == first)
    connection.execute("COMMIT")
    see("status", value(connection, "SELECT txid_status(%s)", [first]))
    see("another", value(connection, "SELECT txid_current()") != first)
    see("none for reads", value(connection, "SELECT txid_current_if_assigned()"))


@behaviour
def psycopg2_sessions(seat, see):
    connection = seat.psycopg2()
    connection.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=False)
    cursor = connection.cursor()
    for _ in range(2):
        cursor.execute("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")
        see("within", cursor.fetchone())
        connection.commit()
    connection.set_session(isolation_level="DEFAULT", readonly=False, autocommit=True)
    cursor.execute("SHOW transaction_isolation")
    see("default", cursor.fetchone())
    see("state", connection.get_transaction_status())
    with_context = seat.psycopg2()
    with with_context, with_context.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a int)")
    try:
        with with_context, with_context.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (1)")
            raise KeyError("out")
    except KeyError:
        pass
    with with_context.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        see("rolled back", cursor.fetchone())
