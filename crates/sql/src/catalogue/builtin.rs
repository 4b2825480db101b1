//! What PostgreSQL's own functions and relations, and those of common extensions, do to a session.
//!
//! The C sources can't be read as function bodies are, so the few that leave something behind are listed here by name.
//! Sources: chapters 9 (functions), 54 (system views) and appendix F (extensions) of PostgreSQL's manual, and
//! `src/include/catalog/pg_proc.dat`.

use crate::effects::Effects;

/// The effects of a function written in C, and the setting it changes, if that is known.
pub(crate) fn function(name: &[u8]) -> Option<(Effects, Option<&'static str>)> {
    let effects = match name {
        b"pg_advisory_lock" | b"pg_advisory_lock_shared" => Effects::ADVISORY,
        b"pg_try_advisory_lock" | b"pg_try_advisory_lock_shared" => Effects::ADVISORY,
        b"pg_advisory_unlock" | b"pg_advisory_unlock_shared" => Effects::ADVISORY_UNLOCK,
        b"pg_advisory_unlock_all" => Effects::ADVISORY_UNLOCK,
        b"nextval" | b"setval" => Effects::SEQUENCE_SET,
        b"currval" | b"lastval" => Effects::SEQUENCE_READ,
        b"setseed" => Effects::SEED,
        b"pg_listening_channels" => Effects::LISTEN_READ,
        b"pg_prepared_statement" => Effects::SQL_EXECUTE,
        // A call that could not be read with its arguments.
        b"set_config" => Effects::SETTINGS_UNKNOWN,
        // Run queries that are in their arguments.
        b"query_to_xml" | b"query_to_xmlschema" | b"query_to_xml_and_xmlschema" => Effects::UNKNOWN,
        b"cursor_to_xml" | b"cursor_to_xmlschema" => Effects::UNKNOWN,
        b"table_to_xml" | b"table_to_xml_and_xmlschema" | b"schema_to_xml" => Effects::UNKNOWN,
        b"schema_to_xml_and_xmlschema" | b"database_to_xml" => Effects::UNKNOWN,
        b"database_to_xml_and_xmlschema" | b"ts_stat" | b"ts_rewrite" => Effects::UNKNOWN,
        b"crosstab" | b"crosstab2" | b"crosstab3" | b"crosstab4" | b"crosstab_hash" => Effects::UNKNOWN,
        b"connectby" | b"xpath_table" => Effects::UNKNOWN,
        // Replication slots may be temporary, that is the session's; origins and backups are.
        b"pg_create_physical_replication_slot" | b"pg_create_logical_replication_slot" => Effects::LOAD,
        b"pg_copy_physical_replication_slot" | b"pg_copy_logical_replication_slot" => Effects::LOAD,
        b"pg_replication_origin_session_setup" | b"pg_replication_origin_session_reset" => Effects::LOAD,
        b"pg_backup_start" | b"pg_start_backup" | b"pg_backup_stop" | b"pg_stop_backup" => Effects::LOAD,
        // Connections that stay open by name.
        b"dblink_connect" | b"dblink_connect_u" => Effects::LOAD,
        b"set_limit" => return Some((Effects::SETTINGS, Some("pg_trgm.similarity_threshold"))),
        _ => return None,
    };
    Some((effects, None))
}

/// The effects of a function by the C symbol it is defined with: PostgreSQL's symbols are its names with a suffix.
pub(crate) fn symbol(symbol: &[u8]) -> Option<(Effects, Option<&'static str>)> {
    const PREFIXES: [&[u8]; 7] = [
        b"nextval",
        b"setval",
        b"currval",
        b"set_config",
        b"pg_advisory_lock",
        b"pg_try_advisory_lock",
        b"pg_advisory_unlock",
    ];
    let prefix = PREFIXES.into_iter().find(|prefix| symbol.starts_with(prefix));
    function(prefix.unwrap_or(symbol))
}

/// Libraries of extensions whose volatile functions keep state in the session.
pub(crate) const LIBRARIES_STATEFUL: [&str; 7] =
    ["orafce", "plugin_debugger", "hypopg", "set_user", "pldbgapi", "session_variable", "pg_variables"];

/// What reading, and what writing, a relation of `pg_catalog` does.
pub(crate) fn relation(name: &[u8]) -> Option<(Effects, Effects)> {
    match name {
        b"pg_prepared_statements" => Some((Effects::SQL_EXECUTE, Effects::SQL_EXECUTE)),
        // UPDATE pg_settings calls set_config.
        b"pg_settings" => Some((Effects::NONE, Effects::SETTINGS_UNKNOWN)),
        // Definitions changed by hand.
        b"pg_proc" | b"pg_trigger" | b"pg_rewrite" | b"pg_attrdef" | b"pg_class" => {
            Some((Effects::NONE, Effects::DDL))
        }
        _ => None,
    }
}
