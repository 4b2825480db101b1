//! Statements, one a line: shape, effects, settings touched.

use tenfold_sql::{Catalogue, Decision, Dialect};

use crate::support::{classify, classify_with, database, label};

/// `sql → shape | effects [settings]`; effects in the order of their bits, none if left out.
fn check(catalogue: &Catalogue, dialect: Dialect, lines: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, expected) in lines {
        let decision = classify_with(sql, dialect, catalogue);
        let found = told(&decision);
        if found != *expected {
            wrong.push(format!("{sql}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

fn told(decision: &Decision) -> String {
    let mut told = label(&decision.shape);
    if !decision.effects.is_empty() {
        told += &format!(" | {}", decision.effects);
    }
    if !decision.settings.is_empty() {
        told += &format!(" [{}]", decision.settings.join(","));
    }
    told
}

/// What a database with these risky things in it makes of the statements.
fn shop() -> std::sync::Arc<Catalogue> {
    let functions = [
        ("harmless", "sql", "SELECT $1 + 1"),
        ("set_zone", "plpgsql", "BEGIN SET TimeZone TO 'UTC'; END"),
        (
            "set_local",
            "plpgsql",
            "BEGIN SET LOCAL TimeZone TO 'UTC'; PERFORM set_config('a.b', 'x', true); END",
        ),
        ("locks", "sql", "SELECT pg_advisory_lock($1)"),
        ("next_id", "sql", "SELECT nextval('ids')"),
        ("perl", "plperlu", "..."),
        ("total", "sql", "SELECT 1"),
        ("audit", "plpgsql", "BEGIN PERFORM set_zone(); RETURN NEW; END"),
        ("Mixed", "plpgsql", "BEGIN RESET ALL; END"),
    ];
    let relations = [
        (
            "orders",
            "w",
            Some("CREATE TRIGGER a BEFORE INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION audit()"),
        ),
        ("items", "w", Some("nextval('items_id_seq'::regclass)")),
        ("people", "i", None),
        ("zoned", "v", Some(" SELECT set_zone() AS z, items.id FROM items;")),
        ("Quoted", "w", Some("set_zone()")),
    ];
    database(&functions, &relations)
}

fn standard(lines: &[(&str, &str)]) {
    check(&shop(), Dialect::default(), lines);
}

#[test]
fn transactions_are_exact() {
    standard(&[
        ("BEGIN", "Begin"),
        ("begin;", "Begin"),
        ("BEGIN WORK", "Begin"),
        ("BEGIN TRANSACTION", "Begin"),
        ("/* x */ BEGIN -- y", "Begin"),
        ("  \n\tBEGIN ; ; ", "Begin"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "Begin Serializable"),
        ("BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY", "Begin ReadCommitted ro"),
        ("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", "Begin ReadCommitted rw"),
        (
            "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE",
            "Begin RepeatableRead ro deferrable",
        ),
        ("BEGIN READ ONLY", "Begin ro"),
        ("BEGIN NOT DEFERRABLE", "Begin not"),
        ("BEGIN READ WRITE, READ ONLY", "Begin ro"),
        ("START TRANSACTION", "Start"),
        ("START TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", "Start ReadUncommitted"),
        ("START TRANSACTION READ ONLY;", "Start ro"),
        ("START", "Other | UNKNOWN"),
        ("START WORK", "Other | UNKNOWN"),
        ("BEGIN READ", "Other | UNKNOWN"),
        ("BEGIN READ ONLY,", "Other | UNKNOWN"),
        ("BEGIN , READ ONLY", "Other | UNKNOWN"),
        ("BEGIN WORK TRANSACTION", "Other | UNKNOWN"),
        ("BEGIN foo", "Other | UNKNOWN"),
        ("\"BEGIN\"", "Other | UNKNOWN"),
        ("BEGIN ISOLATION LEVEL SNAPSHOT", "Other | UNKNOWN"),
        ("COMMIT", "Commit"),
        ("COMMIT WORK", "Commit"),
        ("COMMIT TRANSACTION AND CHAIN", "Commit chain"),
        ("COMMIT AND NO CHAIN", "Commit"),
        ("COMMIT AND", "Other | UNKNOWN"),
        ("END", "Commit"),
        ("END TRANSACTION", "Commit"),
        ("ROLLBACK", "Rollback"),
        ("ROLLBACK WORK AND CHAIN", "Rollback chain"),
        ("ABORT", "Rollback"),
        ("ABORT TRANSACTION", "Rollback"),
        ("SAVEPOINT a", "Savepoint a"),
        ("SAVEPOINT \"A b\"", "Savepoint A b"),
        ("savepoint SP_1", "Savepoint sp_1"),
        ("SAVEPOINT", "Other | UNKNOWN"),
        ("RELEASE a", "Release a"),
        ("RELEASE SAVEPOINT a", "Release a"),
        ("RELEASE savepoint", "Release savepoint"),
        ("ROLLBACK TO a", "RollbackTo a"),
        ("ROLLBACK TO SAVEPOINT a", "RollbackTo a"),
        ("ROLLBACK WORK TO SAVEPOINT a", "RollbackTo a"),
        ("ROLLBACK TRANSACTION TO a", "RollbackTo a"),
        ("PREPARE TRANSACTION 'x'", "PrepareTransaction"),
        ("PREPARE TRANSACTION x", "Other | UNKNOWN"),
        ("COMMIT PREPARED 'x'", "FinishPrepared"),
        ("ROLLBACK PREPARED 'x'", "FinishPrepared"),
    ]);
}

#[test]
fn settings_are_named_and_valued() {
    standard(&[
        ("SET work_mem = '64MB'", "Set work_mem '64MB' | SETTINGS [work_mem]"),
        ("SET Work_Mem TO 64", "Set work_mem '64' | SETTINGS [work_mem]"),
        ("SET SESSION work_mem TO DEFAULT", "Set work_mem default | SETTINGS|RESETS [work_mem]"),
        ("SET LOCAL work_mem = 1", "Set local work_mem '1'"),
        ("set local statement_timeout = '5s';", "Set local statement_timeout '5s'"),
        ("SET \"TimeZone\" = 'UTC'", "Set timezone 'UTC' | SETTINGS [timezone]"),
        ("SET timezone TO -7", "Set timezone '-7' | SETTINGS [timezone]"),
        ("SET TIME ZONE 'Europe/Berlin'", "Set timezone 'Europe/Berlin' | SETTINGS [timezone]"),
        ("SET TIME ZONE LOCAL", "Set timezone default | SETTINGS|RESETS [timezone]"),
        ("SET TIME ZONE DEFAULT", "Set timezone default | SETTINGS|RESETS [timezone]"),
        ("SET TIME ZONE 2", "Set timezone ... | SETTINGS [timezone]"),
        ("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", "Set timezone ... | SETTINGS [timezone]"),
        ("SET LOCAL TIME ZONE utc", "Set local timezone 'utc'"),
        ("SET SESSION TIME ZONE utc", "Set timezone 'utc' | SETTINGS [timezone]"),
        ("SET NAMES 'UTF8'", "Set client_encoding 'UTF8' | SETTINGS [client_encoding]"),
        ("SET NAMES", "Set client_encoding default | SETTINGS|RESETS [client_encoding]"),
        ("SET ROLE bob", "Set role 'bob' | SETTINGS [role]"),
        ("SET ROLE 'bob'", "Set role 'bob' | SETTINGS [role]"),
        ("SET ROLE NONE", "Set role default | SETTINGS [role]"),
        ("SET LOCAL ROLE bob", "Set local role 'bob'"),
        ("SET SESSION ROLE bob", "Set role 'bob' | SETTINGS [role]"),
        (
            "SET SESSION AUTHORIZATION bob",
            "Set session_authorization 'bob' | SETTINGS [role,session_authorization]",
        ),
        (
            "SET SESSION SESSION AUTHORIZATION DEFAULT",
            "Set session_authorization default | SETTINGS|RESETS [role,session_authorization]",
        ),
        ("SET LOCAL SESSION AUTHORIZATION bob", "Set local session_authorization 'bob'"),
        ("SET SCHEMA 'a'", "Set search_path 'a' | SETTINGS [search_path]"),
        ("SET XML OPTION DOCUMENT", "Set xmloption 'document' | SETTINGS [xmloption]"),
        ("SET search_path TO a, \"B\", 'c'", "Set search_path ... | SETTINGS [search_path]"),
        ("SET search_path = Foo", "Set search_path 'foo' | SETTINGS [search_path]"),
        ("SET search_path = pg_temp, public", "Set search_path ... | SETTINGS|UNKNOWN [search_path]"),
        ("SET search_path = 'pg_temp'", "Set search_path 'pg_temp' | SETTINGS|UNKNOWN [search_path]"),
        ("SET app.user = 'x'", "Set app.user 'x' | SETTINGS [app.user]"),
        ("SET session.x = 1", "Set session.x '1' | SETTINGS [session.x]"),
        ("SET local.x = 1", "Set local.x '1' | SETTINGS [local.x]"),
        ("SET LOCAL local.x = 1", "Set local local.x '1'"),
        ("SET role TO bob", "Set role 'bob' | SETTINGS [role]"),
        ("SET DateStyle = ISO, DMY", "Set datestyle ... | SETTINGS [datestyle]"),
    ]);
}

#[test]
fn settings_have_many_grammars() {
    standard(&[
        ("SET x FROM CURRENT", "Set x ... | SETTINGS [x]"),
        ("SET x = E'a\\'b'", "Set x 'a'b' | SETTINGS [x]"),
        ("SET x = $$a$$", "Set x 'a' | SETTINGS [x]"),
        ("SET enable_seqscan = off", "Set enable_seqscan 'off' | SETTINGS [enable_seqscan]"),
        ("SET enable_seqscan = TRUE", "Set enable_seqscan 'true' | SETTINGS [enable_seqscan]"),
        ("SET seed = 0.5", "Set seed '0.5' | SEED"),
        ("SET transaction_read_only = on", "Set transaction_read_only 'on'"),
        ("SET transaction_isolation TO 'serializable'", "Set transaction_isolation 'serializable'"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SetTransaction"),
        ("SET TRANSACTION READ ONLY, DEFERRABLE", "SetTransaction"),
        ("SET TRANSACTION SNAPSHOT '0000-1'", "SetTransaction"),
        ("SET LOCAL TRANSACTION READ ONLY", "Other | UNKNOWN"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SetSessionCharacteristics | SETTINGS [default_transaction_isolation,default_transaction_read_only,default_transaction_deferrable]",
        ),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION", "Other | UNKNOWN"),
        ("SET CONSTRAINTS ALL DEFERRED", "SetConstraints"),
        ("SET", "Other | UNKNOWN"),
        ("SET work_mem", "Other | UNKNOWN"),
        ("SET work_mem =", "Other | UNKNOWN"),
        ("SET work_mem = 1 2", "Other | UNKNOWN"),
        ("RESET work_mem", "Reset work_mem | RESETS [work_mem]"),
        ("RESET ALL", "ResetAll | RESETS|RESETS_ALL"),
        ("RESET TIME ZONE", "Reset timezone | RESETS [timezone]"),
        ("RESET ROLE", "Reset role | RESETS [role]"),
        ("RESET SESSION AUTHORIZATION", "Reset session_authorization | RESETS [session_authorization,role]"),
        ("RESET TRANSACTION ISOLATION LEVEL", "Reset transaction_isolation | RESETS [transaction_isolation]"),
        ("RESET a.b", "Reset a.b | RESETS [a.b]"),
        ("SHOW work_mem", "Show work_mem"),
        ("SHOW ALL", "Show all"),
        ("SHOW TIME ZONE", "Show timezone"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "Show transaction_isolation"),
        (
            "DISCARD ALL",
            "Discard All | RESETS|SQL_PREPARE|LISTEN|TEMP_DROP|ADVISORY_UNLOCK|CURSOR_CLOSE|DISCARD_ALL|DEALLOCATE_ALL|RESETS_ALL",
        ),
        ("DISCARD PLANS", "Discard Plans"),
        ("DISCARD SEQUENCES", "Discard Sequences"),
        ("DISCARD TEMP", "Discard Temp | TEMP_DROP"),
        ("DISCARD TEMPORARY", "Discard Temp | TEMP_DROP"),
        ("DISCARD", "Other | UNKNOWN"),
    ]);
}

#[test]
fn set_config_is_read_with_its_arguments() {
    standard(&[
        ("SELECT set_config('work_mem', '1MB', false)", "Select | SETTINGS [work_mem]"),
        ("SELECT set_config('Work_Mem', '1MB', false)", "Select | SETTINGS [work_mem]"),
        ("SELECT pg_catalog.set_config('work_mem', '1MB', false)", "Select | SETTINGS [work_mem]"),
        ("SELECT \"set_config\"('work_mem', '1MB', 'f')", "Select | SETTINGS [work_mem]"),
        ("SELECT SET_CONFIG /* x */ ('work_mem', '1MB', false)", "Select | SETTINGS [work_mem]"),
        ("SELECT set_config('work_mem', '1MB', true)", "Select"),
        ("SELECT set_config('work_mem', $1, TRUE)", "Select"),
        ("SELECT set_config('work_mem', '1MB', 't')", "Select"),
        ("SELECT set_config('work_mem', '1MB', $1)", "Select | SETTINGS [work_mem]"),
        ("SELECT set_config($1, $2, $3)", "Select | SETTINGS_UNKNOWN"),
        ("SELECT set_config($1, $2, true)", "Select"),
        ("SELECT set_config('a.' || 'b', '1', false)", "Select | SETTINGS_UNKNOWN"),
        ("SELECT set_config(U&'a', '1', false)", "Select | SETTINGS_UNKNOWN"),
        ("SELECT set_config('role', 'x', false)", "Select | SETTINGS [role]"),
        ("SELECT set_config('search_path', 'pg_temp', false)", "Select | SETTINGS|UNKNOWN [search_path]"),
        ("SELECT set_config('a', '1', true), set_config('b', '2', false)", "Select | SETTINGS [b]"),
        ("SELECT set_config('a', '1', false), set_config('b', '2', false)", "Select | SETTINGS [a,b]"),
        (
            "VALUES (set_config('a', '1', false)), (set_config('b', '2', false))",
            "Values | SETTINGS|SETTINGS_UNKNOWN [a]",
        ),
        ("SELECT set_config('seed', '0.1', false)", "Select | SEED"),
        ("SELECT set_config(", "Select | SETTINGS_UNKNOWN"),
        ("UPDATE pg_settings SET setting = 'x' WHERE name = 'work_mem'", "Update | SETTINGS_UNKNOWN|WRITES"),
        ("SELECT * FROM pg_settings", "Select"),
    ]);
}

#[test]
fn prepared_statements_channels_and_cursors_are_seen() {
    standard(&[
        ("PREPARE a AS SELECT 1", "Prepare a Select NONE | SQL_PREPARE"),
        ("PREPARE a (int, text) AS SELECT $1", "Prepare a Select NONE | SQL_PREPARE"),
        ("PREPARE a AS SELECT set_zone()", "Prepare a Select SETTINGS | SQL_PREPARE"),
        ("PREPARE a AS INSERT INTO items VALUES (1)", "Prepare a Insert SEQUENCE_MAYBE|WRITES | SQL_PREPARE"),
        ("PREPARE transaction AS SELECT 1", "Prepare transaction Select NONE | SQL_PREPARE"),
        ("PREPARE a", "Other | UNKNOWN"),
        ("EXECUTE a", "Execute a | SQL_EXECUTE"),
        ("EXECUTE a(1, 'x')", "Execute a | SQL_EXECUTE"),
        ("EXECUTE a(set_zone())", "Execute a | SETTINGS|SQL_EXECUTE [timezone]"),
        ("EXPLAIN EXECUTE a", "Explain | SQL_EXECUTE"),
        ("EXPLAIN ANALYZE EXECUTE a(1)", "Explain | SQL_EXECUTE"),
        ("CREATE TABLE x AS EXECUTE a", "Ddl | SQL_EXECUTE|DDL"),
        ("SELECT * FROM pg_prepared_statements", "Select | SQL_EXECUTE"),
        ("DEALLOCATE a", "Deallocate a | SQL_PREPARE"),
        ("DEALLOCATE PREPARE a", "Deallocate a | SQL_PREPARE"),
        ("DEALLOCATE prepare", "Deallocate prepare | SQL_PREPARE"),
        ("DEALLOCATE ALL", "DeallocateAll | SQL_PREPARE|DEALLOCATE_ALL"),
        ("DEALLOCATE PREPARE ALL", "DeallocateAll | SQL_PREPARE|DEALLOCATE_ALL"),
        ("DEALLOCATE \"all\"", "Deallocate all | SQL_PREPARE"),
        ("LISTEN a", "Listen a | LISTEN"),
        ("LISTEN \"A b\"", "Listen A b | LISTEN"),
        ("listen Orders;", "Listen orders | LISTEN"),
        ("UNLISTEN a", "Unlisten a | LISTEN"),
        ("UNLISTEN *", "UnlistenAll | LISTEN"),
        ("NOTIFY a", "Notify a"),
        ("NOTIFY a, 'payload'", "Notify a"),
        ("NOTIFY a, payload", "Other | UNKNOWN"),
        ("SELECT pg_notify('a', 'b')", "Select"),
        ("SELECT pg_listening_channels()", "Select | LISTEN_READ"),
        ("DECLARE c CURSOR FOR SELECT 1", "Declare"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "Declare hold | HOLD"),
        (
            "DECLARE c BINARY NO SCROLL CURSOR WITHOUT HOLD FOR SELECT set_zone()",
            "Declare | SETTINGS [timezone]",
        ),
        ("DECLARE c CURSOR", "Other | UNKNOWN"),
        ("FETCH 10 FROM c", "Fetch"),
        ("MOVE NEXT FROM c", "Move"),
        ("CLOSE c", "CloseCursor | CURSOR_CLOSE"),
        ("CLOSE ALL", "CloseCursor | CURSOR_CLOSE"),
        ("LOAD 'auto_explain'", "Other | LOAD"),
        ("LOAD", "Other | UNKNOWN"),
        ("LOCK TABLE items IN SHARE MODE", "Lock"),
    ]);
}

#[test]
fn queries_and_the_calls_in_them() {
    standard(&[
        ("", "Empty"),
        (";;", "Empty"),
        ("-- nothing", "Empty"),
        ("/* a /* b */ c */", "Empty"),
        ("SELECT 1", "Select"),
        ("(SELECT 1)", "Select"),
        ("TABLE items", "Select"),
        ("VALUES (1), (2)", "Values"),
        ("select count(*) from items where id in (1, 2, 3)", "Select"),
        ("SELECT lower(name), \"left\"(name, 3), left(name, 2) FROM people", "Select"),
        ("SELECT unheard_of(1)", "Select | UNSURE"),
        ("SELECT public.unheard_of(1)", "Select | UNSURE"),
        ("SELECT * FROM unheard_of(1)", "Select | UNSURE"),
        ("SELECT * FROM items JOIN LATERAL unheard_of(1) x ON true", "Select | UNSURE"),
        ("SELECT 1 + unheard_of(2)", "Select | UNSURE"),
        ("SELECT \"unheard_of\"(2)", "Select | UNSURE"),
        ("SELECT harmless(1)", "Select"),
        ("SELECT set_zone()", "Select | SETTINGS [timezone]"),
        ("SELECT SET_ZONE()", "Select | SETTINGS [timezone]"),
        ("SELECT \"SET_ZONE\"()", "Select | UNSURE"),
        ("SELECT \"Mixed\"()", "Select | RESETS|RESETS_ALL"),
        ("SELECT set_local()", "Select"),
        ("SELECT locks(1)", "Select | ADVISORY"),
        ("SELECT next_id()", "Select | SEQUENCE_SET"),
        ("SELECT perl()", "Select | UNKNOWN"),
        ("SELECT o.set_zone FROM orders o", "Select | SETTINGS [timezone]"),
        ("SELECT o.total FROM orders o", "Select"),
        ("SELECT * FROM zoned", "Select | SETTINGS [timezone]"),
        ("SELECT * FROM public.zoned z", "Select | SETTINGS [timezone]"),
        ("SELECT nextval('a')", "Select | SEQUENCE_SET"),
        ("SELECT setval('a', 1)", "Select | SEQUENCE_SET"),
        ("SELECT currval('a')", "Select | SEQUENCE_READ"),
        ("SELECT lastval()", "Select | SEQUENCE_READ"),
        ("SELECT setseed(0.5)", "Select | SEED"),
        ("SELECT pg_advisory_lock(1)", "Select | ADVISORY"),
        ("SELECT pg_try_advisory_lock_shared(1, 2)", "Select | ADVISORY"),
        ("SELECT pg_advisory_unlock_all()", "Select | ADVISORY_UNLOCK"),
        ("SELECT pg_advisory_xact_lock(1)", "Select"),
        ("SELECT 'pg_advisory_lock(1)'", "Select"),
        ("SELECT $$pg_advisory_lock(1)$$", "Select"),
        ("SELECT 1 -- pg_advisory_lock(1)", "Select"),
        ("SELECT 1 /* pg_advisory_lock(1) */", "Select"),
        ("SELECT a FROM t WHERE b IN (SELECT c FROM d) AND EXISTS (SELECT 1) OR NOT (x)", "Select"),
        ("SELECT CAST(x AS varchar(10)), y::numeric(10, 2), z::geometry(Point, 4326) FROM t", "Select"),
        ("SELECT coalesce(a, b), nullif(a, b), greatest(1, 2), extract(year FROM d) FROM t", "Select"),
        ("SELECT count(*) FILTER (WHERE x), row_number() OVER (PARTITION BY y) FROM t", "Select"),
        ("SELECT sum(x) OVER w FROM t WINDOW w AS (ORDER BY y), v AS (ORDER BY z)", "Select"),
        ("SELECT * FROM (SELECT 1) AS x(a)", "Select"),
        ("SELECT * FROM (SELECT 1) x(a)", "Select"),
        ("SELECT * FROM generate_series(1, 3) AS g(n)", "Select"),
        ("SELECT * FROM generate_series(1, 3) g(n)", "Select"),
        ("SELECT * FROM generate_series(1, 3) WITH ORDINALITY AS g(n, o)", "Select"),
        ("SELECT * FROM t TABLESAMPLE system (10)", "Select"),
        ("SELECT a FROM t GROUP BY GROUPING SETS ((a), ()), ROLLUP (a), CUBE (b)", "Select"),
        ("WITH x(a) AS (SELECT 1), y(b) AS (SELECT 2) SELECT * FROM x, y", "Select"),
        ("WITH RECURSIVE x(a) AS (SELECT 1 UNION SELECT a + 1 FROM x) SELECT * FROM x", "Select"),
        ("WITH x AS (SELECT 1), y(b) AS MATERIALIZED (SELECT 2) SELECT unheard_of(1)", "Select | UNSURE"),
        ("WITH x AS (SELECT 1) SELECT * FROM x, unheard_of(1) AS (a int)", "Select | UNSURE"),
        ("WITH x AS (SELECT 1, unheard_of(1)) SELECT * FROM x", "Select | UNSURE"),
        ("SELECT (ARRAY[1, 2])[1], '{1}'::int[] FROM t WHERE x = ANY(ARRAY[1, 2])", "Select"),
        ("SELECT x::timestamp(3) AT TIME ZONE 'UTC', interval '1' day, time '10:00'", "Select"),
        ("SELECT a.b.c(1)", "Select | UNSURE"),
        ("SELECT public.nullif(1)", "Select | UNSURE"),
    ]);
}

#[test]
fn brackets_that_are_no_calls() {
    standard(&[
        ("SELECT CASE WHEN a THEN b ELSE c END FROM t", "Select"),
        (
            "SELECT substring(a FROM 1), trim(both 'x' FROM b), overlay(a PLACING b FROM 1), position('a' IN b) FROM t",
            "Select",
        ),
        ("SELECT xmlelement(name a), json_array(1), xmlparse(document 'x')", "Select"),
        ("SELECT array_agg(x ORDER BY y) FROM t", "Select"),
        ("SELECT string_agg(x, ',') WITHIN GROUP (ORDER BY y) FROM t", "Select"),
        ("SELECT * FROM t ORDER BY x USING >", "Select"),
        ("SELECT * FROM t WHERE (a, b) = (1, 2) AND row(a) = row(1)", "Select"),
        ("SELECT * FROM items FOR UPDATE", "Select locking | WRITES"),
        ("SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", "Select locking | WRITES"),
        ("SELECT * FROM t FOR KEY SHARE NOWAIT", "Select locking | WRITES"),
        ("SELECT * FROM t FOR SHARE OF t", "Select locking | WRITES"),
        ("SELECT query_to_xml('SELECT 1', true, true, '')", "Select | UNKNOWN"),
        ("SELECT U&\"\\0073et_zone\"()", "Select | UNKNOWN"),
        ("INSERT INTO U&\"\\006frders\" VALUES (1)", "Insert | WRITES|UNKNOWN"),
        ("LISTEN U&\"\\0061\"", "Other | UNKNOWN"),
        ("SET U&\"\\0061\" = 1", "Other | UNKNOWN"),
        ("SELECT * FROM pg_temp.x", "Select | TEMP"),
        ("SELECT 1 INTO x", "Ddl | DDL"),
        ("SELECT 1 INTO TEMP x", "Ddl | TEMP|DDL"),
        ("SELECT a INTO TEMPORARY TABLE x FROM t", "Ddl | TEMP|DDL"),
        ("SELECT a INTO UNLOGGED x FROM t", "Ddl | DDL"),
        ("WITH x AS (SELECT 1) SELECT * INTO LOCAL TEMP y FROM x", "Ddl | TEMP|DDL"),
    ]);
}

#[test]
fn writes_and_what_they_trigger() {
    standard(&[
        ("INSERT INTO t VALUES (1, 'a')", "Insert | WRITES"),
        ("INSERT INTO t(a, b) VALUES (1, 2), (3, 4) RETURNING a", "Insert | WRITES"),
        ("INSERT INTO public.t (a) SELECT lower(b) FROM u", "Insert | WRITES"),
        ("INSERT INTO t AS x (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = excluded.a", "Insert | WRITES"),
        ("INSERT INTO t (a) VALUES (unheard_of(1))", "Insert | WRITES|UNSURE"),
        ("INSERT INTO items (a) VALUES (1)", "Insert | SEQUENCE_MAYBE|WRITES"),
        ("INSERT INTO people DEFAULT VALUES", "Insert | SEQUENCE_MAYBE|WRITES"),
        ("INSERT INTO orders VALUES (1)", "Insert | SETTINGS|WRITES [timezone]"),
        ("INSERT INTO public.\"orders\" VALUES (1)", "Insert | SETTINGS|WRITES [timezone]"),
        ("INSERT INTO \"Quoted\" VALUES (1)", "Insert | SETTINGS|WRITES [timezone]"),
        ("INSERT INTO Quoted VALUES (1)", "Insert | WRITES"),
        ("INSERT INTO zoned VALUES (1)", "Insert | SETTINGS|SEQUENCE_MAYBE|WRITES [timezone]"),
        ("INSERT INTO set_zone (a) VALUES (1)", "Insert | WRITES"),
        ("SELECT * FROM orders, items, people", "Select"),
        ("UPDATE orders SET a = 1 WHERE id = 5", "Update | SETTINGS|WRITES [timezone]"),
        ("UPDATE t SET (a, b) = (1, 2) WHERE id = 5", "Update | WRITES"),
        ("UPDATE t SET a = set_zone()", "Update | SETTINGS|WRITES [timezone]"),
        ("DELETE FROM t USING u WHERE t.a = u.a", "Delete | WRITES"),
        (
            "WITH x AS (INSERT INTO orders VALUES (1) RETURNING *) SELECT * FROM x",
            "Select | SETTINGS|WRITES [timezone]",
        ),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1", "Update | WRITES"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "Delete | WRITES"),
        ("WITH insert AS (SELECT 1) SELECT 1", "Select | WRITES"),
        (
            "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = 1 WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
            "Merge | WRITES",
        ),
        ("MERGE INTO items USING u ON true WHEN MATCHED THEN DELETE", "Merge | SEQUENCE_MAYBE|WRITES"),
        ("COPY t FROM STDIN", "Copy in stdio | WRITES"),
        ("COPY items (a, b) FROM STDIN WITH (FORMAT csv)", "Copy in stdio | SEQUENCE_MAYBE|WRITES"),
        ("COPY public.t(a) FROM '/x'", "Copy in | WRITES"),
        ("COPY t TO STDOUT", "Copy out stdio"),
        ("COPY t TO PROGRAM 'x'", "Copy out"),
        ("COPY BINARY t TO STDIN", "Copy out stdio"),
        ("COPY (SELECT set_zone()) TO STDOUT", "Copy out stdio | SETTINGS [timezone]"),
        ("COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT", "Copy out stdio | WRITES"),
        ("COPY t", "Other | UNKNOWN"),
        ("CALL unheard_of(1)", "Call | UNSURE"),
        ("CALL harmless(1)", "Call"),
        ("CALL set_zone()", "Call | SETTINGS [timezone]"),
        ("EXPLAIN SELECT 1", "Explain"),
        ("EXPLAIN (ANALYZE, BUFFERS) SELECT set_zone()", "Explain | SETTINGS [timezone]"),
        ("EXPLAIN (SELECT 1)", "Explain"),
        ("EXPLAIN ANALYZE VERBOSE INSERT INTO items VALUES (1)", "Explain | SEQUENCE_MAYBE|WRITES"),
        ("EXPLAIN", "Other | UNKNOWN"),
        ("TRUNCATE orders, t", "Ddl | SETTINGS|WRITES [timezone]"),
    ]);
}

#[test]
fn definitions_and_upkeep() {
    standard(&[
        ("CREATE TABLE t (a int, b varchar(10) CHECK (b <> lower(b)), PRIMARY KEY (a))", "Ddl | DDL"),
        ("CREATE TABLE t (a int REFERENCES u(a) ON DELETE CASCADE)", "Ddl | DDL"),
        ("CREATE TEMP TABLE t (a int)", "Ddl | TEMP"),
        ("CREATE TEMPORARY TABLE IF NOT EXISTS t AS SELECT 1", "Ddl | TEMP"),
        ("CREATE LOCAL TEMP TABLE t (a int) ON COMMIT DROP", "Ddl | TEMP"),
        ("CREATE TABLE pg_temp.t (a int)", "Ddl | TEMP|DDL"),
        ("CREATE TEMP VIEW v AS SELECT 1", "Ddl | TEMP"),
        ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", "Ddl | TEMP"),
        ("CREATE TEMP SEQUENCE s", "Ddl | TEMP"),
        ("CREATE UNLOGGED TABLE t (a int)", "Ddl | DDL"),
        ("CREATE TABLE t AS SELECT set_zone()", "Ddl | SETTINGS|DDL [timezone]"),
        ("CREATE MATERIALIZED VIEW v AS SELECT set_zone()", "Ddl | SETTINGS|DDL [timezone]"),
        ("CREATE VIEW v AS SELECT set_zone()", "Ddl | DDL"),
        ("CREATE INDEX ON t (lower(a))", "Ddl | DDL"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT pg_advisory_lock(1) $$", "Ddl | DDL"),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END",
            "Ddl | DDL",
        ),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 2", "Multi | DDL"),
        ("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION audit()", "Ddl | DDL"),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)", "Ddl | DDL"),
        ("CREATE ROLE bob", "Ddl"),
        ("CREATE DATABASE x", "Ddl"),
        ("CREATE EXTENSION hstore", "Ddl | DDL"),
        ("ALTER TABLE t ADD COLUMN a int", "Ddl | DDL"),
        ("ALTER TABLE t ALTER COLUMN a SET DEFAULT set_zone()", "Ddl | SETTINGS|DDL [timezone]"),
        ("ALTER ROLE bob SET work_mem = 1", "Ddl"),
        ("ALTER SYSTEM SET work_mem = 1", "Ddl"),
        ("DROP TABLE t", "Ddl | TEMP_DROP"),
        ("DROP TABLE IF EXISTS t, pg_temp.orders CASCADE", "Ddl | TEMP_DROP"),
        ("DROP TABLE pg_temp_3.\"Orders\"", "Ddl | TEMP_DROP"),
        ("DROP TABLE t, orders", "Ddl | TEMP_DROP|DDL"),
        ("DROP TABLE \"Quoted\" RESTRICT", "Ddl | TEMP_DROP|DDL"),
        ("DROP TABLE t; DROP VIEW t", "Multi | TEMP_DROP|DDL"),
        ("DROP TABLE t AND MORE", "Ddl | TEMP_DROP|DDL"),
        ("DROP TABLE U&\"t\"", "Ddl | TEMP_DROP|DDL"),
        ("DO $$ BEGIN DROP TABLE t; END $$", "Do | TEMP_DROP|DDL"),
        ("DROP SEQUENCE s", "Ddl | TEMP_DROP|DDL"),
        ("DROP FUNCTION f(int)", "Ddl | TEMP_DROP|DDL"),
        ("GRANT SELECT ON t TO bob", "Ddl"),
        ("COMMENT ON TABLE t IS 'x'", "Ddl"),
        ("VACUUM t", "Maintenance"),
        ("ANALYZE t (a)", "Maintenance"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", "Maintenance"),
        ("CHECKPOINT", "Maintenance"),
        ("REINDEX TABLE t", "Maintenance"),
        ("HELP", "Other | UNKNOWN"),
        ("12", "Other | UNKNOWN"),
        ("'SELECT'", "Other | UNKNOWN"),
    ]);
}

#[test]
fn inline_code_is_read() {
    standard(&[
        ("DO $$ BEGIN PERFORM 1; END $$", "Do"),
        ("DO $x$ BEGIN PERFORM set_zone(); END $x$", "Do | SETTINGS [timezone]"),
        ("DO LANGUAGE plpgsql $$ BEGIN SET work_mem = 1; END $$", "Do | SETTINGS [work_mem]"),
        ("DO $$ BEGIN SET LOCAL work_mem = 1; END $$ LANGUAGE 'plpgsql'", "Do"),
        ("DO 'BEGIN PERFORM set_config(''a.b'', ''1'', false); END'", "Do | SETTINGS [a.b]"),
        ("DO $$ BEGIN IF true THEN SET work_mem = 1; END IF; END $$", "Do | SETTINGS [work_mem]"),
        ("DO $$ BEGIN IF a THEN NULL; ELSE SET work_mem = 1; END IF; END $$", "Do | SETTINGS [work_mem]"),
        ("DO $$ <<a>> BEGIN SET work_mem = 1; END $$", "Do | SETTINGS [work_mem]"),
        ("DO $$ BEGIN LOOP RESET work_mem; END LOOP; END $$", "Do | RESETS [work_mem]"),
        ("DO $$ BEGIN UPDATE t SET work_mem = 1; END $$", "Do | WRITES"),
        ("DO $$ BEGIN CREATE TEMP TABLE x (a int); END $$", "Do | TEMP"),
        ("DO $$ BEGIN EXECUTE 'SET work_mem = 1'; END $$", "Do | SETTINGS [work_mem]"),
        (
            "DO $$ BEGIN EXECUTE format('SELECT set_config(%L, ''1'', false)', x); END $$",
            "Do | SETTINGS_UNKNOWN",
        ),
        (
            "DO $$ BEGIN EXECUTE format('INSERT INTO %I VALUES ($1)', x) USING 1; END $$",
            "Do | SETTINGS|SEQUENCE_MAYBE|WRITES [timezone]",
        ),
        (
            "DO $$ BEGIN EXECUTE 'DROP TABLE ' || quote_ident(x); END $$",
            "Do | SETTINGS|TEMP_DROP|DDL [timezone]",
        ),
        ("DO $$ BEGIN EXECUTE format('SELECT %I()', x); END $$", "Do | SETTINGS|UNKNOWN [timezone]"),
        ("DO $$ BEGIN EXECUTE format('SET %I = 1', x); END $$", "Do | SETTINGS|SETTINGS_UNKNOWN [timezone]"),
        ("DO $$ BEGIN EXECUTE x; END $$", "Do | UNKNOWN"),
        ("DO $$ BEGIN EXECUTE format('%s', x); END $$", "Do | UNKNOWN"),
        ("DO $$ BEGIN EXECUTE 'SELECT ' || x; END $$", "Do | UNKNOWN"),
        (
            "DO $$ BEGIN FOR r IN EXECUTE 'SELECT set_zone()' LOOP NULL; END LOOP; END $$",
            "Do | SETTINGS [timezone]",
        ),
        ("DO $$ DECLARE x int := next_id(); BEGIN SELECT a INTO x FROM t; END $$", "Do | SEQUENCE_SET"),
        ("DO LANGUAGE plperl $$ x $$", "Do | UNKNOWN"),
        ("DO $$ unterminated ' $$", "Do | UNKNOWN"),
        ("DO", "Other | UNKNOWN"),
    ]);
}

#[test]
fn several_statements_are_all_read() {
    standard(&[
        ("SELECT 1; SELECT 2", "Multi"),
        ("BEGIN; COMMIT;", "Multi"),
        ("SELECT 1;", "Select"),
        ("BEGIN; SET work_mem = 1; COMMIT", "Multi | SETTINGS [work_mem]"),
        ("SELECT 1; SELECT pg_advisory_lock(1); LISTEN a", "Multi | LISTEN|ADVISORY"),
        ("SELECT ';'; SELECT 1", "Multi"),
        ("SELECT ';'", "Select"),
        ("SELECT $$;$$", "Select"),
        ("SELECT 1 /* ; SELECT 2 */", "Select"),
        ("SELECT 1; garbage here", "Multi | UNKNOWN"),
    ]);
}

#[test]
fn what_does_not_lex_is_unknown() {
    for sql in [
        "SELECT 'a",
        "SELECT \"a",
        "SELECT $$a",
        "SELECT $x$a$$",
        "SELECT /* a",
        "SELECT /* /* */",
        "SELECT E'a\\'",
        "SELECT B'01",
        "SELECT U&'a",
        "SELECT U&\"a",
        "SELECT $",
        "SELECT \\",
        "SELECT {",
        "SELECT \u{1}",
        "SELECT 1\0",
        "SELECT 'a' -- x\n'b",
    ] {
        assert_eq!(told(&classify(sql, &shop())), "Other | UNKNOWN", "{sql}");
    }
}

#[test]
fn backslashes_follow_the_setting() {
    let off = Dialect { standard_conforming_strings: false, ..Dialect::default() };
    check(
        &shop(),
        off,
        &[
            ("SELECT 'a\\', pg_advisory_lock(1), '", "Select"),
            ("SELECT 'a\\'', pg_advisory_lock(1)", "Select | ADVISORY"),
            ("SELECT E'a\\', pg_advisory_lock(1), '", "Select"),
            ("SELECT $$a\\$$, pg_advisory_lock(1)", "Select | ADVISORY"),
            ("SET x = 'a\\'b'", "Set x 'a'b' | SETTINGS [x]"),
        ],
    );
    check(
        &shop(),
        Dialect::default(),
        &[
            ("SELECT 'a\\', pg_advisory_lock(1), ''", "Select | ADVISORY"),
            ("SELECT E'a\\', pg_advisory_lock(1), '", "Select"),
        ],
    );
}

#[test]
fn encodings_with_ascii_in_characters_are_not_read() {
    let sjis = Dialect::of(b"on", b"SJIS");
    assert_eq!(told(&classify_with("SELECT 1", sjis, &shop())), "Other | UNKNOWN");
    assert!(Dialect::of(b"on", b"UTF8").ascii_safe && Dialect::of(b"on", b"latin1").ascii_safe);
    assert!(!Dialect::of(b"on", b"GB18030").ascii_safe && !Dialect::of(b"on", b"no such").ascii_safe);
    assert!(!Dialect::of(b"off", b"UTF8").standard_conforming_strings);
}

#[test]
fn what_a_catalogue_that_is_behind_does_not_know_may_be_anybodys() {
    let drop = "DROP TABLE t";
    for (catalogue, expected) in [
        (shop(), "Ddl | TEMP_DROP"),
        (shop().stale(), "Ddl | TEMP_DROP|DDL"),
        (Catalogue::empty(), "Ddl | TEMP_DROP|DDL"),
    ] {
        check(&catalogue, Dialect::default(), &[(drop, expected)]);
    }
    // Of a function's body nobody knows when it runs.
    let catalogue = database(&[("drops", "plpgsql", "BEGIN DROP TABLE t; END")], &[]);
    let effects = catalogue.function_effects("drops");
    assert!(effects.intersects(tenfold_sql::Effects::DDL), "{effects}");
}

#[test]
fn what_may_be_behind_a_name_makes_it_unsure_until_it_is_read() {
    let (plain, hiding) = (shop().stale(), shop().hiding());
    let is_unsure = |sql: &str, catalogue: &Catalogue| {
        classify(sql, catalogue).effects.intersects(tenfold_sql::Effects::UNSURE)
    };
    for sql in
        ["SELECT a FROM t", "INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "WITH x AS (SELECT 1) TABLE t"]
    {
        assert!(
            is_unsure(sql, &hiding) && !is_unsure(sql, &plain) && !is_unsure(sql, &hiding.as_read()),
            "{sql}"
        );
    }
    for sql in ["SELECT 1", "SELECT now(), lower('A')", "BEGIN", "SHOW TimeZone"] {
        assert!(!is_unsure(sql, &hiding), "{sql}");
    }
}

#[test]
fn definitions_that_hide_something_are_told_from_plain_ones() {
    for (sql, hides) in [
        ("CREATE TABLE t (id serial PRIMARY KEY, a text DEFAULT 'x')", false),
        ("CREATE UNLOGGED TABLE IF NOT EXISTS t (a int)", false),
        ("CREATE UNIQUE INDEX CONCURRENTLY ON t (lower(a))", false),
        ("CREATE TABLE t AS SELECT 1", false),
        ("SELECT 1 INTO t", false),
        ("DROP VIEW orders", false),
        ("DROP TABLE orders", false),
        ("CREATE TABLE t (zone text DEFAULT set_zone())", true),
        ("CREATE TABLE t PARTITION OF orders DEFAULT", true),
        ("CREATE TABLE t (LIKE orders INCLUDING ALL)", true),
        ("CREATE VIEW v AS SELECT 1", true),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", true),
        ("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION audit()", true),
        ("ALTER TABLE t ENABLE TRIGGER a", true),
        ("CREATE TABLE t (a int); CREATE VIEW v AS SELECT 1", true),
        ("SELECT 1", false),
    ] {
        assert_eq!(classify(sql, &shop()).hides, hides, "{sql}");
    }
}
