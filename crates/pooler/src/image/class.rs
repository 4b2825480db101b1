//! What each setting is to the pooler: when it must be in force, and whether a cached plan depends on it.
//!
//! **Intuition.** A client's `application_name` may travel in the same write as its query: if it did not take, nothing
//! would be wrong but a word in a view. Its `role` may not: if it did not take, the query would run with a stranger's
//! rights. Between the two stand settings such as `TimeZone`, whose values, once printed by a server, can only be
//! refused when the statement that sets them is cut short.
//!
//! **Mechanism.** Two closed lists, by lower-case name; what is on neither is [`Class::Guarding`], custom settings
//! (`app.tenant`, which row policies read) first of all. A third list says which settings no plan depends on.
//!
//! **Failure.** A setting missing from a list costs a round trip or a second copy of a plan, never a wrong answer.
//!
//! Source: PostgreSQL manual, chapter 20; contexts and checks in `src/backend/utils/misc/guc_tables.c`.

/// What a setting guards while it is carried to a server. Ordered: a higher one is handled with more care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Names, limits of time and memory, advice to the planner. A query that ran without it has the same result.
    Harmless,
    /// How values are written and read. No server refuses a value that a server printed, but a statement timeout or an
    /// administrator's cancel may hit the statement that sets it.
    Format,
    /// Who asks, which rows and tables are meant, what is kept safe, how the client's text is cut into tokens.
    Guarding,
}

/// What a setting guards. `name` is lower case.
#[must_use]
pub fn class(name: &str) -> Class {
    match name {
        "timezone" | "datestyle" | "intervalstyle" | "client_encoding" | "extra_float_digits"
        | "bytea_output" => Class::Format,
        _ if is_harmless(name) => Class::Harmless,
        _ => Class::Guarding,
    }
}

/// Settings whose value the server takes from anyone and that change no result.
fn is_harmless(name: &str) -> bool {
    is_plan_neutral(name) && name != "synchronous_commit"
        // Every `enable_…` of the server is a boolean that anyone may set; extensions' names have a dot.
        || (name.starts_with("enable_") && !name.contains('.'))
        || matches!(
            name,
            "work_mem"
                | "maintenance_work_mem"
                | "hash_mem_multiplier"
                | "effective_cache_size"
                | "effective_io_concurrency"
                | "maintenance_io_concurrency"
                | "random_page_cost"
                | "seq_page_cost"
                | "cpu_tuple_cost"
                | "cpu_index_tuple_cost"
                | "cpu_operator_cost"
                | "parallel_setup_cost"
                | "parallel_tuple_cost"
                | "parallel_leader_participation"
                | "min_parallel_table_scan_size"
                | "min_parallel_index_scan_size"
                | "max_parallel_workers"
                | "max_parallel_workers_per_gather"
                | "max_parallel_maintenance_workers"
                | "jit"
                | "jit_above_cost"
                | "jit_inline_above_cost"
                | "jit_optimize_above_cost"
                | "geqo"
                | "geqo_threshold"
                | "geqo_effort"
                | "from_collapse_limit"
                | "join_collapse_limit"
                | "cursor_tuple_fraction"
                | "plan_cache_mode"
        )
}

/// Whether a prepared statement means and does the same whatever this setting is: the only ones that clients with one
/// copy of a statement may differ in. A plan keeps the `TimeZone` its constants were read in and the `search_path` its
/// names were found by; immutable functions, folded into a plan, may have read any custom setting.
#[must_use]
pub fn is_plan_neutral(name: &str) -> bool {
    matches!(
        name,
        "application_name"
            | "client_min_messages"
            | "statement_timeout"
            | "lock_timeout"
            | "idle_in_transaction_session_timeout"
            | "idle_session_timeout"
            | "transaction_timeout"
            | "client_connection_check_interval"
            | "tcp_keepalives_idle"
            | "tcp_keepalives_interval"
            | "tcp_keepalives_count"
            | "tcp_user_timeout"
            | "synchronous_commit"
    )
}

/// Whether this setting belongs to the session at all. Those of the transaction are gone with it, and `seed`, which no
/// server shows, is pinned by whoever sees `setseed`.
pub(super) fn is_of_session(name: &str) -> bool {
    !matches!(name, "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" | "seed")
}

/// Timeouts that may cut short a statement of ours if a client left them on the server.
pub(super) const STATEMENT_TIMEOUTS: [&str; 2] = ["statement_timeout", "transaction_timeout"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guards_rights_or_rows_is_confirmed_first() {
        for name in [
            "role",
            "session_authorization",
            "row_security",
            "search_path",
            "app.tenant",
            "default_transaction_read_only",
            "default_transaction_isolation",
            "standard_conforming_strings",
            "synchronous_commit",
            "session_replication_role",
            "enable_x.evil",
            "a setting of tomorrow",
        ] {
            assert_eq!(class(name), Class::Guarding, "{name}");
        }
    }

    #[test]
    fn what_changes_no_result_may_travel_along() {
        for name in ["application_name", "statement_timeout", "work_mem", "enable_seqscan", "jit"] {
            assert_eq!(class(name), Class::Harmless, "{name}");
        }
        for name in ["timezone", "datestyle", "client_encoding"] {
            assert_eq!(class(name), Class::Format, "{name}");
        }
    }

    #[test]
    fn plans_depend_on_all_but_a_few() {
        for (name, neutral) in [
            ("application_name", true),
            ("statement_timeout", true),
            ("timezone", false),
            ("search_path", false),
            ("enable_seqscan", false),
            ("role", false),
            ("app.tenant", false),
        ] {
            assert_eq!(is_plan_neutral(name), neutral, "{name}");
        }
    }
}
