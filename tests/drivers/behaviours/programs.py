"""Programs: psql, pgbench, pg_dump, pg_restore and their kin, as people run them."""

import functools
import os
import re
import subprocess
import tempfile

from .registry import behaviour, hash_of, value

PROGRAM_SECONDS_MAX = 35


@functools.cache
def found(name):
    """Where a program of PostgreSQL is: on the path, or below its version as in Debian."""
    import glob
    import shutil

    own = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    return own[-1] if own else shutil.which(name) or name


def run(seat, *words, stdin="", user="driver", binary=False, **environment):
    """(exit code, standard output, standard error) of a program with PGHOST and so on of the seat."""
    ended = subprocess.run(
        [found(words[0]), *words[1:]], input=stdin.encode(), capture_output=True, timeout=PROGRAM_SECONDS_MAX,
        env=os.environ | {"LC_ALL": "C", "PSQLRC": "/dev/null"} | seat.environment(user) | environment,
    )
    out = ended.stdout if binary else ended.stdout.decode(errors="replace")
    return ended.returncode, out, told(ended.stderr.decode(errors="replace"))


def told(text):
    return re.sub(r"(127\.0\.0\.1:|port |process |PID |PID=)\d+", r"\1N", text)


def psql(seat, see, script, *options, label="psql", **environment):
    code, out, err = run(seat, "psql", "-X", *options, stdin=script, **environment)
    see(label, (code, told(out), err))


@behaviour
def psql_prints_what_it_gets(seat, see):
    psql(seat, see, """
        CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'one'), (2, NULL);
        TABLE t; SELECT 1 AS x \\; SELECT 2 AS y; SELECT 3
        \\g
        \\x
        TABLE t;
        \\pset format csv
        TABLE t; SELECT FROM t; DELETE FROM t RETURNING a;
        SELECT * FROM nowhere;
        \\errverbose
        SELECT 'still here';""")


@behaviour
def psql_describes(seat, see):
    psql(seat, see, """
        CREATE TABLE p (id serial PRIMARY KEY, name text NOT NULL UNIQUE); CREATE VIEW v AS SELECT * FROM p;
        CREATE TABLE c (p int REFERENCES p, n int CHECK (n > 0)); CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
        \\d
        \\d p
        \\d+ c
        \\df f
        \\sf f
        \\dn
        \\dt *.whose
        \\l drivers
        \\encoding
        \\echo :SERVER_VERSION_NUM :ENCODING :USER :DBNAME""")


@behaviour
def psql_watch(seat, see):
    code, out, err = run(seat, "psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", stdin="""
        CREATE TABLE t (a int);
        WITH i AS (INSERT INTO t SELECT count(*) FROM t RETURNING a) SELECT 10 / (3 - a) FROM i \\watch 0.05""")
    see("until it fails", (code, [line for line in out.splitlines() if line and "every" not in line], err))


@behaviour
def psql_copy(seat, see):
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "rows")
        psql(seat, see, f"""
            CREATE TABLE t (a int, b text);
            \\copy t FROM STDIN
1	one
2	\\N
\\.
            \\copy t TO '{file}' CSV
            \\copy t FROM '{file}' CSV
            \\copy (SELECT count(*), sum(a) FROM t) TO STDOUT
            COPY t FROM STDIN;
x	bad
\\.
            SELECT count(*) FROM t;
            COPY t TO STDOUT;""")
        with open(file, encoding="utf-8") as written:
            see("file", written.read())


@behaviour
def psql_variables_and_loops(seat, see):
    psql(seat, see, """
        SELECT 5 AS five, 'x' AS letter \\gset
        SELECT :five + 1, :'letter';
        SELECT format('SELECT %s', i) FROM generate_series(1, 3) i \\gexec
        SELECT 'r' || i, 'c' || j, i * j FROM generate_series(1, 2) i, generate_series(1, 2) j \\crosstabview
        \\if true
        SELECT 'yes';
        \\endif
        SELECT 1/0 AS x;
        \\echo :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE :ERROR :ROW_COUNT
        SELECT 1 \\gdesc
        DO $$ BEGIN RAISE NOTICE 'said'; END $$;""")


