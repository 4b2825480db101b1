//! Every kind of state that a client can leave in its session, in every way it can do so.
//!
//! A kind is what is sent and what shows it. What the right answers are nobody wrote down: a direct connection to the
//! same server that is sent the same says it, and another one that was sent nothing says what a stranger must see.

/// One way of changing a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// What happens, in words.
    pub(super) name: &'static str,
    /// Startup parameters.
    pub(super) startup: &'static [(&'static str, &'static str)],
    /// What is sent, one query each; errors are part of the play.
    pub(super) sets: &'static [&'static str],
    /// What shows it: one query.
    pub(super) reads: &'static str,
    /// Whether its owner may lose it: PostgreSQL's own error then says so.
    pub(super) may_be_lost: bool,
    /// Whether reading it twice gives two answers: a stranger must then see neither.
    pub(super) is_series: bool,
}

pub(super) const fn kind(name: &'static str, sets: &'static [&'static str], reads: &'static str) -> Kind {
    Kind { name, startup: &[], sets, reads, may_be_lost: false, is_series: false }
}

const fn starting(
    name: &'static str,
    startup: &'static [(&'static str, &'static str)],
    reads: &'static str,
) -> Kind {
    Kind { startup, ..kind(name, &[], reads) }
}

/// What all kinds stand on. Functions are volatile and written as people write them.
pub(super) const GROUND: &str = "
CREATE ROLE leak_role SUPERUSER; CREATE ROLE leak_other SUPERUSER;
CREATE TABLE leak_rows (n int); CREATE TABLE leak_triggered (n int); CREATE TABLE leak_ruled (n int);
CREATE TABLE leak_serial (n serial, m int); CREATE SEQUENCE leak_s;
CREATE SCHEMA leak_shadow;
CREATE FUNCTION public.leak_answer() RETURNS text LANGUAGE sql AS $$SELECT 'public'$$;
CREATE FUNCTION leak_shadow.leak_answer() RETURNS text LANGUAGE sql AS $$SELECT 'shadow'$$;
CREATE FUNCTION leak_set(v text) RETURNS int LANGUAGE plpgsql AS
  $$BEGIN EXECUTE format('SET work_mem = %L', v); RETURN 1; END$$;
CREATE FUNCTION leak_plain_set() RETURNS int LANGUAGE plpgsql AS $$BEGIN SET work_mem = '5MB'; RETURN 1; END$$;
CREATE FUNCTION leak_config(v text) RETURNS int LANGUAGE plpgsql AS
  $$BEGIN PERFORM set_config('work_mem', v, false); RETURN 1; END$$;
CREATE FUNCTION leak_outer() RETURNS int LANGUAGE sql AS $$SELECT leak_config('5MB')$$;
CREATE FUNCTION leak_caught() RETURNS int LANGUAGE plpgsql AS
  $$BEGIN SET work_mem = '5MB'; BEGIN SET work_mem = '6MB'; RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL; END; RETURN 1; END$$;
CREATE FUNCTION leak_clause() RETURNS int LANGUAGE plpgsql SET work_mem = '9MB' AS $$BEGIN RETURN 1; END$$;
CREATE FUNCTION leak_reset_all() RETURNS int LANGUAGE plpgsql AS $$BEGIN RESET ALL; RETURN 1; END$$;
CREATE FUNCTION leak_reset() RETURNS int LANGUAGE plpgsql AS $$BEGIN RESET leak.tenant; RETURN 1; END$$;
CREATE FUNCTION leak_default_again() RETURNS int LANGUAGE plpgsql AS
  $$BEGIN SET leak.tenant TO DEFAULT; RETURN 1; END$$;
CREATE FUNCTION leak_temp() RETURNS int LANGUAGE plpgsql AS
  $$BEGIN CREATE TEMP TABLE leak_t (n int); RETURN 1; END$$;
CREATE FUNCTION leak_lock() RETURNS int LANGUAGE plpgsql AS
  $$BEGIN PERFORM pg_advisory_lock(77); RETURN 1; END$$;
CREATE FUNCTION leak_prepare() RETURNS int LANGUAGE plpgsql AS
  $$BEGIN EXECUTE 'PREPARE leak_p AS SELECT 7'; RETURN 1; END$$;
CREATE FUNCTION leak_on_insert() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN PERFORM set_config('work_mem', '5MB', false); RETURN NEW; END$$;
CREATE TRIGGER leak_trigger BEFORE INSERT ON leak_triggered FOR EACH ROW EXECUTE FUNCTION leak_on_insert();
CREATE RULE leak_rule AS ON INSERT TO leak_ruled DO ALSO SELECT set_config('work_mem', '5MB', false);
CREATE TABLE leak_default (n int DEFAULT leak_config('5MB'), m int);
CREATE TABLE leak_check (n int CHECK (leak_config('5MB') = n));
CREATE DOMAIN leak_domain AS int CHECK (leak_config('5MB') = VALUE);
CREATE VIEW leak_view AS SELECT leak_config('5MB') AS n;
CREATE FUNCTION leak_operate(int, int) RETURNS int LANGUAGE sql AS $$SELECT leak_config('5MB')$$;
CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = leak_operate);
CREATE TYPE leak_type AS (n int);
CREATE FUNCTION leak_cast(leak_type) RETURNS int LANGUAGE sql AS $$SELECT leak_config('5MB')$$;
CREATE CAST (leak_type AS int) WITH FUNCTION leak_cast(leak_type);
CREATE FUNCTION leak_add(int, int) RETURNS int LANGUAGE sql AS $$SELECT leak_config('5MB')$$;
CREATE AGGREGATE leak_sum (int) (SFUNC = leak_add, STYPE = int);
CREATE PROCEDURE leak_proc() LANGUAGE plpgsql AS $$BEGIN SET work_mem = '5MB'; COMMIT; END$$;
CREATE TABLE leak_guarded (n int); INSERT INTO leak_guarded VALUES (1);
ALTER TABLE leak_guarded ENABLE ROW LEVEL SECURITY; ALTER TABLE leak_guarded FORCE ROW LEVEL SECURITY;
CREATE ROLE leak_poor; GRANT ALL ON leak_guarded TO leak_poor;
CREATE POLICY leak_policy ON leak_guarded USING (leak_config('5MB') = n);
";

