"""Cursors, COPY and large objects: results and data that take more than one exchange."""

import io

import psycopg

from .registry import behaviour, hash_of, rows, value


@behaviour
def named_cursors(seat, see):
    connection = seat.psycopg(autocommit=False)
    with connection.cursor("c") as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        see("first", cursor.fetchmany(3))
        cursor.itersize = 7
        see("sum", sum(row[0] for row in cursor))
    with connection.cursor("s", scrollable=True) as cursor:
        cursor.execute("SELECT generate_series(1, 20)")
        cursor.scroll(10)
        see("at", cursor.fetchone())
        cursor.scroll(-5)
        see("back", cursor.fetchone())
        see.error("too far", lambda: cursor.scroll(100, mode="absolute") or cursor.fetchone())
    connection.commit()


@behaviour
def named_cursors_through_psycopg2(seat, see):
    connection = seat.psycopg2()
    cursor = connection.cursor("c")
    cursor.itersize = 13
    cursor.execute("SELECT generate_series(1, 100)")
    see("sum", sum(row[0] for row in cursor))
    cursor.close()
    connection.commit()
    held = connection.cursor("held", withhold=True, scrollable=True)
    held.execute("SELECT generate_series(1, 100)")
    see("first", held.fetchmany(2))
    connection.commit()
    see("after commit", held.fetchmany(2))
    connection.commit()
    see("after another", held.fetchmany(2))
    held.scroll(0, mode="absolute")
    see("from the start", held.fetchone())
    held.close()
    connection.commit()


@behaviour
def held_cursors(seat, see):
    connection = seat.psycopg()
    with connection.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT generate_series(1, 50)")
        for _ in range(3):
            see("next", cursor.fetchmany(2))
            see("between", value(connection, "SELECT 1"))
        see("listed", rows(connection, "SELECT name, is_holdable, is_scrollable FROM pg_cursors WHERE name = 'held'"))
    see.error("closed", lambda: connection.execute("FETCH held"))


@behaviour
def cursors_by_sql(seat, see):
    connection = seat.psycopg()
    see.error("outside a transaction", lambda: connection.execute("DECLARE c CURSOR FOR SELECT 1"))
    connection.execute("BEGIN")
    connection.execute("DECLARE c SCROLL CURSOR FOR SELECT generate_series(1, 10)")
    for sql in ("FETCH c", "FETCH 3 FROM c", "FETCH BACKWARD 2 FROM c", "MOVE 4 IN c", "FETCH LAST FROM c", "FETCH ABSOLUTE -2 FROM c"):
        cursor = connection.execute(sql)
        see(sql, (cursor.statusmessage, cursor.fetchall() if cursor.description else None))
    connection.execute("CLOSE c")
    see.error("closed", lambda: connection.execute("FETCH c"))
    connection.execute("ROLLBACK")
    connection.execute("DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 10)")
    see("held", (rows(connection, "FETCH 2 FROM h"), rows(connection, "FETCH 2 FROM h")))
    connection.execute("CLOSE ALL")
    see.error("closed", lambda: connection.execute("FETCH h"))


@behaviour
def where_current_of(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2), (3)")
    connection.execute("DECLARE c CURSOR FOR SELECT * FROM t ORDER BY a FOR UPDATE")
    connection.execute("FETCH 2 FROM c")
    see("update", connection.execute("UPDATE t SET a = 20 WHERE CURRENT OF c").statusmessage)
    connection.commit()
    see("rows", rows(connection, "SELECT a FROM t ORDER BY a"))


