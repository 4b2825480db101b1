//! The queries that load a catalogue, and the one that tells whether it changed.
//!
//! Everything is qualified with `pg_catalog`, takes nothing from the search path, runs on PostgreSQL 12 to 18 and may be
//! run by any login. Objects below oid 16384 (`FirstNormalObjectId`) are PostgreSQL's own. Temporary relations are left
//! out: they belong to sessions that are pinned. A relation dropped meanwhile may fail a query; it is then run again.

/// Index of [`QUERIES`]: one row, names of PostgreSQL's own functions and types, of those of its functions that are
/// VOLATILE (and the symbols of those), of its relations. It also empties the search path, so that what follows names everything with its schema.
pub(crate) const BUILTINS: usize = 0;
/// Name, language, volatility, library, source, definition (of a function with a body in standard SQL), expressions of
/// argument defaults and NULLs of the types that its arguments and results are of, schema, whether its first argument may be a row.
pub(crate) const FUNCTIONS: usize = 1;
/// Aggregate and function it calls; function and domain that its arguments are of.
pub(crate) const AGGREGATES: usize = 2;
/// Operator, function it calls.
pub(crate) const OPERATORS: usize = 3;
/// Function of a cast, of an operator class, of a range type, or that reads and writes a base type's values.
pub(crate) const ANYTHING: usize = 4;
/// Relation, kind of what follows, expression or name, the relation's schema, that of the other relation named.
pub(crate) const RELATIONS: usize = 5;
/// Domain, its constraint, default or base domain; type, NULL of a type that its values are made of.
pub(crate) const DOMAINS: usize = 6;
/// User-defined type.
pub(crate) const TYPES: usize = 7;
/// Function of an event trigger.
pub(crate) const EVENTS: usize = 8;

/// Role or nothing, setting, value: what sessions of the database, or of a role in it, begin with.
pub(crate) const SETTINGS: usize = 9;

/// How many columns each query's rows have.
pub(crate) const COLUMNS: [usize; 10] = [3, 9, 2, 2, 1, 5, 2, 1, 1, 3];