@behaviour
def psql_without_autocommit(seat, see):
    psql(seat, see, """
        \\set AUTOCOMMIT off
        CREATE TABLE t (a int); COMMIT;
        INSERT INTO t VALUES (1); ROLLBACK;
        \\set ON_ERROR_ROLLBACK on
        INSERT INTO t VALUES (2); SELECT 1/0; INSERT INTO t VALUES (3); COMMIT; TABLE t;
        BEGIN;
        \\echo in a transaction""")


@behaviour
def psql_in_one_transaction(seat, see):
    psql(seat, see, "CREATE TABLE t (a int); INSERT INTO t VALUES (1); SELECT 1/0; INSERT INTO t VALUES (2);", "-1", "-v", "ON_ERROR_STOP=1")
    psql(seat, see, "", "-c", "CREATE TABLE t (a int)", "-c", "INSERT INTO t VALUES (1)", "-c", "TABLE t", label="commands")
    psql(seat, see, "", "-1", "-c", "INSERT INTO t VALUES (2)", "-c", "SELECT 1/0", label="all or nothing")
    psql(seat, see, "", "-c", "BEGIN; INSERT INTO t VALUES (3); COMMIT; TABLE t", label="a string")


@behaviour
def psql_fetches_by_count(seat, see):
    code, out, err = run(seat, "psql", "-X", "-At", "-v", "FETCH_COUNT=100", stdin="SELECT generate_series(1, 2500); SELECT 1/0; SELECT 'end'")
    see("lines", (code, hash_of(out.encode()), len(out.splitlines()), err))


@behaviour
def psql_connects_anew(seat, see):
    psql(seat, see, """
        SET TimeZone = 'Asia/Tokyo'; CREATE TEMP TABLE t (a int);
        \\c
        SHOW TimeZone; SELECT * FROM t;
        SELECT current_database(), current_user;""", "-q", PGTZ="America/Lima", PGOPTIONS="-c work_mem=3MB")
    psql(seat, see, "SHOW TimeZone; SHOW work_mem; SHOW DateStyle; SHOW client_encoding; SHOW application_name", PGTZ="America/Lima",
         PGOPTIONS="-c work_mem=3MB", PGDATESTYLE="German", PGCLIENTENCODING="LATIN1", PGAPPNAME="till", label="of the environment")


@behaviour
def psql_listens(seat, see):
    """Sorted: a notification may come with the answer to its NOTIFY or a moment later."""
    pause = "SELECT 'paused' FROM pg_sleep(0.4);"
    code, out, err = run(seat, "psql", "-X", "-At", stdin=f"LISTEN c; NOTIFY c, 'payload'; {pause} SELECT pg_notify('c', 'again'); {pause}"
                                                          f"UNLISTEN *; NOTIFY c; {pause}")
    see("lines", (code, sorted(told(out).splitlines()), err))


@behaviour
def psql_with_large_objects(seat, see):
    with tempfile.TemporaryDirectory() as folder:
        there, back = os.path.join(folder, "there"), os.path.join(folder, "back")
        with open(there, "wb") as file:
            file.write(bytes(range(256)) * 700)
        psql(seat, see, f"\\set QUIET on\n\\lo_import {there}\n\\lo_export :LASTOID {back}\n\\lo_unlink :LASTOID\nSELECT count(*) FROM pg_largeobject_metadata;")
        with open(back, "rb") as file:
            see("the same", hash_of(file.read()) == hash_of(bytes(range(256)) * 700))


SUMS = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)"


def pgbench(seat, see, mode):
    code, _, err = run(seat, "pgbench", "-i", "-s", "1", "-q")
    see("made", (code, "done" in err))
    code, out, err = run(seat, "pgbench", "-n", "-c", "8", "-j", "2", "-t", "60", "-M", mode)
    see("mixed", (code, re.findall(r"actually processed: \S+|failed transactions: \S+ \S+", out), err))
    see("sums", value(seat.admin, SUMS))
    see("history", value(seat.admin, "SELECT count(*) FROM pgbench_history"))
    code, out, err = run(seat, "pgbench", "-n", "-S", "-C", "-c", "4", "-t", "10", "-M", mode)
    see("a connection each", (code, re.findall(r"actually processed: \S+", out), err))


@behaviour
def pgbench_simple(seat, see):
    pgbench(seat, see, "simple")


@behaviour
def pgbench_extended(seat, see):
    pgbench(seat, see, "extended")


@behaviour
def pgbench_prepared(seat, see):
    pgbench(seat, see, "prepared")


