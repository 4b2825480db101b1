//! What the clients of the proof write and read: quantities that only ever grow.
//!
//! **Intuition.** Whether a read is stale shows at once if every row carries a version that its only writer counts up: a
//! reader that knows which version was acknowledged, or has seen one, may never see a smaller one.
//!
//! **Mechanism.** Each client has tables of its own and a row in tables that all share. A [`Gauge`] is one such quantity;
//! most are raised where the statement's text does not say so: by triggers, by cascades, through partitions, views and
//! functions. A [`Write`] is one way to raise some of them, in which `$1` stands for the version.

use std::fmt::Write as _;

/// Tables that all clients write to.
const SHARED_TABLES: u64 = 4;

/// A quantity of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gauge {
    /// The version of a row.
    Row,
    /// The version that a trigger copies from it.
    Trail,
    /// The greatest id of what is inserted.
    Newest,
    /// The smallest id that a cascade has left.
    Oldest,
    /// A row of a table that others write to, too.
    Shared,
    /// A row of a partitioned table.
    Part,
    /// The only row of a table that is made anew.
    Made,
    /// A row of a table that others write to, found by one of two keys in many spellings.
    Keyed,
    /// A row whose key changes.
    Moved,
}

impl Gauge {
    pub(super) const ALL: [Self; 9] = [
        Self::Row,
        Self::Trail,
        Self::Newest,
        Self::Oldest,
        Self::Shared,
        Self::Part,
        Self::Made,
        Self::Keyed,
        Self::Moved,
    ];
}

/// A way to raise gauges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Several belong in one transaction.
    pub(super) statements: Vec<String>,
    pub(super) raises: &'static [Gauge],
    /// The version can't be a parameter.
    pub(super) is_literal: bool,
}

/// How often tables are made anew: once in so many writes.
const DEFINES_ONCE_IN: u64 = 400;
/// COPY is a statement followed by its rows.
pub(super) const COPY: &str = "COPY ";

/// How far a row of [`Gauge::Moved`] moves: further than there are clients.
const MOVE: u64 = 1_000;

/// A way for this client, drawn by a random number.
pub(super) fn write(client: u64, random: u64, version: u64) -> Write {
    let c = client;
    let one = |sql: String, raises| Write { statements: vec![sql], raises, is_literal: false };
    if random.is_multiple_of(DEFINES_ONCE_IN) {
        let statements = vec![
            format!("DROP TABLE IF EXISTS made_{c}"),
            format!("CREATE TABLE made_{c} AS SELECT $1::bigint AS version"),
        ];
        return Write { statements, raises: &[Gauge::Made], is_literal: true };
    }
    let row: &[Gauge] = &[Gauge::Row, Gauge::Trail];
    match (random >> 9) % 16 {
        0 | 1 => one(format!("UPDATE rows_{c} SET version = $1 WHERE id = 1"), row),
        2 => one(
            format!(
                "INSERT INTO rows_{c} VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET version = excluded.version"
            ),
            row,
        ),
        3 => one(
            format!(
                "WITH w AS (UPDATE rows_{c} SET version = $1 WHERE id = 1 RETURNING 1) SELECT count(*) FROM w"
            ),
            row,
        ),
        4 => one(
            format!(
                "MERGE INTO rows_{c} AS r USING (SELECT $1::bigint AS version) AS n ON r.id = 1 \
                 WHEN MATCHED THEN UPDATE SET version = n.version"
            ),
            row,
        ),
        5 => one(format!("INSERT INTO parents_{c} VALUES ($1)"), &[Gauge::Newest]),
        6 => one(format!("{COPY}parents_{c} FROM STDIN"), &[Gauge::Newest]),
        7 => Write {
            statements: vec![
                format!("INSERT INTO parents_{c} VALUES ($1)"),
                format!("DELETE FROM parents_{c} WHERE id < $1"),
            ],
            raises: &[Gauge::Newest, Gauge::Oldest],
            is_literal: false,
        },
        8 => one(
            format!("UPDATE shared_{} SET version = $1 WHERE id = {c}", c % SHARED_TABLES),
            &[Gauge::Shared],
        ),
        9 => one(format!("SELECT raise_{c}($1)"), row),
        10..=13 => one(write_keyed(c, random >> 20), &[Gauge::Keyed]),
        14 => Write {
            statements: vec![
                format!("UPDATE moved SET id = {c} WHERE id = {}", c + MOVE),
                format!("UPDATE moved SET id = {}, version = $1 WHERE id = {c}", place(c, version)),
            ],
            raises: &[Gauge::Moved],
            is_literal: false,
        },
        _ => {
            let table = if random & 1 == 0 { "parts" } else { "leaf" };
            one(format!("UPDATE {table}_{c} SET version = $1 WHERE id = 1"), &[Gauge::Part])
        }
    }
}