pub(crate) const QUERIES: &[&str] = &[
    "SELECT (SELECT pg_catalog.string_agg(DISTINCT n, ' ') FROM (\
     SELECT proname AS n FROM pg_catalog.pg_proc WHERE oid < 16384 \
     UNION ALL SELECT typname FROM pg_catalog.pg_type WHERE oid < 16384 AND typelem = 0) AS names), \
     (SELECT pg_catalog.string_agg(DISTINCT n, ' ') FROM (\
     SELECT proname::text AS n FROM pg_catalog.pg_proc WHERE oid < 16384 AND provolatile = 'v' \
     UNION ALL SELECT prosrc FROM pg_catalog.pg_proc WHERE oid < 16384 AND provolatile = 'v' AND prolang = 12) AS volatiles), \
     (SELECT pg_catalog.string_agg(DISTINCT relname, ' ') FROM pg_catalog.pg_class \
     WHERE oid < 16384 AND relkind IN ('r', 'v')) \
     WHERE pg_catalog.set_config('search_path', 'pg_catalog', true) IS NOT NULL",
    "SELECT p.proname, l.lanname, p.provolatile, p.probin, \
     p.prosrc, CASE WHEN p.prosrc = '' AND p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END, \
     pg_catalog.concat_ws(', ', pg_catalog.pg_get_expr(p.proargdefaults, 0), \
     (SELECT pg_catalog.string_agg('NULL::' || pg_catalog.quote_ident(COALESCE(e.typname, a.typname)), ', ') \
     FROM pg_catalog.pg_type a LEFT JOIN pg_catalog.pg_type e ON e.oid = a.typelem AND a.typlen = -1 \
     WHERE a.oid = ANY (p.proargtypes::oid[] || p.proallargtypes || p.prorettype) AND a.oid >= 16384 \
     AND COALESCE(e.typtype, a.typtype) IN ('d', 'c', 'r'))), n.nspname, COALESCE(t.typtype IN ('c', 'p'), false)::text \
     FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
     LEFT JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0] WHERE p.oid >= 16384",
    "SELECT a.proname, f.proname FROM pg_catalog.pg_aggregate g \
     JOIN pg_catalog.pg_proc a ON a.oid = g.aggfnoid JOIN pg_catalog.pg_proc f ON f.oid IN (g.aggtransfn, \
     g.aggfinalfn, g.aggcombinefn, g.aggserialfn, g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn) \
     WHERE a.oid >= 16384 \
     UNION SELECT p.proname, t.typname FROM pg_catalog.pg_proc p \
     JOIN pg_catalog.pg_type t ON t.oid = ANY (p.proargtypes) AND t.typtype = 'd' WHERE t.oid >= 16384",
    "SELECT o.oprname, f.proname FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc f ON f.oid = o.oprcode \
     WHERE o.oid >= 16384",
    "SELECT f.proname FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc f ON f.oid = c.castfunc WHERE c.oid >= 16384 \
     UNION SELECT f.proname FROM pg_catalog.pg_amproc a JOIN pg_catalog.pg_proc f ON f.oid = a.amproc \
     WHERE a.oid >= 16384 \
     UNION SELECT f.proname FROM pg_catalog.pg_range r JOIN pg_catalog.pg_proc f \
     ON f.oid IN (r.rngcanonical, r.rngsubdiff) WHERE r.rngtypid >= 16384 \
     UNION SELECT f.proname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_proc f \
     ON f.oid IN (t.typinput, t.typoutput, t.typreceive, t.typsend) WHERE t.oid >= 16384 AND f.oid >= 16384",
    "WITH c AS MATERIALIZED (SELECT k.oid, k.relname, k.relkind, k.relpersistence, n.nspname \
     FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace \
     WHERE k.oid >= 16384 AND k.relpersistence <> 't') \
     SELECT c.relname, 'o', pg_catalog.concat_ws(' ', c.oid, c.relkind, c.relpersistence), c.nspname, NULL FROM c \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
     UNION ALL SELECT c.relname, 'w', pg_catalog.pg_get_triggerdef(t.oid), c.nspname, NULL FROM pg_catalog.pg_trigger t \
     JOIN c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal \
     UNION ALL SELECT c.relname, 'w', pg_catalog.pg_get_ruledef(r.oid), c.nspname, NULL FROM pg_catalog.pg_rewrite r \
     JOIN c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN' \
     UNION ALL SELECT c.relname, 'v', pg_catalog.pg_get_viewdef(c.oid), c.nspname, NULL FROM c WHERE c.relkind = 'v' \
     UNION ALL SELECT c.relname, CASE WHEN a.attgenerated = 'v' THEN 'b' ELSE 'w' END, \
     pg_catalog.pg_get_expr(d.adbin, d.adrelid), c.nspname, NULL FROM pg_catalog.pg_attrdef d JOIN c ON c.oid = d.adrelid \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
     UNION ALL SELECT DISTINCT c.relname, 'i', NULL, c.nspname, NULL FROM pg_catalog.pg_attribute a \
     JOIN c ON c.oid = a.attrelid WHERE a.attnum > 0 AND a.attidentity <> '' \
     UNION ALL SELECT DISTINCT c.relname, 'd', t.typname::text, c.nspname, NULL FROM pg_catalog.pg_attribute a \
     JOIN c ON c.oid = a.attrelid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
     WHERE a.attnum > 0 AND t.oid >= 16384 AND (t.typtype IN ('d', 'c') OR t.typelem IN \
     (SELECT e.oid FROM pg_catalog.pg_type e WHERE e.oid >= 16384 AND e.typtype IN ('d', 'c'))) \
     UNION ALL SELECT c.relname, 'w', pg_catalog.pg_get_constraintdef(k.oid), c.nspname, NULL \
     FROM pg_catalog.pg_constraint k JOIN c ON c.oid = k.conrelid WHERE k.contype = 'c' \
     UNION ALL SELECT c.relname, 'w', pg_catalog.pg_get_indexdef(i.indexrelid), c.nspname, NULL \
     FROM pg_catalog.pg_index i JOIN c ON c.oid = i.indrelid WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL \
     UNION ALL SELECT c.relname, 'w', pg_catalog.pg_get_partkeydef(p.partrelid), c.nspname, NULL \
     FROM pg_catalog.pg_partitioned_table p JOIN c ON c.oid = p.partrelid WHERE p.partexprs IS NOT NULL \
     UNION ALL SELECT c.relname, 'b', pg_catalog.pg_get_expr(p.polqual, p.polrelid), c.nspname, NULL \
     FROM pg_catalog.pg_policy p JOIN c ON c.oid = p.polrelid WHERE p.polqual IS NOT NULL \
     UNION ALL SELECT c.relname, 'w', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), c.nspname, NULL \
     FROM pg_catalog.pg_policy p JOIN c ON c.oid = p.polrelid WHERE p.polwithcheck IS NOT NULL \
     UNION ALL SELECT DISTINCT c.relname, CASE WHEN k.confupdtype IN ('c', 'n', 'd') THEN 'c' ELSE 'x' END, \
     child.relname::text, c.nspname, child.nspname \
     FROM pg_catalog.pg_constraint k JOIN c ON c.oid = k.confrelid JOIN c AS child ON child.oid = k.conrelid \
     WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')) \
     UNION ALL SELECT c.relname, 'h', child.relname::text, c.nspname, child.nspname FROM pg_catalog.pg_inherits h \
     JOIN c ON c.oid = h.inhparent JOIN c AS child ON child.oid = h.inhrelid \
     UNION ALL SELECT c.relname, 'k', a.attname::text, c.nspname, NULL FROM pg_catalog.pg_attribute a \
     JOIN c ON c.oid = a.attrelid JOIN pg_catalog.pg_class k ON k.oid = c.oid WHERE c.relkind IN ('r', 'p') \
     AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND NOT k.relrowsecurity \
     AND a.atttypid IN (20, 21, 23, 2950)",
    "SELECT t.typname, pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_type t \
     JOIN pg_catalog.pg_constraint k ON k.contypid = t.oid WHERE t.oid >= 16384 \
     UNION ALL SELECT t.typname, t.typdefault FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND t.typtype = 'd' \
     AND t.typdefault IS NOT NULL \
     UNION ALL SELECT t.typname, pg_catalog.quote_ident(b.typname) FROM pg_catalog.pg_type t \
     JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype AND b.typtype = 'd' WHERE t.oid >= 16384 \
     UNION ALL SELECT t.typname, 'NULL::' || pg_catalog.quote_ident(b.typname) FROM pg_catalog.pg_type t \
     JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype OR b.oid = t.typelem AND b.typtype <> 'c' \
     OR b.oid = (SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid) \
     WHERE t.oid >= 16384 AND b.oid >= 16384 AND (b.typtype IN ('d', 'c', 'r') OR b.typelem <> 0) \
     UNION ALL SELECT t.typname, 'NULL::' || pg_catalog.quote_ident(b.typname) FROM pg_catalog.pg_class k \
     JOIN pg_catalog.pg_type t ON t.oid = k.reltype OR t.typelem = k.reltype \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attnum > 0 \
     JOIN pg_catalog.pg_type b ON b.oid = a.atttypid WHERE k.relkind = 'c' AND k.oid >= 16384 \
     AND b.oid >= 16384 AND (b.typtype IN ('d', 'c', 'r') OR b.typelem <> 0)",
    "SELECT typname FROM pg_catalog.pg_type WHERE oid >= 16384 AND typelem = 0 AND typtype <> 'c'",
    "SELECT p.proname FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid \
     WHERE e.evtenabled <> 'D'",
    "SELECT r.rolname, pg_catalog.split_part(v, '=', 1), pg_catalog.substr(v, pg_catalog.strpos(v, '=') + 1) \
     FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, \
     LATERAL pg_catalog.unnest(s.setconfig) AS v WHERE s.setdatabase = 0 OR s.setdatabase = \
     (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
];

/// Each part counts the rows of one catalogue and sums the transactions that wrote them: any change of a row changes
/// one of the two, short of a collision of sums.
pub(crate) const SIGNATURE: &str = "SELECT pg_catalog.concat_ws(' ', \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint), max(oid)) FROM pg_catalog.pg_proc WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_class \
     WHERE oid >= 16384 AND relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'f', 'm', 'c')), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_trigger WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_rewrite WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_attrdef WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_constraint WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_policy WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_operator WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_cast WHERE oid >= 16384), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_type WHERE oid >= 16384 \
     AND typtype IN ('d', 'b', 'e', 'r') AND typelem = 0), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_inherits), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_index \
     WHERE indexrelid >= 16384 AND (indexprs IS NOT NULL OR indpred IS NOT NULL)), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_sequence), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_event_trigger), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_namespace \
     WHERE oid >= 16384 AND nspname !~ '^pg_'), \
     (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_db_role_setting))";