@behaviour
def pgbench_pipelines(seat, see):
    script = "\\startpipeline\nSELECT 1;\nINSERT INTO t VALUES (:client_id);\nSELECT 2;\n\\endpipeline\n"
    seat.psycopg().execute("CREATE TABLE t (a int)")
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        for mode in ("extended", "prepared"):
            code, out, err = run(seat, "pgbench", "-n", "-c", "4", "-t", "50", "-M", mode, "-f", file.name)
            see(mode, (code, re.findall(r"actually processed: \S+", out), err))
    see("rows", value(seat.admin, "SELECT count(*) FROM t"))


SHOP = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE p (id serial PRIMARY KEY, name text NOT NULL UNIQUE, m mood DEFAULT 'ok', b bytea);
CREATE TABLE c (p int REFERENCES p, n numeric(7, 2) CHECK (n >= 0));
CREATE VIEW v AS SELECT name, sum(n) FROM p JOIN c ON c.p = p.id GROUP BY name;
CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN $1; END $$;
CREATE TRIGGER none BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
INSERT INTO p (name, b) SELECT 'p' || i, decode(lpad(to_hex(i), 8, '0'), 'hex') FROM generate_series(1, 500) i;
INSERT INTO c SELECT i, i * 1.5 FROM generate_series(1, 500) i;
CREATE INDEX c_n ON c (n); SELECT lo_from_bytea(0, 'large') IS NOT NULL
"""
CONTENT = "SELECT count(*), sum(n), (SELECT md5(string_agg(whole::text, ',' ORDER BY id)) FROM p whole) FROM c"


@behaviour
def dump_as_text(seat, see):
    seat.psycopg().execute(SHOP)
    code, out, err = run(seat, "pg_dump", "-n", "public")
    out = re.sub(r"^\\(un)?restrict .*$", "", out, flags=re.M)
    see("dump", (code, hash_of(out.encode()), len(out.splitlines()), err))
    code, out, err = run(seat, "pg_dump", "--inserts", "-a", "-t", "p")
    out = re.sub(r"^\\(un)?restrict .*$", "", out, flags=re.M)
    see("inserts", (code, hash_of(out.encode()), err))
    see("schema", run(seat, "pg_dump", "-s", "-n", "public")[0])


@behaviour
def dump_and_restore(seat, see):
    seat.psycopg().execute(SHOP)
    before = [list(row) for row in seat.admin.execute(CONTENT)]
    with tempfile.TemporaryDirectory() as folder:
        for form, jobs in (("custom", 1), ("directory", 2), ("tar", 1)):
            file = os.path.join(folder, form)
            parallel = ("-j", str(jobs)) if jobs > 1 else ()
            code, _, err = run(seat, "pg_dump", "-F", form[0], *parallel, "-f", file, "-n", "public", user="overseer")
            see(f"{form} dump", (code, err))
            seat.admin.execute("DROP SCHEMA public CASCADE")
            parallel = ("-j", str(jobs)) if form != "tar" else ()
            code, _, err = run(seat, "pg_restore", *parallel, "-d", "drivers", file, user="overseer")
            see(f"{form} restore", (code, err))
            see("the same", [list(row) for row in seat.admin.execute(CONTENT)] == before)


@behaviour
def dump_of_everything(seat, see):
    code, out, err = run(seat, "pg_dumpall", "--globals-only", "--no-role-passwords", user="overseer")
    out = re.sub(r"^\\(un)?restrict .*$", "", out, flags=re.M)
    see("globals", (code, hash_of(out.encode()), err))


@behaviour
def maintenance(seat, see):
    seat.psycopg().execute("CREATE TABLE t (a int PRIMARY KEY)")
    for words in (("vacuumdb", "-z", "-t", "t"), ("vacuumdb", "-j", "2"), ("reindexdb", "-t", "t"), ("clusterdb",),
                  ("pg_isready",), ("createdb", "drivers_tools"), ("dropdb", "drivers_tools")):
        # A superuser may vacuum everything, so there are no warnings, whose order would be that of two workers.
        code, out, err = run(seat, *words, user="overseer")
        see(" ".join(words), (code, told(out), err))


@behaviour
def base_backup(seat, see):
    with tempfile.TemporaryDirectory() as folder:
        code, _, err = run(seat, "pg_basebackup", "-F", "tar", "-X", "fetch", "-c", "fast", "-D", os.path.join(folder, "backup"), user="overseer")
        see("backup", (code, err))
