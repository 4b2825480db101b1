"""What else a session owns: channels, locks, temporary objects, sequence values, its own process."""

import time

import psycopg

from .registry import behaviour, rows, value

WAIT_SECONDS_MAX = 5.0


def arrived(connection, count=1):
    """(channel, payload) of that many notifications, or fewer after a while."""
    return [(n.channel, n.payload) for n in connection.notifies(timeout=WAIT_SECONDS_MAX, stop_after=count)]


def none_more(connection):
    return [(n.channel, n.payload) for n in connection.notifies(timeout=0.15)]


@behaviour
def notifications(seat, see):
    listener, sender = seat.psycopg(), seat.psycopg()
    listener.execute("LISTEN orders")
    sender.execute("NOTIFY orders, 'first'")
    see("first", arrived(listener))
    sender.execute("SELECT pg_notify('orders', 'second'), pg_notify('Other', 'none')")
    see("second", arrived(listener))
    listener.execute("NOTIFY orders, 'from itself'")
    see("itself", arrived(listener))
    listener.execute('LISTEN "Other"')
    sender.execute("NOTIFY \"Other\"; NOTIFY other; NOTIFY orders, 'both'")
    see("two channels", arrived(listener, 2))
    listener.execute("UNLISTEN orders")
    sender.execute("NOTIFY orders, 'too late'; NOTIFY \"Other\", 'still'")
    see("one left", arrived(listener))
    listener.execute("UNLISTEN *")
    sender.execute("NOTIFY \"Other\"")
    see("none", none_more(listener))


@behaviour
def notifications_at_commit_only(seat, see):
    listener, sender = seat.psycopg(), seat.psycopg(autocommit=False)
    listener.execute("LISTEN c")
    sender.execute("NOTIFY c, 'rolled back'")
    sender.rollback()
    sender.execute("NOTIFY c, 'same'")
    sender.execute("NOTIFY c, 'same'")
    sender.execute("SAVEPOINT s; NOTIFY c, 'in savepoint'; ROLLBACK TO s; NOTIFY c, 'last'")
    see("not before", none_more(listener))
    sender.commit()
    see("then", arrived(listener, 2))


@behaviour
def listening_in_a_transaction(seat, see):
    listener, sender = seat.psycopg(autocommit=False), seat.psycopg()
    listener.execute("LISTEN c")
    listener.rollback()
    sender.execute("NOTIFY c, 'not listening'")
    listener.execute("LISTEN c")
    listener.commit()
    sender.execute("NOTIFY c, 'listening'")
    see("one", arrived(listener))
    listener.execute("SELECT 1")
    sender.execute("NOTIFY c, 'while in a transaction'")
    see("not within", none_more(listener))
    listener.commit()
    see("after it", arrived(listener))
    listener.execute("UNLISTEN c")
    listener.rollback()
    sender.execute("NOTIFY c, 'still'")
    see("still", arrived(listener))


@behaviour
def channels_listed(seat, see):
    connection = seat.psycopg()
    connection.execute("LISTEN b; LISTEN a; LISTEN a")
    for _ in range(2):
        see("channels", rows(connection, "SELECT * FROM pg_listening_channels() ORDER BY 1"))
    connection.execute("DISCARD ALL")
    see("none", rows(connection, "SELECT * FROM pg_listening_channels()"))


@behaviour
def notifications_with_results(seat, see):
    listener, sender = seat.psycopg(), seat.psycopg()
    got = []
    listener.add_notify_handler(lambda n: got.append((n.channel, n.payload)))
    listener.execute("LISTEN c")
    sender.execute("NOTIFY c, 'one'")
    limit = time.monotonic() + WAIT_SECONDS_MAX
    while not got and time.monotonic() < limit:
        listener.execute("SELECT 1")
    see("with a result", got)


@behaviour
def whose_notification(seat, see):
    listener, sender = seat.psycopg(), seat.psycopg()
    listener.execute("LISTEN c")
    sender.execute("NOTIFY c")
    pid = next(listener.notifies(timeout=WAIT_SECONDS_MAX)).pid
    see("the sender's process", pid == sender.info.backend_pid)
    listener.execute("NOTIFY c")
    pid = next(listener.notifies(timeout=WAIT_SECONDS_MAX)).pid
    see("its own process", pid == listener.info.backend_pid)


