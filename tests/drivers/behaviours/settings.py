"""Settings: what a session sets stays its own, and what the driver is told of it."""

import psycopg

from .registry import behaviour, rows, value

REPORTED = [
    "server_version", "server_encoding", "client_encoding", "application_name", "is_superuser", "session_authorization",
    "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings", "in_hot_standby",
    "default_transaction_read_only", "scram_iterations", "search_path",
]


def reported(connection):
    return [connection.info.parameter_status(name) for name in REPORTED]


@behaviour
def reported_at_login(seat, see):
    see("plain", reported(seat.psycopg()))
    see("asked for", reported(seat.psycopg(client_encoding="LATIN1", application_name="shop", options="-c TimeZone=Asia/Tokyo")))
    see("superuser", reported(seat.psycopg(user="overseer")))


@behaviour
def reported_after_changes(seat, see):
    connection = seat.psycopg()
    for sql in (
        "SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'SQL, DMY'", "SET application_name = 'new name'", "SET NAMES 'LATIN1'",
        "SET IntervalStyle = 'iso_8601'", "SELECT set_config('TimeZone', 'America/Lima', false)", "RESET TimeZone",
        "SET standard_conforming_strings = off", "BEGIN", "SET LOCAL TimeZone = 'Europe/Rome'", "ROLLBACK", "RESET ALL", "DISCARD ALL",
    ):
        connection.execute(sql)
        see(sql, reported(connection))
        see("next", (value(connection, "SELECT 1"), reported(connection)[8]))


@behaviour
def kept_over_transactions(seat, see):
    connection = seat.psycopg(autocommit=False)
    settings = {
        "TimeZone": "America/Lima", "DateStyle": "German, DMY", "work_mem": "3MB", "statement_timeout": "12345ms", "app.tenant": "7",
        "search_path": "pg_temp, \"Odd Name\", public", "lock_timeout": "4321ms", "enable_seqscan": "off", "bytea_output": "escape",
        "default_transaction_isolation": "serializable", "random_page_cost": "2.5", "client_min_messages": "error",
        "idle_in_transaction_session_timeout": "9min", "jit": "off", "plan_cache_mode": "force_custom_plan", "extra_float_digits": "0",
        "row_security": "off", "synchronous_commit": "off", "check_function_bodies": "off", "xmloption": "document", "lc_monetary": "C",
        "vacuum_cost_delay": "3ms", "tcp_keepalives_idle": "77", "constraint_exclusion": "on", "geqo_threshold": "9",
    }
    for name, setting in settings.items():
        see.error(name, lambda n=name, s=setting: value(connection, "SELECT set_config(%s, %s, false)", [n, s]))
        connection.commit()
    for name in settings:
        see(name, value(connection, f"SHOW {name}"))
        connection.rollback()


@behaviour
def rolled_back(seat, see):
    connection = seat.psycopg()
    connection.execute("SET app.tenant = 'before'")
    connection.execute("BEGIN")
    connection.execute("SET app.tenant = 'within'")
    see("within", value(connection, "SHOW app.tenant"))
    connection.execute("ROLLBACK")
    see("after", value(connection, "SHOW app.tenant"))
    connection.execute("BEGIN; SET app.tenant = 'committed'; COMMIT")
    see("committed", value(connection, "SHOW app.tenant"))
    see.error("fails", lambda: connection.execute("SET app.tenant = 'string'; SELECT 1/0"))
    see("of the failed string", value(connection, "SHOW app.tenant"))


@behaviour
def rolled_back_to_a_savepoint(seat, see):
    connection = seat.psycopg()
    connection.execute("BEGIN; SET TimeZone = 'Asia/Tokyo'; SAVEPOINT a")
    connection.execute("SET TimeZone = 'America/Lima'")
    connection.execute("ROLLBACK TO a")
    see("within", value(connection, "SHOW TimeZone"))
    connection.execute("SAVEPOINT b; SET TimeZone = 'Europe/Rome'; RELEASE b; COMMIT")
    see("after", value(connection, "SHOW TimeZone"))


@behaviour
def local_to_a_transaction(seat, see):
    connection = seat.psycopg()
    before = value(connection, "SHOW work_mem")
    connection.execute("BEGIN; SET LOCAL work_mem = '2MB'; SELECT set_config('app.tenant', 'local', true)")
    see("within", rows(connection, "SELECT current_setting('work_mem'), current_setting('app.tenant')"))
    connection.execute("COMMIT")
    see("after", (value(connection, "SHOW work_mem") == before, value(connection, "SELECT current_setting('app.tenant', true)")))
    connection.execute("SET app.tenant = 'session'; BEGIN; SET LOCAL app.tenant = 'local'; COMMIT")
    see("the session's", value(connection, "SHOW app.tenant"))