@behaviour
def cursors_returned_by_functions(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("""CREATE FUNCTION opens(r refcursor) RETURNS refcursor LANGUAGE plpgsql
        AS $$ BEGIN OPEN r FOR SELECT generate_series(1, 5); RETURN r; END $$""")
    name = value(connection, "SELECT opens('mine')")
    see("rows", (name, rows(connection, f'FETCH ALL FROM "{name}"')))
    connection.commit()
    see.error("gone", lambda: connection.execute('FETCH "mine"'))


@behaviour
def a_cursor_and_a_prepared_statement(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("PREPARE p AS SELECT generate_series(1, 5)")
    connection.commit()
    connection.execute("DECLARE c CURSOR FOR SELECT generate_series(1, 5)")
    see("fetched", [connection.execute("FETCH c", prepare=True).fetchone() for _ in range(3)])
    see("executed", rows(connection, "EXECUTE p"))


@behaviour
def copy_in_and_out(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int, b text, c bytea)")
    cursor = connection.cursor()
    with cursor.copy("COPY t FROM STDIN") as copy:
        for n in range(1000):
            copy.write_row((n, None if n % 7 == 0 else f"tab\tnew\nline \\ {n}", bytes([n % 256])))
    see("tag", cursor.statusmessage)
    with connection.cursor().copy("COPY t TO STDOUT") as copy:
        see("out", hash_of(b"".join(bytes(part) for part in copy)))
    with connection.cursor().copy("COPY (SELECT a, b FROM t ORDER BY a LIMIT 3) TO STDOUT (FORMAT csv, HEADER)") as copy:
        see("csv", b"".join(bytes(part) for part in copy))
    with connection.cursor().copy("COPY t TO STDOUT (FORMAT binary)") as copy:
        binary = b"".join(bytes(part) for part in copy)
    see("binary", (len(binary), hash_of(binary)))
    connection.execute("CREATE TABLE u (LIKE t)")
    with cursor.copy("COPY u FROM STDIN (FORMAT binary)") as copy:
        copy.write(binary)
    see("the same", rows(connection, "SELECT count(*) FROM (TABLE t EXCEPT TABLE u) x"))


@behaviour
def copy_that_fails(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int PRIMARY KEY)")

    def load(*parts, sql="COPY t FROM STDIN"):
        with connection.cursor().copy(sql) as copy:
            for part in parts:
                copy.write(part)

    def abandon():
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write("5\n")
            raise KeyError("changed my mind")

    see.error("bad number", lambda: load("1\n", "x\n", "3\n"))
    see.error("duplicate", lambda: load("1\n1\n"))
    see.error("too many columns", lambda: load("1\t2\n"))
    see.error("bad binary", lambda: load("nonsense", sql="COPY t FROM STDIN (FORMAT binary)"))
    see.error("client gives up", abandon)
    see("state", connection.info.transaction_status.name)
    see("rows", rows(connection, "SELECT * FROM t"))
    see.error("goes on", lambda: load("7\n"))
    see("rows", rows(connection, "SELECT * FROM t"))


@behaviour
def copy_within_a_transaction(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("CREATE TABLE t (a int)")
    connection.commit()
    for end in (connection.rollback, connection.commit):
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write("1\n2\n")
        see("within", value(connection, "SELECT count(*) FROM t"))
        end()
    see("after", value(connection, "SELECT count(*) FROM t"))


@behaviour
def copy_of_much(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int, b text)")
    with connection.cursor().copy("COPY t FROM STDIN") as copy:
        for n in range(0, 100000, 1000):
            copy.write("".join(f"{i}\t{'x' * (i % 90)}\n" for i in range(n, n + 1000)))
    see("rows", rows(connection, "SELECT count(*), sum(a), sum(length(b)) FROM t"))
    size = 0
    with connection.cursor().copy("COPY t TO STDOUT") as copy:
        for part in copy:
            size += len(part)
    see("bytes", size)


@behaviour
def copy_out_left_early(seat, see):
    connection = seat.psycopg()

    def leave():
        # Large rows: what is under way when the cancel comes is read through to its end.
        with connection.cursor().copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT") as copy:
            for _ in copy:
                raise KeyError("enough")

    see.error("left", leave)
    see("state", connection.info.transaction_status.name)
    see("after", value(connection, "SELECT 1"))


@behaviour
def copy_through_psycopg2(seat, see):
    connection = seat.psycopg2()
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a int, b text)")
    cursor.copy_from(io.StringIO("1\tone\n2\t\\N\n"), "t")
    cursor.copy_expert("COPY t FROM STDIN CSV", io.StringIO('3,"a,b"\n'))
    out = io.StringIO()
    cursor.copy_to(out, "t", null="nil")
    see("out", out.getvalue())
    see.error("bad", lambda: cursor.copy_from(io.StringIO("x\ty\n"), "t"))
    connection.rollback()
    see.error("gone", lambda: cursor.copy_to(out, "t"))


@behaviour
def copy_in_a_string_of_statements(seat, see):
    from psycopg import pq

    raw = seat.psycopg().pgconn
    raw.exec_(b"CREATE TABLE t (a int)")
    raw.send_query(b"SELECT 1; COPY t FROM STDIN; SELECT count(*) FROM t; COPY t TO STDOUT; SELECT 2")
    got = []
    while (result := raw.get_result()) is not None:
        status = pq.ExecStatus(result.status)
        got.append(status.name)
        if status == pq.ExecStatus.COPY_IN:
            raw.put_copy_data(b"1\n2\n")
            raw.put_copy_end()
        elif status == pq.ExecStatus.COPY_OUT:
            while (part := raw.get_copy_data(0))[0] > 0:
                got.append(bytes(part[1]).decode())
        elif result.ntuples:
            got.append(result.get_value(0, 0).decode())
    see("results", got)


@behaviour
def large_objects_through_psycopg2(seat, see):
    connection = seat.psycopg2()
    big = connection.lobject(0, "wb")
    big.write(b"0123456789" * 10000)
    big.seek(5)
    big.write(b"XYZ")
    see("at", big.tell())
    oid = big.oid
    connection.commit()
    see("closed with the transaction", big.closed)
    again = connection.lobject(oid, "rb")
    see("read", again.read(12))
    again.seek(0, 2)
    see("size", again.tell())
    again.close()
    connection.commit()
    connection.lobject(oid, "rw").truncate(3)
    connection.commit()
    see("truncated", connection.lobject(oid, "rb").read())
    connection.lobject(oid).unlink()
    connection.commit()
    see.error("gone", lambda: connection.lobject(oid, "rb"))


@behaviour
def large_objects_by_sql(seat, see):
    connection = seat.psycopg(autocommit=False)
    oid = value(connection, "SELECT lo_from_bytea(0, %s)", [b"hello"])
    connection.commit()
    see("get", value(connection, "SELECT lo_get(%s, 1, 3)", [oid]))
    connection.execute("SELECT lo_put(%s, 5, %s)", [oid, b" world"])
    connection.commit()
    handle = value(connection, "SELECT lo_open(%s, 393216)", [oid])
    see("read", value(connection, "SELECT loread(%s, 100)", [handle]))
    connection.rollback()
    see.error("handle gone", lambda: connection.execute("SELECT loread(%s, 1)", [handle]))
    connection.rollback()
    connection.execute("SELECT lo_unlink(%s)", [oid])
    connection.commit()


@behaviour
def a_cursor_left_open(seat, see):
    connection = seat.psycopg(autocommit=False)
    connection.execute("DECLARE c CURSOR FOR SELECT generate_series(1, 10)")
    connection.commit()
    see.error("gone", lambda: connection.execute("FETCH c"))
    connection.rollback()
    try:
        connection.execute("DECLARE h CURSOR WITH HOLD FOR SELECT 1/0")
        connection.commit()
    except psycopg.Error as error:
        see("fails at commit or before", error.sqlstate)
