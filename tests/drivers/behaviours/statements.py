"""Prepared statements and pipelines: by protocol and by SQL, prepared by hand and by the drivers themselves."""

import psycopg
from psycopg import pq

from .registry import behaviour, describe, rows, value

READY = pq.TransactionStatus


def told(result):
    """A libpq result: its status, tag, first value or SQLSTATE."""
    if result is None:
        return None
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    first = result.get_value(0, 0) if result.ntuples and result.nfields else None
    return [pq.ExecStatus(result.status).name, (result.command_status or b"").decode(), first, state and state.decode()]


@behaviour
def prepared_by_request(seat, see):
    connection = seat.psycopg()
    for n in range(6):
        see(n, connection.execute("SELECT %s::int + 1", [n], prepare=True).fetchone())
    for n in range(3):
        see("another", connection.execute("SELECT %s::text", [str(n)], prepare=True).fetchone())


@behaviour
def prepared_by_itself(seat, see):
    connection = seat.psycopg()
    connection.prepare_threshold = 2
    connection.execute("CREATE TABLE t (a int, b text)")
    for n in range(8):
        connection.execute("INSERT INTO t VALUES (%s, %s)", [n, f"row {n}"])
    for n in range(8):
        see(n, connection.execute("SELECT b FROM t WHERE a = %s", [n]).fetchone())


