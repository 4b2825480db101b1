//! What a real database hides: functions, triggers, views, defaults, policies, casts, found by its own catalogue.

use tenfold_sql::{Catalogue, Effects};

use crate::server::Database;
use crate::support::classify;

fn check(catalogue: &Catalogue, lines: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, effects, settings) in lines {
        let decision = classify(sql, catalogue);
        let found = (decision.effects.to_string(), decision.settings.join(","));
        if found != ((*effects).to_owned(), (*settings).to_owned()) {
            wrong.push(format!("{sql}: {found:?} instead of {effects} {settings}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const FUNCTIONS: &str = r#"
    CREATE FUNCTION pure(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
    CREATE FUNCTION sets() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET work_mem = ''1MB''; END';
    CREATE FUNCTION sets_local() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET LOCAL work_mem = ''1MB''; END';
    CREATE FUNCTION sets_while_it_runs() RETURNS int LANGUAGE sql SET work_mem = '1MB' AS 'SELECT 1';
    CREATE FUNCTION configures() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.user', 'x', false) $$;
    CREATE FUNCTION configures_any(n text) RETURNS text LANGUAGE sql AS $$ SELECT set_config(n, 'x', false) $$;
    CREATE FUNCTION calls_sets() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM sets(); END';
    CREATE FUNCTION calls_deep() RETURNS void LANGUAGE plpgsql AS 'BEGIN IF true THEN PERFORM public.calls_sets(); END IF; END';
    CREATE FUNCTION recurses(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN IF n = 0 THEN PERFORM sets(); RETURN 0; END IF; RETURN recurses(n - 1); END';
    CREATE FUNCTION standard() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT configures(); END;
    CREATE FUNCTION standard_return() RETURNS bigint LANGUAGE sql RETURN nextval('pg_catalog.pg_class'::regclass);
    CREATE FUNCTION by_default(a text DEFAULT configures()) RETURNS text LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION makes_temp() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE IF NOT EXISTS scratch (a int); END';
    CREATE FUNCTION locks(bigint) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock($1)';
    CREATE FUNCTION dynamic(t text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''SELECT '' || t; END';
    CREATE FUNCTION dynamic_known() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''SET work_mem = 1''; END';
    CREATE FUNCTION alias_of_nextval(regclass) RETURNS bigint LANGUAGE internal AS 'nextval_oid';
    CREATE FUNCTION on_row(r pg_catalog.pg_class) RETURNS text LANGUAGE sql AS $$ SELECT configures() $$;
    CREATE PROCEDURE proceeds() LANGUAGE plpgsql AS 'BEGIN RESET ALL; END';
    CREATE AGGREGATE total(int) (sfunc = risky_sum, stype = int);
    CREATE OPERATOR ### (leftarg = int, rightarg = int, function = risky_sum);
    CREATE FUNCTION "Ünsafe"() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET work_mem = 1; END';
"#;

const RISKY_SUM: &str = "CREATE FUNCTION risky_sum(int, int) RETURNS int LANGUAGE sql AS 'SELECT pg_advisory_lock(1); SELECT $1 + $2';";

#[test]
fn functions_are_followed() {
    let database = Database::create("functions", &format!("{RISKY_SUM}{FUNCTIONS}"));
    check(
        &database.catalogue(),
        &[
            (
                "SELECT pure(1), lower('A'), count(*), pg_advisory_xact_lock(1), jsonb_build_object(1, 2)",
                "NONE",
                "",
            ),
            ("SELECT sets()", "SETTINGS", "work_mem"),
            ("SELECT sets_local()", "NONE", ""),
            ("SELECT sets_while_it_runs()", "NONE", ""),
            ("SELECT configures()", "SETTINGS", "app.user"),
            ("SELECT configures_any('a')", "SETTINGS_UNKNOWN", ""),
            ("SELECT calls_sets()", "SETTINGS", "work_mem"),
            ("SELECT calls_deep()", "SETTINGS", "work_mem"),
            ("SELECT recurses(3)", "SETTINGS", "work_mem"),
            ("SELECT standard()", "SETTINGS", "app.user"),
            ("SELECT standard_return()", "SEQUENCE_SET", ""),
            ("SELECT by_default()", "SETTINGS", "app.user"),
            ("SELECT makes_temp()", "TEMP", ""),
            ("SELECT locks(1)", "ADVISORY", ""),
            ("SELECT dynamic('x')", "UNKNOWN", ""),
            ("SELECT dynamic_known()", "SETTINGS", "work_mem"),
            ("SELECT alias_of_nextval('x')", "SEQUENCE_SET", ""),
            ("SELECT c.on_row FROM pg_class c", "SETTINGS", "app.user"),
            ("CALL proceeds()", "RESETS|RESETS_ALL", ""),
            ("SELECT total(a) FROM t", "ADVISORY", ""),
            ("SELECT 1 ### 2", "ADVISORY", ""),
            ("SELECT 1 OPERATOR(public.###) 2", "ADVISORY", ""),
            ("SELECT \"Ünsafe\"()", "SETTINGS", "work_mem"),
            ("SELECT ünsafe()", "SETTINGS|UNKNOWN", "work_mem"),
            ("SELECT not_there()", "UNSURE", ""),
        ],
    );
}

const RELATIONS: &str = r#"
    CREATE FUNCTION sets() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.user', 'x', false) $$;
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM sets(); RETURN NEW; END';
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at := now(); RETURN NEW; END';
    CREATE FUNCTION locked(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT pg_advisory_lock($1); SELECT true';
    CREATE TABLE plain (id int PRIMARY KEY, at timestamptz DEFAULT now());
    CREATE TRIGGER stamped BEFORE UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION stamp();
    CREATE TABLE audited (id int PRIMARY KEY);
    CREATE TRIGGER a AFTER INSERT ON audited FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION audit();
    CREATE TABLE serials (id serial);
    CREATE TABLE identities (id bigint GENERATED ALWAYS AS IDENTITY);
    CREATE TABLE defaults (a text DEFAULT sets());
    CREATE TABLE generated (a int, b boolean GENERATED ALWAYS AS (locked(a)) STORED);
    CREATE TABLE checked (a int CHECK (locked(a)));
    CREATE TABLE indexed (a int);
    CREATE INDEX ON indexed (locked(a));
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE children (id int REFERENCES parents ON DELETE CASCADE);
    CREATE TRIGGER a BEFORE DELETE ON children FOR EACH ROW EXECUTE FUNCTION audit();
    CREATE TABLE restricted (id int REFERENCES parents ON DELETE RESTRICT);
    CREATE TABLE parted (a int) PARTITION BY LIST (a);
    CREATE TABLE part PARTITION OF parted FOR VALUES IN (1);
    CREATE TRIGGER a BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION audit();
    CREATE TABLE policed (a int);
    CREATE POLICY p ON policed USING (locked(a));
    CREATE TABLE ruled (a int);
    CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT sets();
    CREATE VIEW viewed AS SELECT sets() AS a;
    CREATE VIEW over_view AS SELECT * FROM viewed;
    CREATE VIEW over_table AS SELECT * FROM audited;
    CREATE DOMAIN fenced AS int CHECK (locked(VALUE));
    CREATE DOMAIN fenced_too AS fenced;
    CREATE TABLE of_domain (a fenced_too);
    CREATE FUNCTION writes() RETURNS void LANGUAGE sql AS 'INSERT INTO audited VALUES (1)';
    CREATE FUNCTION reads() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM audited';
    CREATE FUNCTION draws() RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''serials_id_seq'')';
    CREATE TABLE drawn (a bigint DEFAULT draws());
    CREATE TABLE "Shouting" (a text DEFAULT sets());
    CREATE TABLE mixed (id serial, at timestamptz DEFAULT now());
    CREATE FUNCTION routes() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE format('INSERT INTO %I VALUES ($1.*)', 'part_' || NEW.a) USING NEW; RETURN NULL; END $$;
    CREATE TABLE routed (a int);
    CREATE TRIGGER r BEFORE INSERT ON routed FOR EACH ROW EXECUTE FUNCTION routes();
"#;

#[test]
fn relations_are_followed() {
    let database = Database::create("relations", RELATIONS);
    check(
        &database.catalogue(),
        &[
            ("INSERT INTO plain VALUES (1)", "WRITES", ""),
            ("UPDATE plain SET id = 2", "WRITES", ""),
            ("INSERT INTO audited VALUES (1)", "SETTINGS|WRITES", "app.user"),
            ("COPY public.audited FROM STDIN", "SETTINGS|WRITES", "app.user"),
            (
                "SELECT * FROM audited, serials, defaults, generated, checked, indexed, ruled, children, part",
                "NONE",
                "",
            ),
            ("INSERT INTO serials DEFAULT VALUES", "SEQUENCE_MAYBE|WRITES", ""),
            ("INSERT INTO identities DEFAULT VALUES", "SEQUENCE_MAYBE|WRITES", ""),
            ("INSERT INTO mixed DEFAULT VALUES", "SEQUENCE_MAYBE|WRITES", ""),
            ("INSERT INTO defaults DEFAULT VALUES", "SETTINGS|WRITES", "app.user"),
            ("INSERT INTO generated VALUES (1)", "ADVISORY|WRITES", ""),
            ("INSERT INTO checked VALUES (1)", "ADVISORY|WRITES", ""),
            ("INSERT INTO indexed VALUES (1)", "ADVISORY|WRITES", ""),
            ("DELETE FROM parents WHERE id = 1", "SETTINGS|WRITES", "app.user"),
            ("DELETE FROM restricted WHERE id = 1", "WRITES", ""),
            ("INSERT INTO parted VALUES (1)", "SETTINGS|WRITES", "app.user"),
            ("SELECT * FROM policed", "ADVISORY", ""),
            ("DELETE FROM policed", "ADVISORY|WRITES", ""),
            ("INSERT INTO ruled VALUES (1)", "SETTINGS|WRITES", "app.user"),
            ("SELECT * FROM viewed", "SETTINGS", "app.user"),
            ("SELECT * FROM over_view", "SETTINGS", "app.user"),
            ("SELECT * FROM over_table", "NONE", ""),
            ("INSERT INTO over_table VALUES (1)", "SETTINGS|WRITES", "app.user"),
            ("SELECT 1::fenced", "ADVISORY", ""),
            ("SELECT 1::fenced_too", "ADVISORY", ""),
            ("INSERT INTO of_domain VALUES (1)", "ADVISORY|WRITES", ""),
            ("SELECT writes()", "SETTINGS|WRITES", "app.user"),
            ("SELECT reads()", "NONE", ""),
            ("SELECT draws()", "SEQUENCE_SET", ""),
            ("INSERT INTO drawn DEFAULT VALUES", "SEQUENCE_MAYBE|WRITES", ""),
            ("INSERT INTO \"Shouting\" DEFAULT VALUES", "SETTINGS|WRITES", "app.user"),
            ("INSERT INTO routed VALUES (1)", "SETTINGS|ADVISORY|SEQUENCE_MAYBE|WRITES", "app.user"),
        ],
    );
}

#[test]
fn casts_and_event_triggers_are_followed() {
    let database = Database::create(
        "casts",
        "CREATE FUNCTION ends() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''app.ddl'', ''x'', false); END';
         CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION ends();
         CREATE TYPE pair AS (a int, b int);",
    );
    check(
        &database.catalogue(),
        &[
            ("CREATE TABLE t (a int)", "SETTINGS|DDL", "app.ddl"),
            ("GRANT SELECT ON t TO bob", "SETTINGS", "app.ddl"),
            ("SELECT 1", "NONE", ""),
        ],
    );
    database.run(
        "DROP EVENT TRIGGER e;
         CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql AS 'SELECT pg_advisory_lock(1); SELECT ($1, $1)::pair';
         CREATE CAST (int AS pair) WITH FUNCTION to_pair(int) AS IMPLICIT;",
    );
    check(
        &database.catalogue(),
        &[("SELECT 1", "ADVISORY", ""), ("CREATE TABLE t (a int)", "ADVISORY|DDL", "")],
    );
}

#[test]
fn the_signature_tells_of_every_definition() {
    let database = Database::create("signature", "CREATE TABLE t (a int); CREATE TABLE u (a int)");
    let mut before = database.signature();
    assert_eq!(before, database.signature(), "steady");
    for change in [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "ALTER FUNCTION f() RENAME TO g",
        "CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION tr()",
        "ALTER TABLE t RENAME TO v",
        "ALTER TABLE v ADD COLUMN b int DEFAULT 1",
        "ALTER TABLE v ALTER COLUMN b SET DEFAULT g()",
        "ALTER TABLE v ADD CONSTRAINT v_a_check CHECK (a > 0)",
        "ALTER TABLE v ADD COLUMN c int GENERATED ALWAYS AS IDENTITY",
        "CREATE VIEW w AS SELECT 1 AS a",
        "CREATE OR REPLACE VIEW w AS SELECT g() AS a",
        "CREATE RULE r AS ON INSERT TO v DO ALSO NOTIFY x",
        "CREATE POLICY p ON v USING (true)",
        "CREATE INDEX ON v ((a + 1))",
        "ALTER TABLE u INHERIT v",
        "CREATE DOMAIN d AS int",
        "ALTER DOMAIN d ADD CHECK (VALUE > 0)",
        "CREATE OPERATOR ### (leftarg = int, rightarg = int, function = int4pl)",
        "DROP TRIGGER a ON v",
    ] {
        if change.contains("INHERIT") {
            database.run("ALTER TABLE u ADD COLUMN b int, ADD COLUMN c int NOT NULL, ADD CONSTRAINT v_a_check CHECK (a > 0)");
            before = database.signature();
        }
        database.run(change);
        let after = database.signature();
        assert_ne!(before, after, "{change}");
        before = after;
    }
    database.run("INSERT INTO u VALUES (1, 2, 3); CREATE TEMP TABLE x (a int); ANALYZE u");
    assert_eq!(before, database.signature(), "what defines nothing does not show");
}

#[test]
fn names_effects_can_be_asked_for() {
    let database = Database::create(
        "asked",
        "CREATE TABLE t (id serial); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT pg_advisory_lock(1); SELECT 1'",
    );
    let catalogue = database.catalogue();
    assert_eq!(catalogue.function_effects("f"), Effects::ADVISORY);
    assert_eq!(catalogue.relation_effects("t"), (Effects::NONE, Effects::SEQUENCE_MAYBE));
    assert_eq!(catalogue.function_effects("lower"), Effects::NONE);
}

/// What psql asks about a database is ordinary SQL of every kind: none of it may pin a connection.
#[test]
fn psqls_own_queries_leave_nothing() {
    let database =
        Database::create("looked_at", &format!("CREATE EXTENSION pg_stat_statements; {RELATIONS}"));
    for command in [
        "d",
        "d+ plain",
        "d+ audited",
        "d+ parted",
        "d+ over_view",
        "d+ policed",
        "df+",
        "dv+",
        "dt+",
        "di+",
        "ds+",
        "dT+",
        "dD+",
        "do+",
        "dC+",
        "dx+",
        "dn+",
        "du+",
        "dp",
        "ddp",
        "dg",
        "dO",
        "dc",
        "dF",
        "dy",
        "db+",
        "l+",
        "dRp+",
        "dRs+",
        "dX",
        "dA+",
        "dAc+",
        "dL+",
        "dconfig+",
        "drds",
        "des+",
        "dew+",
        "det+",
        "dm+",
        "sf audit",
        "sv over_view",
        "lo_list",
        "dP+",
        "dES",
    ] {
        let _ = database.try_run(&format!("\\{command}"));
    }
    let texts = database.run(
        "SELECT json_agg(query) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
         WHERE d.datname = current_database() AND query ~ '^(SELECT|WITH|SET|SHOW)'",
    );
    let texts: Vec<String> = serde_json::from_str(&texts).expect("a list of texts");
    assert!(texts.len() > 40, "only {} queries seen", texts.len());
    let catalogue = database.catalogue();
    let fears = |text: &&String| {
        classify(text, &catalogue).effects.intersects(Effects::UNKNOWN | Effects::SETTINGS_UNKNOWN)
    };
    let feared: Vec<&String> = texts.iter().filter(fears).collect();
    assert!(feared.is_empty(), "{} of {}: {feared:#?}", feared.len(), texts.len());
}