/// Where a row is that was moved with this version.
fn place(client: u64, version: u64) -> u64 {
    client + MOVE * (version % 2)
}

/// Finds a row in a way that fixes a key, or seems to, or does not.
fn write_keyed(c: u64, random: u64) -> String {
    match random % 9 {
        0 | 1 => format!("UPDATE keyed SET version = $1 WHERE id = {c}"),
        2 => format!("UPDATE keyed SET version = $1 WHERE name = 'name {c}'"),
        3 => format!("UPDATE keyed SET version = $1 WHERE id IN ({c})"),
        4 => format!("UPDATE keyed SET version = $1 WHERE id BETWEEN {c} AND {c}"),
        5 => format!("UPDATE keyed AS k SET version = $1 FROM (VALUES ({c})) AS v (id) WHERE k.id = v.id"),
        6 => format!("UPDATE keyed SET version = $1 WHERE (id = {c} AND name = 'name {c}') OR id = -1"),
        7 => format!("UPDATE keyed SET version = $1 WHERE id = '{c}' AND name IS NOT NULL"),
        _ => format!(
            "INSERT INTO keyed VALUES ({c}, 'name {c}', $1) ON CONFLICT (id) DO UPDATE SET version = excluded.version"
        ),
    }
}

/// Looks for it in ways of its own.
fn read_keyed(c: u64, random: u64) -> String {
    match random % 9 {
        0 | 1 => format!("SELECT version FROM keyed WHERE id = {c}"),
        2 => format!("SELECT version FROM keyed WHERE name = 'name {c}'"),
        3 => format!("SELECT version FROM keyed WHERE id = '0{c}'"),
        4 => format!("SELECT version FROM keyed k WHERE k.id = {c}::smallint AND k.name <> ''"),
        5 => format!("SELECT version FROM keyed WHERE id + 0 = {c}"),
        6 => format!("SELECT version FROM keyed WHERE id = (SELECT {c})"),
        7 => format!("SELECT k.version FROM keyed k JOIN keyed o USING (id) WHERE o.id = {c}"),
        _ => format!("SELECT max(version) FROM keyed WHERE id = {c} OR name = 'name {c}'"),
    }
}

/// A way to read a gauge of this client, drawn by a random number; `version`: what it was just raised to.
pub(super) fn read(client: u64, gauge: Gauge, random: u64, version: Option<u64>) -> String {
    let c = client;
    match (gauge, random % 4) {
        (Gauge::Keyed, _) => read_keyed(c, random),
        (Gauge::Moved, _) => match version {
            Some(version) => format!("SELECT version FROM moved WHERE id = {}", place(c, version)),
            None => format!("SELECT version FROM moved WHERE id = {c} OR id = {}", c + MOVE),
        },
        (Gauge::Row, 0) => format!("SELECT version FROM seen_{c} WHERE id = 1"),
        (Gauge::Row, 1) => format!("SELECT version_{c}()"),
        (Gauge::Row, _) => format!("SELECT version FROM rows_{c} WHERE id = 1"),
        (Gauge::Trail, 0) => {
            format!("SELECT least(r.version, t.version) FROM rows_{c} r JOIN trail_{c} t USING (id)")
        }
        (Gauge::Trail, _) => format!("SELECT version FROM trail_{c} WHERE id = 1"),
        (Gauge::Newest, 0) => format!("SELECT max(parent) FROM children_{c}"),
        (Gauge::Newest, _) => format!("SELECT max(id) FROM parents_{c}"),
        (Gauge::Oldest, 0) => format!("SELECT min(id) FROM parents_{c}"),
        (Gauge::Oldest, _) => format!("SELECT min(parent) FROM children_{c}"),
        (Gauge::Shared, _) => {
            format!("SELECT version FROM shared_{} WHERE id = {c}", c % SHARED_TABLES)
        }
        (Gauge::Part, 0) => format!("SELECT version FROM leaf_{c}"),
        (Gauge::Part, 1) => format!("SELECT (SELECT max(version) FROM parts_{c})"),
        (Gauge::Part, _) => format!("SELECT version FROM parts_{c} WHERE id = 1"),
        (Gauge::Made, _) => format!("SELECT version FROM made_{c}"),
    }
}