@behaviour
def large_and_many_notifications(seat, see):
    listener, sender = seat.psycopg(), seat.psycopg()
    listener.execute("LISTEN c")
    sender.execute("SELECT pg_notify('c', repeat('x', 7999))")
    see("length", [len(payload) for _, payload in arrived(listener)])
    see.error("too long", lambda: sender.execute("SELECT pg_notify('c', repeat('x', 8000))"))
    sender.execute("SELECT pg_notify('c', i::text) FROM generate_series(1, 2000) i")
    see("in order", [int(payload) for _, payload in arrived(listener, 2000)] == list(range(1, 2001)))


@behaviour
def notifications_through_psycopg2(seat, see):
    import select

    listener, sender = seat.psycopg2(autocommit=True), seat.psycopg2(autocommit=True)
    listener.cursor().execute("LISTEN c")
    sender.cursor().execute("NOTIFY c, 'p'")
    limit = time.monotonic() + WAIT_SECONDS_MAX
    while not listener.notifies and time.monotonic() < limit:
        select.select([listener], [], [], 0.1)
        listener.poll()
    see("got", [(n.channel, n.payload) for n in listener.notifies])


@behaviour
def advisory_locks(seat, see):
    holder, other = seat.psycopg(), seat.psycopg()
    holder.execute("SELECT pg_advisory_lock(1), pg_advisory_lock(2), pg_advisory_lock_shared(3, 4)")
    attempt = "SELECT pg_try_advisory_lock(1), pg_try_advisory_lock_shared(3, 4), pg_try_advisory_lock(3, 4)"
    see("held", rows(other, attempt))
    see("again by the holder", value(holder, "SELECT pg_try_advisory_lock(1)"))
    see("unlock", [value(holder, "SELECT pg_advisory_unlock(1)") for _ in range(2)])
    see("free", value(other, "SELECT pg_try_advisory_lock(1)"))
    see("not its own", value(holder, "SELECT pg_advisory_unlock(1)"))
    holder.execute("SELECT pg_advisory_unlock_all()")
    see("all free", rows(other, "SELECT pg_try_advisory_lock(2), pg_try_advisory_lock(3, 4)"))
    other.close()
    limit = time.monotonic() + WAIT_SECONDS_MAX
    while not value(holder, "SELECT pg_try_advisory_lock(2)") and time.monotonic() < limit:
        time.sleep(0.02)
    see("free when the other has gone", time.monotonic() < limit)


@behaviour
def advisory_locks_of_a_transaction(seat, see):
    holder, other = seat.psycopg(autocommit=False), seat.psycopg()
    holder.execute("SELECT pg_advisory_xact_lock(7)")
    see("held", value(other, "SELECT pg_try_advisory_lock(7)"))
    holder.commit()
    see("free", value(other, "SELECT pg_try_advisory_lock(7)"))


@behaviour
def advisory_locks_rolled_back(seat, see):
    """A session's lock outlives the transaction that took it, even one that is rolled back."""
    holder, other = seat.psycopg(), seat.psycopg()
    holder.execute("BEGIN; SELECT pg_advisory_lock(8); ROLLBACK")
    see("held", value(other, "SELECT pg_try_advisory_lock(8)"))
    holder.execute("DO $$ BEGIN PERFORM pg_advisory_lock(9); END $$")
    see("by a function", value(other, "SELECT pg_try_advisory_lock(9)"))
    see("unlock", [value(holder, f"SELECT pg_advisory_unlock({n})") for n in (8, 9)])


@behaviour
def temporary_tables(seat, see):
    connection, other = seat.psycopg(autocommit=False), seat.psycopg()
    connection.execute("CREATE TEMP TABLE t (a int)")
    connection.commit()
    for n in range(3):
        connection.execute("INSERT INTO t VALUES (%s)", [n])
        connection.commit()
    see("rows", rows(connection, "SELECT * FROM t"))
    connection.commit()
    see.error("not the other's", lambda: other.execute("SELECT * FROM t"))
    other.execute("CREATE TEMP TABLE t AS SELECT 'other' AS a")
    see("each its own", (rows(other, "SELECT * FROM t"), rows(connection, "SELECT * FROM t")))
    connection.commit()
    connection.execute("DROP TABLE t")
    connection.commit()
    see.error("dropped", lambda: connection.execute("SELECT * FROM t"))


