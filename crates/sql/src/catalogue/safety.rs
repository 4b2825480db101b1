//! Which of PostgreSQL's own functions and views a replica answers as the primary would.
//!
//! The server's catalogue says which functions are VOLATILE. Of those, some are harmless all the same; of the others,
//! some answer for the server they run on, or for the transaction's place in the primary's history. Both are listed
//! here. Sources: chapter 9 of PostgreSQL's manual ("System Information Functions", "System Administration Functions"),
//! chapter 27 (monitoring), `src/include/catalog/pg_proc.dat` of PostgreSQL 12 to 18.

use crate::route::Reason;

/// VOLATILE only because two calls differ: any server will do. Handlers of sampling methods are so declared, too.
const HARMLESS: [&str; 23] = [
    "bernoulli",
    "clock_timestamp",
    "current_query",
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "random_normal",
    "system",
    "system_rows",
    "system_time",
    "timeofday",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuid_nil",
    "uuidv4",
    "uuidv7",
];

/// Not VOLATILE, and yet another answer on another server.
const SERVER: [&str; 34] = [
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_backend_pid",
    "pg_conf_load_time",
    "pg_config",
    "pg_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_cursor",
    "pg_extension_update_paths",
    "pg_get_replication_slots",
    "pg_is_other_temp_schema",
    "pg_listening_channels",
    "pg_my_temp_schema",
    "pg_postmaster_start_time",
    "pg_prepared_statement",
    "pg_replication_origin_oid",
    "pg_settings_get_flags",
    "pg_show_all_settings",
    "pg_tablespace_location",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "xpath_table",
];

/// What begins like this tells of the server.
const SERVER_PREFIXES: [&str; 6] =
    ["pg_stat_get_", "pg_ls_", "pg_control_", "pg_last_", "pg_current_wal", "pg_show_"];

/// Views of `pg_catalog` that tell of the server or the session.
const SERVER_VIEWS: [&str; 21] = [
    "pg_aios",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_backend_memory_contexts",
    "pg_config",
    "pg_cursors",
    "pg_dsm_registry_allocations",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_locks",
    "pg_prepared_statements",
    "pg_prepared_xacts",
    "pg_replication_origin_status",
    "pg_replication_slots",
    "pg_sequences",
    "pg_settings",
    "pg_shmem_allocations",
    "pg_shmem_allocations_numa",
    "pg_stat",
    "pg_wait_events",
];

fn has(list: &[&str], name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| list.binary_search(&name).is_ok())
}

/// Why a function of this name, PostgreSQL's own or written in C, does not run on a replica. `is_volatile`: whether
/// any function of the name is so declared.
pub(crate) fn function(name: &[u8], is_volatile: bool) -> Option<Reason> {
    if has(&HARMLESS, name) {
        return None;
    }
    if has(&SERVER, name) || SERVER_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes())) {
        return Some(Reason::ServerState);
    }
    let reason = match name {
        b"nextval" | b"setval" | b"currval" | b"lastval" | b"pg_sequence_last_value" => Reason::Sequence,
        b"pg_notify" => Reason::Channel,
        b"set_config" | b"setseed" => Reason::Session,
        _ if name.starts_with(b"pg_advisory_") || name.starts_with(b"pg_try_advisory_") => {
            Reason::AdvisoryLock
        }
        _ if name.starts_with(b"lo_") || matches!(name, b"lowrite" | b"loread") => Reason::Writes,
        _ if is_volatile => Reason::VolatileFunction,
        _ => return None,
    };
    Some(reason)
}

/// Why a column of this name, which any table has and no user can give, is not read on a replica: numbers of commands
/// are not in the log (`heap_xlog_insert` in `heapam.c` sets them to the first).
pub(crate) fn column(name: &[u8]) -> Option<Reason> {
    matches!(name, b"cmin" | b"cmax").then_some(Reason::ServerState)
}

/// Why a relation of `pg_catalog` or `information_schema` is not read on a replica.
pub(crate) fn relation(name: &[u8]) -> Option<Reason> {
    let is_monitoring = name.starts_with(b"pg_stat_") || name.starts_with(b"pg_statio_");
    (is_monitoring || has(&SERVER_VIEWS, name)).then_some(Reason::ServerState)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        assert!(HARMLESS.is_sorted() && SERVER.is_sorted() && SERVER_VIEWS.is_sorted());
    }

    #[test]
    fn functions_have_their_reason() {
        assert_eq!(function(b"lower", false), None);
        assert_eq!(function(b"random", true), None);
        assert_eq!(function(b"nextval", true), Some(Reason::Sequence));
        assert_eq!(function(b"txid_current", false), Some(Reason::ServerState));
        assert_eq!(function(b"pg_stat_get_numscans", false), Some(Reason::ServerState));
        assert_eq!(function(b"pg_reload_conf", true), Some(Reason::VolatileFunction));
        assert_eq!(relation(b"pg_statistic"), None);
        assert_eq!(relation(b"pg_stat_activity"), Some(Reason::ServerState));
    }
}