@behaviour
def both_local_and_session(seat, see):
    connection = seat.psycopg()
    connection.execute("BEGIN; SET work_mem = '5MB'; SET LOCAL work_mem = '6MB'")
    see("within", value(connection, "SHOW work_mem"))
    connection.execute("COMMIT")
    see("after", value(connection, "SHOW work_mem"))
    connection.execute("BEGIN; SET LOCAL work_mem = '7MB'; SET work_mem = '8MB'; COMMIT")
    see("the last", value(connection, "SHOW work_mem"))


@behaviour
def reset_goes_back_to_the_start(seat, see):
    connection = seat.psycopg(options="-c TimeZone=Asia/Tokyo -c work_mem=3MB", application_name="started")
    connection.execute("SET TimeZone = 'UTC'; SET work_mem = '9MB'; SET application_name = 'changed'")
    connection.execute("RESET TimeZone")
    see("one", (value(connection, "SHOW TimeZone"), value(connection, "SHOW work_mem")))
    connection.execute("RESET ALL")
    see("all", (value(connection, "SHOW work_mem"), value(connection, "SHOW application_name")))
    connection.execute("SET work_mem = '9MB'; SET application_name TO DEFAULT; SET work_mem TO DEFAULT")
    see("to default", (value(connection, "SHOW work_mem"), value(connection, "SHOW application_name")))
    connection.execute("SET work_mem = '8MB'")
    connection.execute("DISCARD ALL")
    see("discard", (value(connection, "SHOW work_mem"), value(connection, "SHOW TimeZone")))


@behaviour
def never_set(seat, see):
    connection = seat.psycopg()
    see.error("unknown", lambda: value(connection, "SHOW app.tenant"))
    see("missing is fine", value(connection, "SELECT current_setting('app.tenant', true)"))
    see.error("set unknown", lambda: connection.execute("SET no_such_setting = 1"))
    see.error("bad value", lambda: connection.execute("SET work_mem = 'much'"))
    see.error("bad zone", lambda: connection.execute("SET TimeZone = 'Mars/Olympus'"))
    see.error("not allowed", lambda: connection.execute("SET log_statement = 'all'"))
    see.error("needs a restart", lambda: connection.execute("SET max_connections = 5"))


@behaviour
def a_placeholder_after_reset(seat, see):
    connection = seat.psycopg()
    connection.execute("SET app.tenant = 'x'")
    connection.execute("RESET app.tenant")
    see.error("empty", lambda: value(connection, "SHOW app.tenant"))
    see("again", value(connection, "SELECT current_setting('app.tenant', true)"))


@behaviour
def odd_values(seat, see):
    connection = seat.psycopg()
    for text in ("it's", 'a "b"', "a\\b", "ünï ☃", " spaces ", "", "a;b", "$1", "x" * 3000, "new\nline", "E'\\n'"):
        connection.execute("SELECT set_config('app.tenant', %s, false)", [text])
        see(text[:10], value(connection, "SHOW app.tenant") == text)
    connection.execute("SET search_path TO 'a b', \"C,d\", pg_catalog")
    see("path", (value(connection, "SHOW search_path"), value(connection, "SHOW search_path")))


@behaviour
def roles(seat, see):
    connection = seat.psycopg()
    connection.execute("SET ROLE reader")
    for _ in range(2):
        see("reader", rows(connection, "SELECT current_user, session_user, current_setting('role')"))
    see.error("may not", lambda: connection.execute("CREATE ROLE no"))
    see("reported", reported(connection)[4:6])
    connection.execute("RESET ROLE")
    see("again", value(connection, "SELECT current_user"))
    connection.execute("BEGIN; SET LOCAL ROLE reader")
    see("local", value(connection, "SELECT current_user"))
    connection.execute("COMMIT")
    see("after", value(connection, "SELECT current_user"))
    see.error("unknown", lambda: connection.execute("SET ROLE nobody_at_all"))
    connection.execute("SET ROLE reader")
    connection.execute("RESET ALL")
    see("reset all keeps it", value(connection, "SELECT current_user"))
    connection.execute("DISCARD ALL")
    see("discard all", value(connection, "SELECT current_user"))