/// The tables of so many clients, every gauge at 0.
pub(super) fn schema(clients: u64) -> String {
    let mut sql = String::new();
    for table in 0..SHARED_TABLES {
        let _ = write!(
            sql,
            "CREATE TABLE shared_{table} (id int PRIMARY KEY, version bigint NOT NULL);
             INSERT INTO shared_{table} SELECT id, 0 FROM generate_series(0, {clients}) AS id;"
        );
    }
    let _ = write!(
        sql,
        "CREATE TABLE keyed (id bigint PRIMARY KEY, name text UNIQUE, version bigint NOT NULL);
         INSERT INTO keyed SELECT id, 'name ' || id, 0 FROM generate_series(0, {clients}) AS id;
         CREATE TABLE moved (id bigint PRIMARY KEY, version bigint NOT NULL);
         INSERT INTO moved SELECT id, 0 FROM generate_series(0, {clients}) AS id;"
    );
    for c in 0..clients {
        let _ = write!(
            sql,
            "CREATE TABLE trail_{c} (id int PRIMARY KEY, version bigint NOT NULL);
             CREATE TABLE rows_{c} (id int PRIMARY KEY, version bigint NOT NULL);
             INSERT INTO trail_{c} VALUES (1, 0); INSERT INTO rows_{c} VALUES (1, 0);
             CREATE FUNCTION trails_{c}() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN UPDATE public.trail_{c} SET version = NEW.version WHERE id = NEW.id; RETURN NEW; END';
             CREATE TRIGGER t AFTER INSERT OR UPDATE ON rows_{c} FOR EACH ROW EXECUTE FUNCTION trails_{c}();
             CREATE VIEW seen_{c} AS SELECT id, version FROM rows_{c};
             CREATE FUNCTION version_{c}() RETURNS bigint LANGUAGE sql STABLE AS
             'SELECT version FROM public.rows_{c} WHERE id = 1';
             CREATE FUNCTION raise_{c}(v bigint) RETURNS bigint LANGUAGE plpgsql AS
             'BEGIN UPDATE public.rows_{c} SET version = v WHERE id = 1; RETURN v; END';
             CREATE TABLE parents_{c} (id bigint PRIMARY KEY);
             CREATE TABLE children_{c} (parent bigint NOT NULL REFERENCES parents_{c} ON DELETE CASCADE);
             CREATE INDEX ON children_{c} (parent);
             CREATE FUNCTION bears_{c}() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.children_{c} VALUES (NEW.id); RETURN NEW; END';
             CREATE TRIGGER b AFTER INSERT ON parents_{c} FOR EACH ROW EXECUTE FUNCTION bears_{c}();
             INSERT INTO parents_{c} VALUES (0);
             CREATE TABLE parts_{c} (id int, version bigint NOT NULL) PARTITION BY LIST (id);
             CREATE TABLE leaf_{c} PARTITION OF parts_{c} FOR VALUES IN (1);
             INSERT INTO parts_{c} VALUES (1, 0);
             CREATE TABLE made_{c} AS SELECT 0::bigint AS version;"
        );
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gauge_is_raised_and_read() {
        let ways = (0..20_000u64).map(|random| write(3, random * 77_777, random));
        let raised: Vec<&[Gauge]> = ways.map(|way| way.raises).collect();
        for gauge in Gauge::ALL {
            assert!(raised.iter().any(|raises| raises.contains(&gauge)), "{gauge:?} is never raised");
            assert!((0..9).all(|random| read(3, gauge, random, None).contains('3')));
        }
    }
}