const WORK_MEM: &str = "SHOW work_mem";
const CUSTOM: &str = "SELECT coalesce(current_setting('leak.tenant', true), '')";
const BOTH_RESET: &[&str] = &["SET work_mem = '5MB'", "SET leak.tenant = 'x'", "RESET ALL"];
const PREPARED: &str = "SELECT count(*) FROM pg_prepared_statements WHERE from_sql";
const TEMP: &str = "SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass \
                    AND refobjid = pg_my_temp_schema() AND pg_my_temp_schema() <> 0";
const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
const CURRVAL: &str = "SELECT currval('leak_s') = last_value FROM leak_s";
const WHO: &str = "SELECT session_user || ' ' || current_user";

/// Settings.
pub(super) const SETTINGS: &[Kind] = &[
    kind("SET", &["SET work_mem = '5MB'"], WORK_MEM),
    kind("SET SESSION", &["set session work_mem to 5120"], WORK_MEM),
    kind(
        "SET by UPDATE pg_settings",
        &["UPDATE pg_settings SET setting = 5120 WHERE name = 'work_mem'"],
        WORK_MEM,
    ),
    kind("SET of a custom setting", &["SET leak.tenant = 'a'"], CUSTOM),
    kind("SET of a quoted custom setting", &["SET \"leak\".\"tenant\" = 'a\\''b'"], CUSTOM),
    kind("SET twice in one string", &["SET work_mem = '5MB'; SET leak.tenant = 'x'"], WORK_MEM),
    kind("SET and RESET", &["SET work_mem = '5MB'", "RESET work_mem"], WORK_MEM),
    kind("RESET ALL rolled back", &["SET work_mem = '5MB'", "BEGIN", "RESET ALL", "ROLLBACK"], WORK_MEM),
    kind("RESET ALL under a role", &["SET ROLE leak_role", "SET work_mem = '5MB'", "RESET ALL"], WHO),
    kind("RESET ALL and SET", &["BEGIN", "RESET ALL", "SET work_mem = '5MB'", "COMMIT"], WORK_MEM),
    kind("SET and RESET ALL", BOTH_RESET, CUSTOM),
    kind("SET and RESET ALL, of the server's own", BOTH_RESET, WORK_MEM),
    kind("SET of a custom setting and DISCARD ALL", &["SET leak.tenant = 'x'", "DISCARD ALL"], CUSTOM),
    kind("SET of a custom setting and RESET", &["SET leak.tenant = 'x'", "RESET leak.tenant"], CUSTOM),
    kind(
        "SET of a custom setting to DEFAULT",
        &["SET leak.tenant = 'x'", "SET leak.tenant TO DEFAULT"],
        CUSTOM,
    ),
    kind(
        "RESET of a custom setting rolled back",
        &["SET leak.tenant = 'x'", "BEGIN", "RESET leak.tenant", "ROLLBACK"],
        CUSTOM,
    ),
    kind(
        "RESET ALL of two settings rolled back",
        &["SET work_mem = '5MB'", "SET leak.tenant = 'x'", "BEGIN", "RESET ALL", "ROLLBACK"],
        CUSTOM,
    ),
    kind(
        "RESET ALL in a savepoint rolled back",
        &["SET leak.tenant = 'x'", "BEGIN", "SAVEPOINT s", "RESET ALL", "ROLLBACK TO s", "COMMIT"],
        CUSTOM,
    ),
    kind(
        "RESET in a savepoint rolled back",
        &["SET leak.tenant = 'x'", "BEGIN", "SAVEPOINT s", "RESET leak.tenant", "ROLLBACK TO s", "COMMIT"],
        CUSTOM,
    ),
    kind(
        "RESET ALL in a savepoint released",
        &["SET leak.tenant = 'x'", "BEGIN", "SAVEPOINT s", "RESET ALL", "RELEASE s", "COMMIT"],
        CUSTOM,
    ),
    kind("RESET ALL in a function", &["SET leak.tenant = 'x'", "SELECT leak_reset_all()"], CUSTOM),
    kind("RESET in a function", &["SET leak.tenant = 'x'", "SELECT leak_reset()"], CUSTOM),
    kind("SET TO DEFAULT in a function", &["SET leak.tenant = 'x'", "SELECT leak_default_again()"], CUSTOM),
    kind(
        "RESET ALL in a function rolled back",
        &["SET leak.tenant = 'x'", "BEGIN", "SELECT leak_reset_all()", "ROLLBACK"],
        CUSTOM,
    ),
    kind("RESET ALL in DO", &["SET leak.tenant = 'x'", "DO $$BEGIN RESET ALL; END$$"], CUSTOM),
    kind(
        "RESET ALL in DO with EXECUTE",
        &["SET leak.tenant = 'x'", "DO $$BEGIN EXECUTE 'RESET ' || 'ALL'; END$$"],
        CUSTOM,
    ),
    kind("SET to DEFAULT", &["SET work_mem = '5MB'", "SET work_mem TO DEFAULT"], WORK_MEM),
    kind("SET and DISCARD ALL", &["SET work_mem = '5MB'", "DISCARD ALL"], WORK_MEM),
    kind("SET committed", &["BEGIN", "SET work_mem = '5MB'", "COMMIT"], WORK_MEM),
    kind("SET rolled back", &["SET work_mem = '5MB'", "BEGIN", "SET work_mem = '6MB'", "ROLLBACK"], WORK_MEM),
    kind("SET in a failed transaction", &["BEGIN", "SET work_mem = '6MB'", "SELECT 1/0", "COMMIT"], WORK_MEM),
    kind("SET in a failed string", &["SET work_mem = '6MB'; SELECT 1/0"], WORK_MEM),
    kind(
        "SET in a savepoint rolled back",
        &["BEGIN", "SET work_mem = '5MB'", "SAVEPOINT s", "SET work_mem = '6MB'", "ROLLBACK TO s", "COMMIT"],
        WORK_MEM,
    ),
    kind(
        "SET in a savepoint released",
        &["BEGIN", "SAVEPOINT s", "SET work_mem = '5MB'", "RELEASE s", "COMMIT AND CHAIN", "ROLLBACK"],
        WORK_MEM,
    ),
    kind("SET LOCAL", &["BEGIN", "SET LOCAL work_mem = '6MB'", "COMMIT"], WORK_MEM),
    kind("SET LOCAL alone", &["SET LOCAL work_mem = '6MB'"], WORK_MEM),
    kind(
        "SET over SET LOCAL",
        &["BEGIN", "SET LOCAL work_mem = '6MB'", "SET work_mem = '5MB'", "COMMIT"],
        WORK_MEM,
    ),
    kind(
        "SET LOCAL over SET",
        &["BEGIN", "SET work_mem = '5MB'", "SET LOCAL work_mem = '6MB'", "COMMIT"],
        WORK_MEM,
    ),
    kind("set_config", &["SELECT set_config('work_mem', '5MB', false)"], WORK_MEM),
    kind(
        "set_config, qualified and quoted",
        &["SELECT pg_catalog.\"set_config\"('work_mem', '5MB', false)"],
        WORK_MEM,
    ),
    kind("set_config, escaped", &["SELECT U&\"set\\005fconfig\"('work_mem', '5MB', false)"], WORK_MEM),
    kind("set_config, local", &["BEGIN", "SELECT set_config('work_mem', '6MB', true)", "COMMIT"], WORK_MEM),
    kind("set_config of a computed name", &["SELECT set_config('work' || '_mem', '5MB', false)"], WORK_MEM),
    kind(
        "set_config of names from a table",
        &["SELECT set_config(s, '5MB', false) FROM (VALUES ('work_mem')) AS v(s)"],
        WORK_MEM,
    ),
    kind("set_config in VALUES", &["VALUES (set_config('work_mem', '5MB', false))"], WORK_MEM),
    kind(
        "set_config in FROM",
        &["SELECT * FROM ROWS FROM (set_config('work_mem', '5MB', false)) AS r"],
        WORK_MEM,
    ),
    kind(
        "set_config in WITH",
        &["WITH w AS MATERIALIZED (SELECT set_config('work_mem', '5MB', false) AS s) SELECT s FROM w"],
        WORK_MEM,
    ),
    kind(
        "set_config in INSERT … RETURNING",
        &["INSERT INTO leak_rows VALUES (0) RETURNING set_config('work_mem', '5MB', false)"],
        WORK_MEM,
    ),
    kind(
        "set_config under EXPLAIN ANALYZE",
        &["EXPLAIN ANALYZE SELECT set_config('work_mem', '5MB', false)"],
        WORK_MEM,
    ),
    kind(
        "set_config in CREATE TABLE AS",
        &[
            "DROP TABLE IF EXISTS leak_as",
            "CREATE TABLE leak_as AS SELECT set_config('work_mem', '5MB', false)",
        ],
        WORK_MEM,
    ),
    kind("set_config in COPY", &["COPY (SELECT set_config('work_mem', '5MB', false)) TO STDOUT"], WORK_MEM),
    kind(
        "set_config in a prepared statement",
        &["PREPARE p AS SELECT set_config('work_mem', $1, false)", "EXECUTE p('5MB')", "DEALLOCATE p"],
        WORK_MEM,
    ),
    kind(
        "set_config in a cursor",
        &["BEGIN", "DECLARE c CURSOR FOR SELECT set_config('work_mem', '5MB', false)", "FETCH c", "COMMIT"],
        WORK_MEM,
    ),
    kind("a function with SET", &["SELECT leak_plain_set()"], WORK_MEM),
    kind("a function with EXECUTE", &["SELECT leak_set('5MB')"], WORK_MEM),
    kind("a function that calls one that sets", &["SELECT leak_outer()"], WORK_MEM),
    kind("a function that catches", &["SELECT leak_caught()"], WORK_MEM),
    kind("a function rolled back", &["BEGIN", "SELECT leak_plain_set()", "ROLLBACK"], WORK_MEM),
    kind("a function with a SET clause", &["SELECT leak_clause()"], WORK_MEM),
    kind("a function through a view", &["SELECT * FROM leak_view"], WORK_MEM),
    kind("a function through TABLE", &["TABLE leak_view"], WORK_MEM),
    kind("a function through an operator", &["SELECT 1 @@@ 2"], WORK_MEM),
    kind("a function through a cast", &["SELECT row(1)::leak_type::int"], WORK_MEM),
    kind("a function through an aggregate", &["SELECT leak_sum(v) FROM (VALUES (1), (2)) AS t(v)"], WORK_MEM),
    kind("a function through a domain", &["SELECT 1::leak_domain"], WORK_MEM),
    kind("a function through a default", &["INSERT INTO leak_default (m) VALUES (1)"], WORK_MEM),
    kind("a function through a constraint", &["INSERT INTO leak_check VALUES (1)"], WORK_MEM),
    kind(
        "a function through a row policy",
        &["SET ROLE leak_poor", "SELECT * FROM leak_guarded", "RESET ROLE"],
        WORK_MEM,
    ),
    kind("a trigger", &["INSERT INTO leak_triggered VALUES (1)"], WORK_MEM),
    kind("a rule", &["INSERT INTO leak_ruled VALUES (1)"], WORK_MEM),
    kind("DO", &["DO $$BEGIN SET work_mem = '5MB'; END$$"], WORK_MEM),
    kind("DO with EXECUTE", &["DO $$BEGIN EXECUTE 'SET work_' || 'mem = 5120'; END$$"], WORK_MEM),
    kind("CALL of a procedure that commits", &["CALL leak_proc()"], WORK_MEM),
    kind("search_path that shadows", &["SET search_path = leak_shadow, public"], "SELECT leak_answer()"),
    kind("SET SCHEMA", &["SET SCHEMA 'leak_shadow'"], "SELECT leak_answer()"),
    kind("SET TIME ZONE", &["SET TIME ZONE 'Asia/Tokyo'"], "SELECT timestamptz '2020-01-01 00:00+00'"),
    kind(
        "SET TIME ZONE by interval",
        &["SET TIME ZONE INTERVAL '-3:30' HOUR TO MINUTE"],
        "SELECT timestamptz '2020-01-01 00:00+00'",
    ),
    kind("SET NAMES", &["SET NAMES 'LATIN1'"], "SELECT convert_from('\\xc3a9', 'UTF8')"),
    kind("client_encoding", &["SET client_encoding = 'SJIS'"], "SHOW client_encoding"),
    kind("DateStyle", &["SET DateStyle = 'German, DMY'"], "SELECT date '2020-02-01'"),
    kind("IntervalStyle", &["SET IntervalStyle = 'iso_8601'"], "SELECT interval '1 day 2 hours'"),
    kind("bytea_output", &["SET bytea_output = 'escape'"], "SELECT '\\x0061'::bytea"),
    kind("extra_float_digits", &["SET extra_float_digits = -10"], "SELECT 1.0::float8 / 3"),
    kind("standard_conforming_strings", &["SET standard_conforming_strings = off"], "SELECT 'a\\\\b'"),
    kind("statement_timeout", &["SET statement_timeout = '61s'"], "SHOW statement_timeout"),
    kind("lock_timeout", &["SET lock_timeout = 61000"], "SHOW lock_timeout"),
    kind("application_name", &["SET application_name = 'a, b ''c'"], "SHOW application_name"),
    kind(
        "default_transaction_read_only",
        &["SET default_transaction_read_only = on"],
        "SHOW transaction_read_only",
    ),
    kind(
        "SESSION CHARACTERISTICS",
        &["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
        "SHOW transaction_isolation",
    ),
    kind("transaction_read_only", &["BEGIN READ ONLY", "SELECT 1", "COMMIT"], "SHOW transaction_read_only"),
    kind(
        "SET TRANSACTION",
        &["BEGIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "COMMIT"],
        "SHOW transaction_isolation",
    ),
    kind("SET ROLE", &["SET ROLE leak_role"], WHO),
    kind("SET ROLE and back", &["SET ROLE leak_role", "SET ROLE NONE"], WHO),
    kind("SET LOCAL ROLE", &["BEGIN", "SET LOCAL ROLE leak_role", "COMMIT"], WHO),
    kind("role by set_config", &["SELECT set_config('role', 'leak_role', false)"], WHO),
    kind("SET SESSION AUTHORIZATION", &["SET SESSION AUTHORIZATION leak_role"], WHO),
    kind(
        "SET SESSION AUTHORIZATION and ROLE",
        &["SET SESSION AUTHORIZATION leak_role", "SET ROLE leak_other"],
        WHO,
    ),
    kind(
        "SESSION AUTHORIZATION rolled back",
        &["BEGIN", "SET SESSION AUTHORIZATION leak_role", "ROLLBACK"],
        WHO,
    ),
    kind("SET XML OPTION", &["SET XML OPTION DOCUMENT"], "SHOW xmloption"),
    kind(
        "session_replication_role",
        &["SET session_replication_role = replica"],
        "SHOW session_replication_role",
    ),
    starting("startup option", &[("options", "-c work_mem=5MB -c leak.tenant=a")], WORK_MEM),
    starting("custom startup option", &[("options", "-c work_mem=5MB -c leak.tenant=a")], CUSTOM),
    starting("startup DateStyle", &[("DateStyle", "SQL, DMY")], "SELECT date '2020-02-01'"),
    starting("startup search_path", &[("search_path", "leak_shadow")], "SELECT leak_answer()"),
    starting(
        "startup client_encoding",
        &[("client_encoding", "LATIN1")],
        "SELECT convert_from('\\xc3a9', 'UTF8')",
    ),
    starting("startup application_name", &[("application_name", "the first")], "SHOW application_name"),
    starting("startup role", &[("role", "leak_role")], WHO),
    Kind {
        startup: &[("options", "-c work_mem=5MB")],
        ..kind("RESET to a startup option", &["SET work_mem = '7MB'", "RESET work_mem"], WORK_MEM)
    },
    Kind {
        startup: &[("options", "-c work_mem=5MB")],
        ..kind("RESET ALL to a startup option", &["SET work_mem = '7MB'", "RESET ALL"], WORK_MEM)
    },
    Kind {
        startup: &[("options", "-c leak.tenant=5MB")],
        ..kind("RESET ALL in a function to a startup option", &["SELECT leak_reset_all()"], CUSTOM)
    },
    Kind {
        startup: &[("options", "-c work_mem=5MB")],
        ..kind(
            "SET TO DEFAULT with a startup option",
            &["SET work_mem = '7MB'", "SET work_mem TO DEFAULT"],
            WORK_MEM,
        )
    },
    Kind {
        startup: &[("TimeZone", "Asia/Tokyo")],
        ..kind(
            "DISCARD ALL to a startup parameter",
            &["SET TimeZone = 'UTC'", "DISCARD ALL"],
            "SHOW TimeZone",
        )
    },
];

/// Whatever a session has but settings.
pub(super) const OBJECTS: &[Kind] = &[
    kind("PREPARE", &["PREPARE leak_p AS SELECT 7"], "EXECUTE leak_p"),
    kind("PREPARE, counted", &["PREPARE leak_p AS SELECT 7"], PREPARED),
    kind(
        "PREPARE with types",
        &["PREPARE \"leak P\" (int, text) AS SELECT $1 + 1, $2"],
        "EXECUTE \"leak P\"(1, 'x')",
    ),
    kind("PREPARE rolled back", &["BEGIN", "PREPARE leak_p AS SELECT 7", "ROLLBACK"], "EXECUTE leak_p"),
    kind(
        "PREPARE in a failed transaction",
        &["BEGIN", "PREPARE leak_p AS SELECT 7", "SELECT 1/0", "COMMIT"],
        PREPARED,
    ),
    kind("PREPARE and DEALLOCATE", &["PREPARE leak_p AS SELECT 7", "DEALLOCATE leak_p"], PREPARED),
    kind("PREPARE and DEALLOCATE ALL", &["PREPARE leak_p AS SELECT 7", "DEALLOCATE ALL"], PREPARED),
    kind(
        "EXECUTE of what DO prepared",
        &[
            "DO $$BEGIN EXECUTE 'PREPARE leak_p AS SELECT set_config(''work_mem'', ''5MB'', false)'; END$$",
            "EXECUTE leak_p",
            "DEALLOCATE leak_p",
        ],
        WORK_MEM,
    ),
    kind(
        "EXECUTE of what DO prepared, in one transaction",
        &[
            "BEGIN",
            "DO $$BEGIN EXECUTE 'PREPARE leak_p AS SELECT set_config(''work_mem'', ''5MB'', false)'; END$$",
            "EXECUTE leak_p",
            "DEALLOCATE leak_p",
            "COMMIT",
        ],
        WORK_MEM,
    ),
    kind("PREPARE in a function", &["SELECT leak_prepare()"], "EXECUTE leak_p"),
    kind("PREPARE in DO", &["DO $$BEGIN EXECUTE 'PREPARE leak_p AS SELECT 7'; END$$"], PREPARED),
    kind(
        "PREPARE under a search_path",
        &["SET search_path = leak_shadow", "PREPARE leak_p AS SELECT leak_answer()", "RESET search_path"],
        "EXECUTE leak_p",
    ),
    kind(
        "CREATE TEMP TABLE",
        &["CREATE TEMP TABLE leak_t (n int)", "INSERT INTO leak_t VALUES (1)"],
        "SELECT n FROM leak_t",
    ),
    kind(
        "CREATE TEMP TABLE that shadows",
        &["CREATE TEMP TABLE leak_rows AS SELECT 9 AS n"],
        "SELECT sum(n) FROM leak_rows WHERE n > 0",
    ),
    kind("CREATE TABLE in pg_temp", &["CREATE TABLE pg_temp.leak_t (n int)"], TEMP),
    kind("SELECT INTO TEMP", &["SELECT 1 AS n INTO TEMP leak_t"], "SELECT n FROM leak_t"),
    kind("temp view", &["CREATE TEMP VIEW leak_v AS SELECT 5 AS n"], "SELECT n FROM leak_v"),
    kind(
        "view made temporary by what it reads",
        &["CREATE TEMP TABLE leak_t AS SELECT 5 AS n", "CREATE VIEW leak_v AS SELECT * FROM leak_t"],
        "SELECT n FROM leak_v",
    ),
    kind("temp sequence", &["CREATE TEMP SEQUENCE leak_ts"], TEMP),
    kind("temp function", &["CREATE FUNCTION pg_temp.leak_f() RETURNS int LANGUAGE sql AS 'SELECT 3'"], TEMP),
    kind("temp type", &["CREATE TYPE pg_temp.leak_ty AS (n int)"], TEMP),
    kind(
        "temp table by search_path",
        &["SET search_path = pg_temp, public", "CREATE TABLE leak_t (n int)", "RESET search_path"],
        TEMP,
    ),
    kind("temp table dropped", &["CREATE TEMP TABLE leak_t (n int)", "DROP TABLE leak_t"], TEMP),
    kind("temp table rolled back", &["BEGIN", "CREATE TEMP TABLE leak_t (n int)", "ROLLBACK"], TEMP),
    kind(
        "temp table ON COMMIT DROP",
        &["BEGIN", "CREATE TEMP TABLE leak_t (n int) ON COMMIT DROP", "COMMIT"],
        TEMP,
    ),
    kind("temp table and DISCARD TEMP", &["CREATE TEMP TABLE leak_t (n int)", "DISCARD TEMP"], TEMP),
    kind("temp table in a function", &["SELECT leak_temp()"], TEMP),
    kind("temp table in DO", &["DO $$BEGIN CREATE TEMP TABLE leak_t (n int); END$$"], TEMP),
    kind(
        "WITH HOLD cursor",
        &["BEGIN", "DECLARE leak_c CURSOR WITH HOLD FOR SELECT 4", "COMMIT"],
        "FETCH BACKWARD ALL FROM leak_c",
    ),
    kind(
        "WITH HOLD cursor, counted",
        &["DECLARE leak_c CURSOR WITH HOLD FOR SELECT 4"],
        "SELECT count(*) FROM pg_cursors WHERE name = 'leak_c'",
    ),
    kind(
        "WITH HOLD cursor closed",
        &["DECLARE leak_c CURSOR WITH HOLD FOR SELECT 4", "CLOSE leak_c"],
        "FETCH leak_c",
    ),
    kind(
        "WITH HOLD cursor rolled back",
        &["BEGIN", "DECLARE leak_c CURSOR WITH HOLD FOR SELECT 4", "ROLLBACK"],
        "FETCH leak_c",
    ),
    kind("advisory lock", &["SELECT pg_advisory_lock(1)"], LOCKS),
    kind("shared advisory lock", &["SELECT pg_advisory_lock_shared(1)"], LOCKS),
    kind("advisory lock of two keys", &["SELECT pg_advisory_lock(1, 2)"], LOCKS),
    kind("tried advisory lock", &["SELECT pg_try_advisory_lock(1)"], LOCKS),
    kind("tried shared advisory lock of two keys", &["SELECT pg_try_advisory_lock_shared(1, 2)"], LOCKS),
    kind(
        "advisory lock, its transaction rolled back",
        &["BEGIN", "SELECT pg_advisory_lock(1)", "ROLLBACK"],
        LOCKS,
    ),
    kind(
        "advisory lock, its transaction failed",
        &["BEGIN", "SELECT pg_advisory_lock(1)", "SELECT 1/0", "COMMIT"],
        LOCKS,
    ),
    kind("advisory lock given back", &["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"], LOCKS),
    kind(
        "advisory lock held twice",
        &["SELECT pg_advisory_lock(1), pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"],
        LOCKS,
    ),
    kind(
        "advisory locks all given back",
        &["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock_all()"],
        LOCKS,
    ),
    kind("advisory lock of a transaction", &["BEGIN", "SELECT pg_advisory_xact_lock(1)", "COMMIT"], LOCKS),
    kind("advisory lock in a function", &["SELECT leak_lock()"], LOCKS),
    kind("nextval", &["SELECT nextval('leak_s')"], CURRVAL),
    kind("setval", &["SELECT setval('leak_s', 42)"], CURRVAL),
    kind("nextval, then lastval", &["SELECT nextval('leak_s')"], "SELECT lastval() = last_value FROM leak_s"),
    Kind {
        may_be_lost: true,
        ..kind(
            "a column's default",
            &["INSERT INTO leak_serial (m) VALUES (1)"],
            "SELECT lastval() = last_value FROM leak_serial_n_seq",
        )
    },
    kind("nextval and DISCARD SEQUENCES", &["SELECT nextval('leak_s')", "DISCARD SEQUENCES"], CURRVAL),
    Kind { is_series: true, ..kind("setseed", &["SELECT setseed(0.25)"], "SELECT random()") },
    Kind { is_series: true, ..kind("SET seed", &["SET seed = 0.25"], "SELECT random()") },
    kind("LOAD", &["LOAD 'auto_explain'"], "SHOW auto_explain.log_min_duration"),
    kind("LOAD in DO", &["DO $$BEGIN LOAD 'auto_explain'; END$$"], "SHOW auto_explain.log_min_duration"),
    kind(
        "a replication slot of the session",
        &["SELECT slot_name FROM pg_create_physical_replication_slot('leak_slot', false, true)"],
        "SELECT count(*) FROM pg_replication_slots WHERE active_pid = pg_backend_pid()",
    ),
    kind(
        "an open transaction",
        &["BEGIN", "INSERT INTO leak_rows VALUES (7)"],
        "SELECT count(*) FROM leak_rows WHERE n = 7",
    ),
    kind(
        "an open transaction that failed",
        &["BEGIN", "INSERT INTO leak_rows VALUES (7)", "SELECT 1/0"],
        "SELECT 1",
    ),
    kind("a held BEGIN", &["BEGIN"], "SELECT pg_current_xact_id_if_assigned()"),
    kind(
        "an open cursor",
        &["BEGIN", "DECLARE leak_c CURSOR FOR VALUES (1), (2)"],
        "FETCH FIRST FROM leak_c",
    ),
];