@behaviour
def row_policies_by_role_and_setting(seat, see):
    setup = seat.psycopg()
    setup.execute("""CREATE TABLE t (tenant text, v int); INSERT INTO t VALUES ('a', 1), ('b', 2), ('stranger', 3);
        ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO reader;
        CREATE POLICY p ON t TO reader USING (tenant = current_setting('app.tenant', true))""")
    clients = {tenant: seat.psycopg() for tenant in "ab"}
    for tenant, connection in clients.items():
        connection.execute("SET ROLE reader")
        connection.execute(f"SET app.tenant = '{tenant}'")
    for _ in range(3):
        for tenant, connection in clients.items():
            see(tenant, connection.execute("SELECT v FROM t", prepare=True).fetchall())


@behaviour
def session_authorization(seat, see):
    connection = seat.psycopg(user="overseer")
    connection.execute("SET SESSION AUTHORIZATION reader")
    for _ in range(2):
        see("reader", rows(connection, "SELECT current_user, session_user"))
    see("reported", reported(connection)[4:6])
    see.error("may not", lambda: connection.execute("ALTER SYSTEM SET work_mem = '4MB'"))
    connection.execute("RESET SESSION AUTHORIZATION")
    see("again", rows(connection, "SELECT current_user, session_user"))


@behaviour
def set_within_functions(seat, see):
    connection = seat.psycopg()
    connection.execute("""
        CREATE FUNCTION sets() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $$;
        CREATE FUNCTION with_clause() RETURNS text LANGUAGE sql SET TimeZone = 'America/Lima' AS 'SELECT current_setting(''TimeZone'')';
        CREATE PROCEDURE sets_by_sql() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '3MB'; END $$""")
    before = value(connection, "SHOW TimeZone")
    see("clause", (value(connection, "SELECT with_clause()"), value(connection, "SHOW TimeZone") == before))
    connection.execute("SELECT sets()")
    see("function", value(connection, "SHOW TimeZone"))
    connection.execute("CALL sets_by_sql()")
    see("procedure", value(connection, "SHOW work_mem"))
    connection.execute("DO $$ BEGIN SET statement_timeout = '77s'; EXECUTE 'SET lock_timeout = ''66s'''; END $$")
    see("do", (value(connection, "SHOW statement_timeout"), value(connection, "SHOW lock_timeout")))
    see("all", (value(connection, "SHOW TimeZone"), value(connection, "SHOW work_mem")))


@behaviour
def set_through_the_view(seat, see):
    connection = seat.psycopg()
    connection.execute("UPDATE pg_settings SET setting = '5000' WHERE name = 'statement_timeout'")
    for _ in range(2):
        see("kept", value(connection, "SHOW statement_timeout"))


@behaviour
def startup_options(seat, see):
    for options in ("-c work_mem=3MB", "-cwork_mem=3MB", "--work_mem=3MB", "-c search_path=a,b -c TimeZone=UTC", r"-c app.tenant=a\ b\\c",
                    "-c statement_timeout=5s", "-c no_such=1", "-c work_mem=much", "-x", "-c role=reader", "-c DateStyle=German"):
        def login(options=options):
            connection = seat.psycopg(options=options)
            shown = ("work_mem", "search_path", "TimeZone", "statement_timeout", "role", "DateStyle")
            got = [value(connection, f"SHOW {name}") for name in shown]
            return [*got, value(connection, "SELECT coalesce(current_setting('app.tenant', true), '')")]
        see.error(options, login)


@behaviour
def client_encodings(seat, see):
    connection = seat.psycopg(client_encoding="LATIN1")
    connection.execute("CREATE TABLE t (a text)")
    connection.execute("INSERT INTO t VALUES ('é')")
    see("octets", rows(connection, "SELECT octet_length(a), a FROM t"))
    other = seat.psycopg()
    see("in UTF-8", rows(other, "SELECT a, octet_length(a) FROM t"))
    other.execute("SET client_encoding TO 'WIN1251'")
    see("cyrillic", value(other, "SELECT 'Привет'"))
    see.error("not there", lambda: rows(other, "SELECT a FROM t"))
    other.execute("SET NAMES 'UTF8'")
    see("again", rows(other, "SELECT a FROM t"))
    see.error("unknown", lambda: seat.psycopg2(client_encoding="EBCDIC"))