@behaviour
def prepared_within_transactions(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.prepare_threshold = 0
    for n in range(5):
        see(n, connection.execute("SELECT %s::int * 2, now() = statement_timestamp()", [n]).fetchone()[0])
        connection.commit() if n % 2 else connection.rollback()


@behaviour
def more_statements_than_the_driver_keeps(seat, see):
    connection = seat.psycopg()
    connection.prepare_threshold, connection.prepared_max = 0, 3
    for n in range(12):
        see(n, value(connection, f"SELECT %s::int + {n % 5}", [n]))


@behaviour
def many_statements(seat, see):
    connection = seat.psycopg()
    connection.prepare_threshold, connection.prepared_max = 0, 1000
    for turn in range(2):
        see(turn, sum(value(connection, f"SELECT %s::int + {n}", [n]) for n in range(300)))


@behaviour
def a_name_taken_twice(seat, see):
    connection = seat.psycopg().pgconn
    see("first", told(connection.prepare(b"mine", b"SELECT 1")))
    see("again", told(connection.prepare(b"mine", b"SELECT 2")))
    see("the same text again", told(connection.prepare(b"mine", b"SELECT 1")))
    see("runs", told(connection.exec_prepared(b"mine", [])))
    see("unnamed", [told(connection.prepare(b"", b"SELECT 3")), told(connection.prepare(b"", b"SELECT 4"))])
    see("unnamed runs", told(connection.exec_prepared(b"", [])))


@behaviour
def names_never_prepared(seat, see):
    connection = seat.psycopg().pgconn
    see("execute", told(connection.exec_prepared(b"never", [])))
    see("describe", told(connection.describe_prepared(b"never")))
    see("portal", told(connection.describe_portal(b"never")))
    see("after", told(connection.exec_(b"SELECT 1")))


@behaviour
def wrong_number_of_parameters(seat, see):
    connection = seat.psycopg().pgconn
    connection.prepare(b"two", b"SELECT $1::int + $2::int")
    see("too few", told(connection.exec_prepared(b"two", [b"1"])))
    see("too many", told(connection.exec_prepared(b"two", [b"1", b"2", b"3"])))
    see("a bad value", told(connection.exec_prepared(b"two", [b"1", b"x"])))
    see("right", told(connection.exec_prepared(b"two", [b"1", b"2"])))
    error = connection.exec_prepared(b"two", [b"1"])
    see("message", error.error_field(pq.DiagnosticField.MESSAGE_PRIMARY).replace(b"tenfold_", b""))


@behaviour
def described(seat, see):
    connection = seat.psycopg().pgconn
    connection.exec_(b"CREATE TABLE t (a int, b text)")
    connection.prepare(b"s", b"SELECT b, a + $2::int FROM t WHERE a = $1")
    result = connection.describe_prepared(b"s")
    see("parameters", [result.param_type(i) for i in range(result.nparams)])
    see("columns", [(result.fname(i), result.ftype(i)) for i in range(result.nfields)])
    connection.prepare(b"none", b"INSERT INTO t VALUES ($1, $2)")
    result = connection.describe_prepared(b"none")
    see("no columns", (result.nparams, result.nfields))


@behaviour
def a_statement_that_fails_to_prepare(seat, see):
    connection = seat.psycopg().pgconn
    see("fails", told(connection.prepare(b"s", b"SELECT * FROM nowhere")))
    see("the name is free", told(connection.exec_prepared(b"s", [])))
    see("prepared", told(connection.prepare(b"s", b"SELECT 5")))
    see("runs", told(connection.exec_prepared(b"s", [])))


@behaviour
def types_given_and_left_open(seat, see):
    connection = seat.psycopg().pgconn
    connection.prepare(b"open", b"SELECT $1 || 'x'")
    connection.prepare(b"given", b"SELECT $1 + 1", [20])
    connection.prepare(b"other", b"SELECT $1 + 1", [701])
    see("runs", [told(connection.exec_prepared(name, [b"7"])) for name in (b"open", b"given", b"other")])
    see("types", [connection.describe_prepared(name).ftype(0) for name in (b"open", b"given", b"other")])


@behaviour
def the_same_text_under_two_search_paths(seat, see):
    setup = seat.psycopg()
    setup.execute("CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 'other' AS w; CREATE TABLE t AS SELECT 'public' AS w")
    first, second = seat.psycopg(), seat.psycopg(options="-c search_path=other")
    for connection in (first, second, first, second):
        see("whose", connection.execute("SELECT w FROM t", prepare=True).fetchone())
    first.execute("SET search_path = other")
    see("after a change", first.execute("SELECT w FROM t", prepare=True).fetchone())
    second.execute("SET search_path = public")
    see("the other way", second.execute("SELECT w FROM t", prepare=True).fetchone())


@behaviour
def the_same_text_under_two_time_zones(seat, see):
    first, second = seat.psycopg(), seat.psycopg(options="-c TimeZone=Asia/Tokyo")
    for connection in (first, second, first, second):
        see("noon", connection.execute("SELECT '2024-01-01 12:00+00'::timestamptz::text", prepare=True).fetchone())
    first.execute("SET TimeZone = 'America/Lima'")
    see("moved", first.execute("SELECT '2024-01-01 12:00+00'::timestamptz::text", prepare=True).fetchone())


@behaviour
def a_table_changed_under_a_prepared_statement(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    for _ in range(3):
        see("before", connection.execute("SELECT * FROM t", prepare=True).fetchone())
    connection.execute("ALTER TABLE t ADD COLUMN b int DEFAULT 2")
    see.error("after", lambda: connection.execute("SELECT * FROM t", prepare=True).fetchone())
    see.error("once more", lambda: connection.execute("SELECT * FROM t", prepare=True).fetchone())


@behaviour
def a_table_changed_within_a_transaction(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    see("before", connection.execute("SELECT * FROM t", prepare=True).fetchone())
    connection.execute("ALTER TABLE t ADD COLUMN b int DEFAULT 2")
    see.error("after", lambda: connection.execute("SELECT * FROM t", prepare=True).fetchone())
    see("state", connection.info.transaction_status.name)


@behaviour
def a_table_made_anew(seat, see):
    connection = seat.psycopg()
    for turn in range(3):
        connection.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (a int); INSERT INTO t VALUES ({turn})")
        see(turn, connection.execute("SELECT a FROM t", prepare=True).fetchone())


@behaviour
def deallocate_all_then_on(seat, see):
    connection = seat.psycopg()
    connection.prepare_threshold = 0
    see("first", value(connection, "SELECT %s::int", [1]))
    connection.execute("DEALLOCATE ALL")
    see("then", value(connection, "SELECT %s::int", [2]))
    raw = connection.pgconn
    see("prepared", told(raw.prepare(b"s", b"SELECT 1")))
    raw.exec_(b"DEALLOCATE ALL")
    see("gone", told(raw.exec_prepared(b"s", [])))
    see("free", told(raw.prepare(b"s", b"SELECT 2")))


@behaviour
def discard_all_then_on(seat, see):
    connection = seat.psycopg()
    raw = connection.pgconn
    raw.prepare(b"s", b"SELECT 1")
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    see("tag", connection.execute("DISCARD ALL").statusmessage)
    see("gone", told(raw.exec_prepared(b"s", [])))
    see("time zone", value(connection, "SHOW TimeZone") != "Asia/Tokyo")
    see("free", told(raw.prepare(b"s", b"SELECT 2")))
    see("runs", told(raw.exec_prepared(b"s", [])))


@behaviour
def prepare_by_sql(seat, see):
    connection = seat.psycopg()
    connection.execute("PREPARE plan (int) AS SELECT $1 * 2")
    for n in range(3):
        see(n, value(connection, f"EXECUTE plan({n})"))
    see.error("again", lambda: connection.execute("PREPARE plan AS SELECT 1"))
    see("parameter types", rows(connection, "SELECT name, parameter_types::text FROM pg_prepared_statements WHERE from_sql"))
    connection.execute("DEALLOCATE plan")
    see.error("gone", lambda: connection.execute("EXECUTE plan(1)"))
    see.error("deallocate again", lambda: connection.execute("DEALLOCATE plan"))


@behaviour
def prepare_by_sql_in_a_failed_transaction(seat, see):
    connection = seat.psycopg()
    connection.execute("BEGIN; PREPARE kept AS SELECT 'kept'; ROLLBACK")
    see("kept", value(connection, "EXECUTE kept"))
    see("kept", value(connection, "EXECUTE kept"))


@behaviour
def prepare_by_sql_within_a_function(seat, see):
    connection = seat.psycopg()
    connection.execute("DO $$ BEGIN EXECUTE 'PREPARE hidden AS SELECT 11'; END $$")
    see("runs", value(connection, "EXECUTE hidden"))
    see("runs", value(connection, "EXECUTE hidden"))


@behaviour
def one_name_space_for_both(seat, see):
    connection = seat.psycopg()
    raw = connection.pgconn
    connection.execute("PREPARE by_sql AS SELECT 'sql'")
    see("bind to SQL's", told(raw.exec_prepared(b"by_sql", [])))
    see("taken", told(raw.prepare(b"by_sql", b"SELECT 1")))
    raw.prepare(b"by_protocol", b"SELECT 'protocol'")
    see.error("execute protocol's", lambda: value(connection, "EXECUTE by_protocol"))
    see.error("taken", lambda: connection.execute("PREPARE by_protocol AS SELECT 1"))
    see.error("deallocate protocol's", lambda: connection.execute("DEALLOCATE by_protocol"))
    see("gone", told(raw.exec_prepared(b"by_protocol", [])))


@behaviour
def what_the_view_lists(seat, see):
    connection = seat.psycopg()
    connection.pgconn.prepare(b"by_protocol", b"SELECT $1::int")
    connection.execute("PREPARE by_sql (text) AS SELECT $1")
    see("all", rows(connection, "SELECT name, statement, from_sql, parameter_types::text FROM pg_prepared_statements ORDER BY 1"))


@behaviour
def two_clients_with_one_name(seat, see):
    first, second = seat.psycopg().pgconn, seat.psycopg().pgconn
    first.prepare(b"s", b"SELECT 'first'")
    second.prepare(b"s", b"SELECT 'second'")
    see("each its own", [told(connection.exec_prepared(b"s", [])) for connection in (first, second, first, second)])


@behaviour
def closed_by_protocol(seat, see):
    raw = seat.psycopg().pgconn
    raw.prepare(b"s", b"SELECT 1")
    see("close", told(raw.close_prepared(b"s")))
    see("gone", told(raw.exec_prepared(b"s", [])))
    see("close again", told(raw.close_prepared(b"s")))
    see("close a portal", told(raw.close_portal(b"never")))


@behaviour
def very_long_statements_and_names(seat, see):
    raw = seat.psycopg().pgconn
    for size in (8000, 16384, 40000, 300000):
        name = b"%d" % size + b"n" * (size // 2)
        see(size, told(raw.prepare(name, b"SELECT length($1) /* " + b"c" * size + b" */")))
        see("runs", told(raw.exec_prepared(name, [b"p" * size])))


@behaviour
def executemany(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO t VALUES (%s, %s) RETURNING a * 10", [(n, str(n)) for n in range(50)], returning=True)
    got = []
    while True:
        got.append(cursor.fetchone()[0])
        if not cursor.nextset():
            break
    see("returning", got)
    see.error("a duplicate", lambda: cursor.executemany("INSERT INTO t VALUES (%s, 'x')", [(100,), (1,), (101,)]))
    see("rows", rows(connection, "SELECT count(*), sum(a) FROM t"))


@behaviour
def executemany_through_psycopg2(seat, see):
    from psycopg2.extras import execute_batch, execute_values

    connection = seat.psycopg2()
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a int)")
    cursor.executemany("INSERT INTO t VALUES (%s)", [(n,) for n in range(10)])
    execute_batch(cursor, "INSERT INTO t VALUES (%s)", [(n,) for n in range(250)])
    execute_values(cursor, "INSERT INTO t VALUES %s", [(n,) for n in range(250)])
    connection.commit()
    cursor.execute("SELECT count(*), sum(a) FROM t")
    see("rows", cursor.fetchall())


@behaviour
def a_string_of_statements(seat, see):
    raw = seat.psycopg().pgconn
    raw.send_query(b"SELECT 1; SELECT 'two', 2; CREATE TABLE t (a int); INSERT INTO t SELECT 1; TABLE t; SELECT")
    got = []
    while (result := raw.get_result()) is not None:
        got.append(told(result))
    see("results", got)
    see("refused when prepared", told(raw.prepare(b"", b"SELECT 1; SELECT 2")))


@behaviour
def empty_queries(seat, see):
    connection = seat.psycopg()
    raw = connection.pgconn
    for sql in (b"", b";", b"  -- nothing\n", b"/* nothing */", b";;"):
        see(sql.decode(), told(raw.exec_(sql)))
        see("extended", told(raw.exec_params(sql, [])))
    see("between", told(raw.exec_(b"; SELECT 1 ;;")))


@behaviour
def tags_of_commands(seat, see):
    raw = seat.psycopg().pgconn
    for sql in (
        "BEGIN", "COMMIT", "START TRANSACTION", "ROLLBACK", "begin work", "END", "CREATE TABLE t (a int)", "SAVEPOINT s",
        "INSERT INTO t VALUES (1), (2)", "UPDATE t SET a = 3", "DELETE FROM t WHERE a = 4", "SELECT 1", "TABLE t",
        "SET TimeZone = 'UTC'", "RESET TimeZone", "SHOW TimeZone", "LISTEN c", "NOTIFY c", "UNLISTEN *", "PREPARE p AS SELECT 1",
        "EXECUTE p", "DEALLOCATE p", "DEALLOCATE ALL", "EXPLAIN SELECT 1", "VALUES (1)", "LOCK t", "ANALYZE t", "VACUUM t",
        "TRUNCATE t", "COMMENT ON TABLE t IS 'x'", "DO $$BEGIN END$$", "DISCARD PLANS", "DISCARD ALL", "CHECKPOINT", "DROP TABLE t",
        "CREATE TABLE u AS SELECT 1 AS a", "SELECT 1 AS a INTO v", "CLOSE ALL", "RESET ALL", "SET ROLE NONE",
        "MERGE INTO u USING v ON u.a = v.a WHEN MATCHED THEN DO NOTHING", "COPY u TO STDOUT", "FETCH c", "SET LOCAL work_mem = '1MB'",
    ):
        result = raw.exec_(sql.encode())
        see(sql, told(result))
        if pq.ExecStatus(result.status).name == "COPY_OUT":
            while raw.get_copy_data(0)[0] > 0:
                pass
            raw.get_result()
        see("state", READY(raw.transaction_status).name)


@behaviour
def a_pipeline(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int)")
    with connection.pipeline() as pipeline:
        cursors = [connection.execute("INSERT INTO t VALUES (%s) RETURNING a", [n]) for n in range(20)]
        pipeline.sync()
        last = connection.execute("SELECT sum(a) FROM t")
        see("synced", [cursor.fetchone() for cursor in cursors])
    see("sum", last.fetchone())


@behaviour
def a_pipeline_with_an_error(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int)")

    def run():
        with connection.pipeline() as pipeline:
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("SELECT 1/0")
            connection.execute("INSERT INTO t VALUES (2)")
            pipeline.sync()

    see.error("error", run)
    see("nothing stays", rows(connection, "SELECT * FROM t"))
    see("state", connection.info.transaction_status.name)


@behaviour
def pipelines_at_the_protocol(seat, see):
    raw = seat.psycopg().pgconn
    raw.enter_pipeline_mode()
    raw.send_query_params(b"SELECT $1::int", [b"1"])
    raw.send_prepare(b"s", b"SELECT 'prepared ' || $1")
    raw.send_query_prepared(b"s", [b"one"])
    raw.pipeline_sync()
    raw.send_query_params(b"SELECT nope", [])
    raw.send_query_prepared(b"s", [b"skipped"])
    raw.send_prepare(b"s2", b"SELECT 2")
    raw.pipeline_sync()
    raw.send_query_prepared(b"s", [b"two"])
    raw.send_query_prepared(b"s2", [])
    raw.pipeline_sync()
    raw.pipeline_sync()
    got, syncs = [], 0
    while syncs < 4:
        result = raw.get_result()
        got.append(told(result))
        syncs += result is not None and result.status == pq.ExecStatus.PIPELINE_SYNC
    see("results", got)
    raw.exit_pipeline_mode()
    see("after", told(raw.exec_(b"SELECT 1")))


@behaviour
def a_flush_instead_of_a_sync(seat, see):
    raw = seat.psycopg().pgconn
    raw.enter_pipeline_mode()
    raw.send_query_params(b"SELECT 'flushed'", [])
    raw.send_flush_request()
    see("before the sync", [told(raw.get_result()), told(raw.get_result())])
    raw.send_query_params(b"SELECT 'second'", [])
    raw.pipeline_sync()
    see("after it", [told(raw.get_result()) for _ in range(3)])


@behaviour
def a_pipeline_of_thousands(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int, b text)")
    with connection.pipeline():
        for n in range(3000):
            connection.execute("INSERT INTO t VALUES (%s, %s)", [n, "x" * 200])
    see("rows", rows(connection, "SELECT count(*), sum(a), sum(length(b)) FROM t"))


@behaviour
def a_pipeline_with_transactions_in_it(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int)")
    with connection.pipeline() as pipeline:
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (1)")
        with connection.transaction(force_rollback=True):
            connection.execute("INSERT INTO t VALUES (2)")
        pipeline.sync()
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.execute("INSERT INTO t VALUES (3)")
    see("rows", rows(connection, "SELECT * FROM t"))
    see("kept", value(connection, "SHOW TimeZone"))


@behaviour
def pipelined_session_settings(seat, see):
    connection = seat.psycopg(autocommit=False)
    with connection.pipeline():
        connection.execute("SET app.tenant = 'seven'")
        got = connection.execute("SELECT current_setting('app.tenant')")
        connection.commit()
        again = connection.execute("SELECT current_setting('app.tenant')")
    see("within", [got.fetchone(), again.fetchone()])
    connection.commit()
    see("after", value(connection, "SELECT current_setting('app.tenant')"))


@behaviour
def rows_one_at_a_time(seat, see):
    connection = seat.psycopg()
    got = [row[0] for row in connection.cursor().stream("SELECT generate_series(1, 500)")]
    see("rows", (len(got), sum(got)))

    def leave_early():
        for row in connection.cursor().stream("SELECT generate_series(1, 100000)"):
            if row[0] == 10:
                raise psycopg.DataError("enough")

    see.error("left early", leave_early)
    see("after", value(connection, "SELECT 1"))


@behaviour
def errors_while_preparing_by_the_driver(seat, see):
    connection = seat.psycopg()
    connection.prepare_threshold = 0
    for _ in range(3):
        try:
            connection.execute("SELECT * FROM later WHERE a = %s", [1])
        except psycopg.Error as error:
            see("error", describe(error)["sqlstate"])
    connection.execute("CREATE TABLE later (a int)")
    see("works", rows(connection, "SELECT * FROM later WHERE a = %s", [1]))
