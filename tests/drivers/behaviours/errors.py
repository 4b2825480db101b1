"""Errors and notices: every field of the server's messages, and what the connection can do after them."""

import psycopg

from .registry import behaviour, describe, rows, value

TABLES = """
CREATE TABLE parent (id int PRIMARY KEY, name text NOT NULL UNIQUE, n int CHECK (n > 0));
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY IMMEDIATE);
INSERT INTO parent VALUES (1, 'one', 1)
"""
FAILING = [
    "SELEC 1", "SELECT * FROM nowhere", "SELECT nothing FROM parent", "SELECT nofunction(1, 'x')", "SELECT 1/0",
    "SELECT 'x'::int", "INSERT INTO parent VALUES (1, 'again', 1)", "INSERT INTO parent VALUES (2, NULL, 1)",
    "INSERT INTO parent VALUES (2, 'two', -1)", "INSERT INTO child VALUES (1, 99)", "DELETE FROM no_schema.t",
    "SELECT '2024-13-01'::date", "SELECT 'a' || 1 + 'b'", "SELECT parent.id FROM parent GROUP BY name", "DROP TABLE parent",
    "SELECT (SELECT i FROM generate_series(1, 2) i)", "SELECT 300::int2 * 300::int2", "CREATE TABLE parent (a int)",
    "SELECT \"Id\" FROM parent", "SELECT 'unterminated", "COPY nowhere FROM STDIN", "SELECT $1", "VACUUM nowhere",
]


def complete(connection, notices):
    connection.add_notice_handler(lambda diag: notices.append([diag.severity, diag.sqlstate, diag.message_primary,
                                                               diag.message_detail, diag.message_hint, diag.context]))


@behaviour
def fields_in_the_simple_protocol(seat, see):
    connection = seat.psycopg()
    connection.execute(TABLES)
    for sql in FAILING:
        see.error(sql, lambda sql=sql: connection.execute(sql))
        see("after", value(connection, "SELECT 1"))


@behaviour
def fields_in_the_extended_protocol(seat, see):
    connection = seat.psycopg()
    connection.execute(TABLES)
    for sql in FAILING:
        see.error(sql, lambda sql=sql: connection.execute(sql, prepare=True))
        see("after", value(connection, "SELECT 1"))


@behaviour
def fields_through_psycopg2(seat, see):
    connection = seat.psycopg2()
    cursor = connection.cursor()
    cursor.execute(TABLES)
    connection.commit()
    for sql in FAILING:
        see.error(sql, lambda sql=sql: cursor.execute(sql))
        see("state", connection.get_transaction_status())
        connection.rollback()


@behaviour
def every_field_of_raise(seat, see):
    connection = seat.psycopg()
    connection.execute("""
        CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
          RAISE EXCEPTION 'it % failed', 7 USING ERRCODE = 'TF001', DETAIL = 'a detail', HINT = 'a hint',
            COLUMN = 'c', CONSTRAINT = 'k', DATATYPE = 'd', TABLE = 't', SCHEMA = 's';
        END $$""")
    see.error("raised", lambda: connection.execute("SELECT fail()"))
    see.error("prepared", lambda: connection.execute("SELECT fail()", prepare=True))


@behaviour
def context_through_functions(seat, see):
    connection = seat.psycopg()
    connection.execute("""
        CREATE FUNCTION inner_one(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1 / i; END';
        CREATE FUNCTION outer_one(i int) RETURNS int LANGUAGE sql AS 'SELECT inner_one(i) + 1';
        CREATE FUNCTION dynamic() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''SELECT nope''; END'""")
    see.error("division", lambda: connection.execute("SELECT outer_one(0)"))
    see.error("internal query", lambda: connection.execute("SELECT dynamic()"))


@behaviour
def notices_in_order(seat, see):
    connection = seat.psycopg()
    notices = []
    complete(connection, notices)
    connection.execute("""
        CREATE FUNCTION talk(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
          FOR i IN 1..n LOOP RAISE NOTICE 'number %', i USING DETAIL = 'd', HINT = 'h'; END LOOP;
          RAISE WARNING 'warned' USING ERRCODE = 'TF002'; RAISE INFO 'informed'; RETURN n; END $$""")
    see("value", value(connection, "SELECT talk(3)"))
    see("prepared", connection.execute("SELECT talk(2)", prepare=True).fetchone())
    see("notices", notices)
    notices.clear()
    connection.execute("DROP TABLE IF EXISTS never; CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE IF NOT EXISTS t (b int)")
    see("of DDL", notices)


@behaviour
def levels_of_client_min_messages(seat, see):
    connection = seat.psycopg()
    notices = []
    complete(connection, notices)
    for level in ("error", "warning", "notice", "log", "debug1"):
        connection.execute(f"SET client_min_messages = '{level}'")
        notices.clear()
        connection.execute("DO $$ BEGIN RAISE DEBUG 'd'; RAISE LOG 'l'; RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")
        see(level, [notice[:3] for notice in notices])


@behaviour
def notices_through_psycopg2(seat, see):
    connection = seat.psycopg2()
    connection.cursor().execute("DROP TABLE IF EXISTS never")
    see("notices", connection.notices)


@behaviour
def an_error_after_rows(seat, see):
    connection = seat.psycopg()
    got = []

    def stream():
        for row in connection.cursor().stream("SELECT 10 / (2000 - i) FROM generate_series(1, 3000) i"):
            got.append(row[0])

    see.error("error", stream)
    see("rows before", (len(got), sum(got)))
    see("after", value(connection, "SELECT 1"))