@behaviour
def time_zones_seen_by_drivers(seat, see):
    connection = seat.psycopg()
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    for _ in range(2):
        see("psycopg", str(value(connection, "SELECT '2024-06-01 12:00+00'::timestamptz")))
        see("zone", str(connection.info.timezone))
    cursor = seat.psycopg2(options="-c TimeZone=America/Lima").cursor()
    cursor.execute("SELECT '2024-06-01 12:00+00'::timestamptz")
    see("psycopg2", str(cursor.fetchone()[0]))


@behaviour
def statement_timeouts(seat, see):
    connection = seat.psycopg()
    connection.execute("SET statement_timeout = '60ms'")
    for _ in range(2):
        see.error("ended", lambda: connection.execute("SELECT pg_sleep(5)"))
    connection.execute("SET statement_timeout = 0")
    see("none", value(connection, "SELECT 'slept' FROM pg_sleep(0.1)"))
    other = seat.psycopg(options="-c statement_timeout=60ms")
    see.error("from the start", lambda: other.execute("SELECT pg_sleep(5)"))
    other.execute("BEGIN; SET LOCAL statement_timeout = '10s'")
    see("local", value(other, "SELECT 'slept' FROM pg_sleep(0.1)"))


@behaviour
def application_names(seat, see):
    connection = seat.psycopg(application_name="shop")
    own = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    see("seen", (value(connection, own), value(connection, "SHOW application_name")))
    connection.execute("SET application_name = 'till'")
    see("seen", (value(connection, own), value(connection, own)))
    see("none", value(seat.psycopg(), own))
    see("not ASCII", value(seat.psycopg(application_name="kässe"), own))


@behaviour
def of_role_and_database(seat, see):
    """Defaults made by ALTER ROLE and ALTER DATABASE hold for sessions that begin later."""
    seat.admin.execute("ALTER ROLE driver SET work_mem = '11MB'; ALTER DATABASE drivers SET app.shop = 'open'")
    try:
        connection = seat.psycopg()
        see("new session", rows(connection, "SELECT current_setting('work_mem'), current_setting('app.shop', true)"))
    finally:
        seat.admin.execute("ALTER ROLE driver RESET ALL; ALTER DATABASE drivers RESET ALL")


@behaviour
def a_transaction_read_only_by_default(seat, see):
    connection = seat.psycopg()
    connection.execute("SET default_transaction_read_only = on")
    see.error("write", lambda: connection.execute("CREATE TABLE t (a int)"))
    other = seat.psycopg()
    see("others may", other.execute("CREATE TABLE t (a int)").statusmessage)
    see("shown", (value(connection, "SHOW transaction_read_only"), value(other, "SHOW transaction_read_only")))


@behaviour
def where_settings_come_from(seat, see):
    connection = seat.psycopg(options="-c work_mem=3MB")
    connection.execute("SET lock_timeout = '5s'")
    see("sources", rows(connection, "SELECT name, setting, source, reset_val FROM pg_settings"
                                    " WHERE name IN ('work_mem', 'lock_timeout', 'geqo_seed') ORDER BY 1"))


@behaviour
def a_seed_for_random(seat, see):
    connection = seat.psycopg()
    connection.execute("SELECT setseed(0.5)")
    see("first", value(connection, "SELECT random()"))
    see("second", value(connection, "SELECT random()"))
    connection.execute("SET seed = 0.25")
    see("by SET", value(connection, "SELECT random()"))


@behaviour
def strings_with_backslashes(seat, see):
    connection = seat.psycopg()
    see("standard", value(connection, r"SELECT 'a\nb'"))
    connection.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
    for _ in range(2):
        see("escaped", value(connection, r"SELECT 'a\'; SELECT 2; --'"))
    see("quoted by libpq", psycopg.pq.Escaping(connection.pgconn).escape_string(b"a\\b'c"))


@behaviour
def a_reload_of_the_server(seat, see):
    import time

    connection = seat.psycopg()
    see("before", connection.info.parameter_status("IntervalStyle"))
    seat.admin.execute("ALTER SYSTEM SET IntervalStyle = 'sql_standard'")
    try:
        seat.admin.execute("SELECT pg_reload_conf()")
        limit = time.monotonic() + 5
        while value(connection, "SHOW IntervalStyle") != "sql_standard" and time.monotonic() < limit:
            time.sleep(0.02)
        see("after", (value(connection, "SHOW IntervalStyle"), connection.info.parameter_status("IntervalStyle")))
    finally:
        seat.admin.execute("ALTER SYSTEM RESET IntervalStyle")
        seat.admin.execute("SELECT pg_reload_conf()")
        while value(seat.admin, "SHOW IntervalStyle") != "postgres":
            time.sleep(0.02)
