//! What the tests share: a catalogue made by hand, and one way to ask for a decision.

use std::sync::Arc;

use tenfold_sql::{Begin, Catalogue, CatalogueBuilder, Classifier, Decision, Dialect, Seed, SetValue, Shape};

pub(crate) const SEED: Seed =
    Seed([0x1234_5678_9abc_def1, 0xfedc_ba98_7654_3211, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d]);

/// Functions of PostgreSQL's own that the tables call.
const BUILTINS: &str = "abs array_agg avg count coalesce current_setting date_trunc format format_type \
    generate_series int4 jsonb_agg jsonb_build_object json_build_object left length lower max min now now \
    pg_advisory_xact_lock pg_sleep pg_notify random regclass replace round row_number string_agg substr sum system \
    text timezone to_char unnest upper version nextval setval currval lastval pg_advisory_lock concat clock_timestamp";

/// Those of them that are VOLATILE.
const VOLATILES: &str = "pg_advisory_xact_lock pg_sleep pg_notify random system nextval setval currval lastval pg_advisory_lock clock_timestamp";

/// A database: functions (name, language, source), relations (name, kind, text).
pub(crate) fn database(
    functions: &[(&str, &str, &str)],
    relations: &[(&str, &str, Option<&str>)],
) -> Arc<Catalogue> {
    let mut builder = CatalogueBuilder::new();
    let mut row = |query, columns: &[Option<&str>]| builder.row(query, columns).expect("a row of that query");
    row(0, &[Some(BUILTINS), Some(VOLATILES), Some("pg_class pg_stat_activity")]);
    for (name, language, source) in functions {
        row(1, &[Some(name), Some(language), Some("v"), None, Some(source), None, None, None, None]);
    }
    for (name, kind, text) in relations {
        row(5, &[Some(name), Some(kind), *text, None, None]);
    }
    builder.build(1)
}

pub(crate) fn classify_with(sql: &str, dialect: Dialect, catalogue: &Catalogue) -> Arc<Decision> {
    Classifier::new(SEED).classify(sql.as_bytes(), dialect, catalogue)
}

pub(crate) fn classify(sql: &str, catalogue: &Catalogue) -> Arc<Decision> {
    classify_with(sql, Dialect::default(), catalogue)
}

/// A shape in few words.
pub(crate) fn label(shape: &Shape) -> String {
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    match shape {
        Shape::Begin(begin) => {
            let Begin { isolation, read_only, deferrable, start } = begin;
            let isolation = isolation.map_or(String::new(), |level| format!(" {level:?}"));
            let read_only = read_only.map_or("", |only| if only { " ro" } else { " rw" });
            let deferrable = deferrable.map_or("", |is| if is { " deferrable" } else { " not" });
            format!("{}{isolation}{read_only}{deferrable}", if *start { "Start" } else { "Begin" })
        }
        Shape::Commit { chain } => format!("Commit{}", if *chain { " chain" } else { "" }),
        Shape::Rollback { chain } => format!("Rollback{}", if *chain { " chain" } else { "" }),
        Shape::Savepoint(n) => format!("Savepoint {}", name(n)),
        Shape::RollbackTo(n) => format!("RollbackTo {}", name(n)),
        Shape::Release(n) => format!("Release {}", name(n)),
        Shape::Set(set) => {
            let value = match &set.value {
                SetValue::Default => "default".to_owned(),
                SetValue::One(value) => format!("'{}'", name(value)),
                SetValue::Complex => "...".to_owned(),
            };
            format!("Set {}{} {value}", if set.local { "local " } else { "" }, set.name)
        }
        Shape::Reset(n) => format!("Reset {n}"),
        Shape::Show(n) => format!("Show {n}"),
        Shape::Discard(what) => format!("Discard {what:?}"),
        Shape::Prepare { name: n, body } => {
            format!("Prepare {} {} {}", name(n), label(&body.shape), body.effects)
        }
        Shape::Execute(n) => format!("Execute {}", name(n)),
        Shape::Deallocate(n) => format!("Deallocate {}", name(n)),
        Shape::Listen(n) => format!("Listen {}", name(n)),
        Shape::Unlisten(n) => format!("Unlisten {}", name(n)),
        Shape::Notify(n) => format!("Notify {}", name(n)),
        Shape::Declare { hold } => format!("Declare{}", if *hold { " hold" } else { "" }),
        Shape::Copy { into_table, stdio } => {
            format!("Copy {}{}", if *into_table { "in" } else { "out" }, if *stdio { " stdio" } else { "" })
        }
        Shape::Select { locking } => format!("Select{}", if *locking { " locking" } else { "" }),
        other => format!("{other:?}"),
    }
}