@behaviour
def a_failed_transaction(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int)")
    connection.commit()
    connection.execute("INSERT INTO t VALUES (1)")
    see.error("first", lambda: connection.execute("SELECT 1/0"))
    see("state", connection.info.transaction_status.name)
    see.error("then", lambda: connection.execute("SELECT 1"))
    see.error("prepared", lambda: connection.execute("SELECT 2", prepare=True))
    connection.rollback()
    see("rows", rows(connection, "SELECT * FROM t"))


@behaviour
def a_failed_begin_then_commit(seat, see):
    connection = seat.psycopg()
    connection.execute("BEGIN")
    see.error("error", lambda: connection.execute("SELECT 1/0"))
    see("tag of commit", connection.execute("COMMIT").statusmessage)
    see("state", connection.info.transaction_status.name)


@behaviour
def a_constraint_that_fails_at_commit(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute(TABLES)
    connection.commit()
    connection.execute("SET CONSTRAINTS ALL DEFERRED")
    connection.execute("INSERT INTO child VALUES (1, 99)")
    see.error("commit", connection.commit)
    see("state", connection.info.transaction_status.name)
    see("rows", rows(connection, "SELECT * FROM child"))


@behaviour
def serialization_failure(seat, see):
    setup = seat.psycopg()
    setup.execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 0), (2, 0)")
    first, second = seat.psycopg(autocommit=False), seat.psycopg(autocommit=False)
    for connection in (first, second):
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.execute("SELECT sum(b) FROM t")
    first.execute("UPDATE t SET b = 1 WHERE a = 1")
    second.execute("UPDATE t SET b = 1 WHERE a = 2")
    first.commit()
    see.error("second", second.commit)
    second.rollback()
    see("rows", rows(setup, "SELECT * FROM t ORDER BY a"))


@behaviour
def repeatable_read_conflict(seat, see):
    setup = seat.psycopg()
    setup.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    first = seat.psycopg(autocommit=False)
    first.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    first.execute("SELECT * FROM t")
    setup.execute("UPDATE t SET a = 2")
    see("its snapshot", rows(first, "SELECT * FROM t"))
    see.error("update", lambda: first.execute("UPDATE t SET a = 3"))


@behaviour
def deadlock(seat, see):
    import threading

    setup = seat.psycopg()
    setup.execute("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    first, second = seat.psycopg(autocommit=False), seat.psycopg(autocommit=False)
    # The one that waits longest checks; this makes it always the second.
    first.execute("SET LOCAL lock_timeout = '20s'")
    first.execute("UPDATE t SET a = a WHERE a = 1")
    second.execute("UPDATE t SET a = a WHERE a = 2")
    outcome = []

    def update(connection, key):
        try:
            connection.execute("UPDATE t SET a = a WHERE a = %s", [key])
            connection.commit()
        except psycopg.Error as error:
            outcome.append([type(error).__name__, error.sqlstate, error.diag.message_primary, error.diag.message_hint])

    other = threading.Thread(target=update, args=(first, 2))
    other.start()
    update(second, 1)
    other.join()
    see("one of them", outcome)


@behaviour
def locks_not_available(seat, see):
    holder, asker = seat.psycopg(autocommit=False), seat.psycopg()
    holder.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    holder.commit()
    holder.execute("SELECT * FROM t FOR UPDATE")
    see.error("nowait", lambda: asker.execute("SELECT * FROM t FOR UPDATE NOWAIT"))
    see("skip locked", rows(asker, "SELECT * FROM t FOR UPDATE SKIP LOCKED"))
    asker.execute("SET lock_timeout = '50ms'")
    see.error("lock_timeout", lambda: asker.execute("UPDATE t SET a = 2"))
    see("kept", value(asker, "SHOW lock_timeout"))


@behaviour
def a_trigger_that_refuses(seat, see):
    connection = seat.psycopg()
    connection.execute("""CREATE TABLE t (a int);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no %'', TG_OP; END';
        CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse()""")
    see.error("insert", lambda: connection.execute("INSERT INTO t VALUES (1)"))
    see("rows", rows(connection, "SELECT * FROM t"))


@behaviour
def a_write_where_only_reads_are_allowed(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int)")
    connection.commit()
    connection.read_only = True
    see.error("insert", lambda: connection.execute("INSERT INTO t VALUES (1)"))
    connection.rollback()
    see("read", rows(connection, "SELECT * FROM t"))
    connection.rollback()
    connection.read_only = None
    see("write again", connection.execute("INSERT INTO t VALUES (1)").statusmessage)
    connection.commit()


@behaviour
def an_error_in_a_string_of_statements(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int)")
    see.error("second fails", lambda: connection.execute("INSERT INTO t VALUES (1); SELECT 1/0; INSERT INTO t VALUES (2)"))
    see("none stays", rows(connection, "SELECT * FROM t"))
    see.error("with its own commit", lambda: connection.execute("INSERT INTO t VALUES (3); COMMIT; SELECT 1/0"))
    see("the first stays", rows(connection, "SELECT * FROM t"))
    see("state", connection.info.transaction_status.name)


@behaviour
def text_of_libpq(seat, see):
    connection = seat.psycopg()
    from psycopg import pq

    connection.pgconn.exec_(b"SET client_min_messages = warning")
    result = connection.pgconn.exec_(b"SELECT *\nFROM nowhere")
    see("text", result.error_message.decode())
    see("source", [result.error_field(pq.DiagnosticField.SOURCE_FILE), result.error_field(pq.DiagnosticField.SOURCE_LINE)])
    see("status", result.status)


@behaviour
def too_much_stack(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE FUNCTION deep(i int) RETURNS int LANGUAGE sql AS 'SELECT i'")
    connection.execute("CREATE OR REPLACE FUNCTION deep(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN deep(i + 1); END'")
    try:
        connection.execute("SELECT deep(0)")
    except psycopg.Error as error:
        told = describe(error)
        told.pop("context", None)
        see("error", told)
    see("after", value(connection, "SELECT 1"))