@behaviour
def temporary_objects_of_all_kinds(seat, see):
    connection = seat.psycopg()
    connection.execute("""CREATE TEMP VIEW v AS SELECT 1 AS a; CREATE TEMP SEQUENCE s; SELECT 5 AS a INTO TEMP i;
        CREATE TEMP TABLE c AS SELECT 6 AS a; CREATE TABLE pg_temp.p (a int); CREATE TYPE pg_temp.pair AS (a int);
        CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 7'""")
    see("view", value(connection, "SELECT a FROM v"))
    see("sequence", [value(connection, "SELECT nextval('s')") for _ in range(2)])
    see("tables", rows(connection, "SELECT i.a, c.a, (SELECT count(*) FROM p) FROM i, c"))
    see("function", value(connection, "SELECT pg_temp.f()"))
    connection.execute("DISCARD TEMP")
    see.error("discarded", lambda: connection.execute("SELECT a FROM v"))


@behaviour
def temporary_tables_that_empty_themselves(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TEMP TABLE d (a int) ON COMMIT DELETE ROWS")
    connection.execute("BEGIN; INSERT INTO d VALUES (1)")
    see("within", value(connection, "SELECT count(*) FROM d"))
    connection.execute("COMMIT")
    see("after", value(connection, "SELECT count(*) FROM d"))
    connection.execute("BEGIN; CREATE TEMP TABLE gone (a int) ON COMMIT DROP; INSERT INTO gone VALUES (1); COMMIT")
    see.error("dropped", lambda: connection.execute("SELECT * FROM gone"))


@behaviour
def temporary_tables_made_by_functions(seat, see):
    connection = seat.psycopg()
    connection.execute("""CREATE FUNCTION makes() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN CREATE TEMP TABLE made (a int); INSERT INTO made VALUES (3); END $$""")
    connection.execute("SELECT makes()")
    for _ in range(2):
        see("there", rows(connection, "SELECT * FROM made"))
    connection.execute("DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE did AS SELECT 4 AS a'; END $$")
    see("there too", rows(connection, "SELECT * FROM did"))


@behaviour
def temporary_tables_rolled_back(seat, see):
    connection = seat.psycopg()
    connection.execute("BEGIN; CREATE TEMP TABLE t (a int); ROLLBACK")
    see.error("none", lambda: connection.execute("SELECT * FROM t"))
    connection.execute("CREATE TABLE t AS SELECT 'real' AS a")
    see("the real one", rows(connection, "SELECT * FROM t"))
    connection.execute("CREATE TEMP TABLE t AS SELECT 'temporary' AS a")
    for _ in range(2):
        see("shadowed", rows(connection, "SELECT a FROM t"))


@behaviour
def sequence_values(seat, see):
    connection, other = seat.psycopg(), seat.psycopg()
    connection.execute("CREATE SEQUENCE s")
    see.error("not yet", lambda: connection.execute("SELECT currval('s')"))
    see("next", value(connection, "SELECT nextval('s')"))
    see("current", value(connection, "SELECT currval('s')"))
    see("others go on", value(other, "SELECT nextval('s')"))
    see("current is its own", value(connection, "SELECT currval('s')"))
    see("last", value(connection, "SELECT lastval()"))
    connection.execute("SELECT setval('s', 50)")
    see("set", (value(connection, "SELECT currval('s')"), value(other, "SELECT currval('s')")))
    connection.execute("DISCARD SEQUENCES")
    see.error("discarded", lambda: connection.execute("SELECT currval('s')"))


@behaviour
def sequence_values_in_one_transaction(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (id serial, a int)")
    connection.commit()
    for n in range(3):
        connection.execute("INSERT INTO t (a) VALUES (%s)", [n])
        see("in its transaction", (value(connection, "SELECT lastval()"), value(connection, "SELECT currval('t_id_seq')")))
        connection.commit()


@behaviour
def sequence_values_of_column_defaults(seat, see):
    """`lastval()` in a later transaction than the INSERT whose default drew the value."""
    connection, other = seat.psycopg(), seat.psycopg()
    connection.execute("CREATE TABLE t (id serial, a int)")
    connection.execute("INSERT INTO t (a) VALUES (1)")
    other.execute("INSERT INTO t (a) VALUES (2)")
    see.error("lastval", lambda: value(connection, "SELECT lastval()"))
    see.error("currval", lambda: value(connection, "SELECT currval('t_id_seq')"))


@behaviour
def never_anybody_elses_sequence_values(seat, see):
    connection, other = seat.psycopg(), seat.psycopg()
    connection.execute("CREATE SEQUENCE s")
    other.execute("SELECT nextval('s')")
    see.error("lastval", lambda: value(connection, "SELECT lastval()"))
    see.error("currval", lambda: value(connection, "SELECT currval('s')"))


@behaviour
def one_process_for_a_session(seat, see):
    connection = seat.psycopg()
    pids = {value(connection, "SELECT pg_backend_pid()") for _ in range(6)}
    see("one", len(pids) == 1)
    see("as told at login", connection.info.backend_pid in pids)


@behaviour
def session_variables_of_languages(seat, see):
    """A function's own memory, here of plpgsql: plans cached for the session must follow what changes."""
    connection = seat.psycopg()
    connection.execute("""CREATE TABLE t (a int); INSERT INTO t VALUES (1);
        CREATE FUNCTION reads() RETURNS SETOF int LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT a FROM t; END'""")
    see("first", rows(connection, "SELECT * FROM reads()"))
    connection.execute("DROP TABLE t; CREATE TABLE t (b text, a int); INSERT INTO t VALUES ('x', 2)")
    see("after a change", rows(connection, "SELECT * FROM reads()"))


@behaviour
def a_library_loaded(seat, see):
    connection = seat.psycopg(user="overseer")
    connection.execute("LOAD 'auto_explain'")
    for _ in range(2):
        see.error("its setting", lambda: value(connection, "SHOW auto_explain.log_nested_statements"))
    connection.execute("SET auto_explain.log_nested_statements = on")
    see.error("set", lambda: value(connection, "SHOW auto_explain.log_nested_statements"))


@behaviour
def what_discard_all_leaves(seat, see):
    connection, other = seat.psycopg(), seat.psycopg()
    connection.execute("CREATE TEMP TABLE t (a int); LISTEN c; PREPARE p AS SELECT 1; SELECT pg_advisory_lock(5); SET work_mem = '3MB'")
    connection.execute("DECLARE h CURSOR WITH HOLD FOR SELECT 1")
    connection.execute("DISCARD ALL")
    for sql in ("SELECT * FROM t", "EXECUTE p", "FETCH h", "SHOW work_mem"):
        see.error(sql, lambda sql=sql: connection.execute(sql).statusmessage)
    see("lock", value(other, "SELECT pg_try_advisory_lock(5)"))
    see.error("within a transaction", lambda: connection.execute("BEGIN; DISCARD ALL"))


@behaviour
def thrown_out(seat, see):
    """Its process is ended by an administrator while it is idle."""
    connection = seat.psycopg()
    pid = value(connection, "SELECT pg_backend_pid()")
    seat.admin.execute("SELECT pg_terminate_backend(%s, 3000)", [pid])
    see.error("next statement", lambda: value(connection, "SELECT 1"))
    see("closed", connection.closed)


@behaviour
def thrown_out_in_a_transaction(seat, see):
    connection = seat.psycopg(autocommit=False)
    pid = value(connection, "SELECT pg_backend_pid()")
    seat.admin.execute("SELECT pg_terminate_backend(%s, 3000)", [pid])
    see.error("next statement", lambda: value(connection, "SELECT 1"))
    see("closed", connection.closed)


@behaviour
def thrown_out_by_itself(seat, see):
    connection = seat.psycopg()
    see.error("the statement", lambda: connection.execute("SELECT pg_terminate_backend(pg_backend_pid())"))
    see("closed", connection.closed)
    try:
        connection.execute("SELECT 1")
    except psycopg.Error as error:
        see("after", type(error).__name__)


@behaviour
def strangers_leave_nothing(seat, see):
    connection = seat.psycopg()
    see("channels", rows(connection, "SELECT * FROM pg_listening_channels()"))
    see("statements", rows(connection, "SELECT name FROM pg_prepared_statements"))
    see("cursors", rows(connection, "SELECT name FROM pg_cursors WHERE name <> ''"))
    see("tables", rows(connection, "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()"))
    see("locks", rows(connection, "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"))
    see("changed settings", rows(connection, "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY 1"))
