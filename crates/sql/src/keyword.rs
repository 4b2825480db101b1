//! PostgreSQL's keywords by category: which words can be a function's name without quotes.
//!
//! Sources: `src/include/parser/kwlist.h` of PostgreSQL 15 (as `pg_get_keywords()` gives it) and what 16 to 18 added.
//! A word that an older server does not know as a keyword is still safe here: names of functions are looked up in the
//! catalogue first, and only a name found nowhere is held to be a keyword.

/// What a keyword may be used for. Appendix C of PostgreSQL's manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    /// A name of anything.
    Unreserved,
    /// A name, but not of a function or type.
    ColumnName,
    /// A name of a function or type only.
    TypeOrFunction,
    /// Never a name without quotes.
    Reserved,
}

/// The category of a word in lower case; `None`: not a keyword.
pub(crate) fn category(word: &[u8]) -> Option<Category> {
    let word = std::str::from_utf8(word).ok()?;
    let has = |words: &[&str]| words.binary_search(&word).is_ok();
    if has(RESERVED) {
        return Some(Category::Reserved);
    }
    if has(UNRESERVED) {
        return Some(Category::Unreserved);
    }
    if has(COLUMN_NAME) {
        return Some(Category::ColumnName);
    }
    has(TYPE_OR_FUNCTION).then_some(Category::TypeOrFunction)
}

#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "both", "case", "cast",
    "check", "collate", "column", "constraint", "create", "current_catalog", "current_date", "current_role",
    "current_time", "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct", "do",
    "else", "end", "except", "false", "fetch", "for", "foreign", "from", "grant", "group", "having", "in",
    "initially", "intersect", "into", "lateral", "leading", "limit", "localtime", "localtimestamp", "not",
    "null", "offset", "on", "only", "or", "order", "placing", "primary", "references", "returning",
    "select", "session_user", "some", "symmetric", "system_user", "table", "then", "to", "trailing", "true",
    "union", "unique", "user", "using", "variadic", "when", "where", "window", "with",
];

#[rustfmt::skip]
const TYPE_OR_FUNCTION: &[&str] = &[
    "authorization", "binary", "collation", "concurrently", "cross", "current_schema", "freeze", "full",
    "ilike", "inner", "is", "isnull", "join", "left", "like", "natural", "notnull", "outer", "overlaps",
    "right", "similar", "tablesample", "verbose",
];

#[rustfmt::skip]
const COLUMN_NAME: &[&str] = &[
    "between", "bigint", "bit", "boolean", "char", "character", "coalesce", "dec", "decimal", "exists",
    "extract", "float", "greatest", "grouping", "inout", "int", "integer", "interval", "json", "json_array",
    "json_arrayagg", "json_exists", "json_object", "json_objectagg", "json_query", "json_scalar",
    "json_serialize", "json_table", "json_value", "least", "merge_action", "national", "nchar", "none",
    "normalize", "nullif", "numeric", "out", "overlay", "position", "precision", "real", "row", "setof",
    "smallint", "substring", "time", "timestamp", "treat", "trim", "values", "varchar", "xmlattributes",
    "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot",
    "xmlserialize", "xmltable",
];

#[rustfmt::skip]
const UNRESERVED: &[&str] = &[
    "abort", "absent", "absolute", "access", "action", "add", "admin", "after", "aggregate", "also",
    "alter", "always", "asensitive", "assertion", "assignment", "at", "atomic", "attach", "attribute",
    "backward", "before", "begin", "breadth", "by", "cache", "call", "called", "cascade", "cascaded",
    "catalog", "chain", "characteristics", "checkpoint", "class", "close", "cluster", "columns", "comment",
    "comments", "commit", "committed", "compression", "conditional", "configuration", "conflict",
    "connection", "constraints", "content", "continue", "conversion", "copy", "cost", "csv", "cube",
    "current", "cursor", "cycle", "data", "database", "day", "deallocate", "declare", "defaults",
    "deferred", "definer", "delete", "delimiter", "delimiters", "depends", "depth", "detach", "dictionary",
    "disable", "discard", "document", "domain", "double", "drop", "each", "empty", "enable", "encoding",
    "encrypted", "enforced", "enum", "error", "escape", "event", "exclude", "excluding", "exclusive",
    "execute", "explain", "expression", "extension", "external", "family", "filter", "finalize", "first",
    "following", "force", "format", "forward", "function", "functions", "generated", "global", "granted",
    "groups", "handler", "header", "hold", "hour", "identity", "if", "immediate", "immutable", "implicit",
    "import", "include", "including", "increment", "indent", "index", "indexes", "inherit", "inherits",
    "inline", "input", "insensitive", "insert", "instead", "invoker", "isolation", "keep", "key", "keys",
    "label", "language", "large", "last", "leakproof", "level", "listen", "load", "local", "location",
    "lock", "locked", "logged", "mapping", "match", "matched", "materialized", "maxvalue", "merge",
    "method", "minute", "minvalue", "mode", "month", "move", "name", "names", "nested", "new", "next",
    "nfc", "nfd", "nfkc", "nfkd", "no", "normalized", "nothing", "notify", "nowait", "nulls", "object",
    "objects", "of", "off", "oids", "old", "omit", "operator", "option", "options", "ordinality", "others",
    "over", "overriding", "owned", "owner", "parallel", "parameter", "parser", "partial", "partition",
    "passing", "password", "path", "period", "plan", "plans", "policy", "preceding", "prepare", "prepared",
    "preserve", "prior", "privileges", "procedural", "procedure", "procedures", "program", "publication",
    "quote", "quotes", "range", "read", "reassign", "recheck", "recursive", "ref", "referencing", "refresh",
    "reindex", "relative", "release", "rename", "repeatable", "replace", "replica", "reset", "restart",
    "restrict", "return", "returns", "revoke", "role", "rollback", "rollup", "routine", "routines", "rows",
    "rule", "savepoint", "scalar", "schema", "schemas", "scroll", "search", "second", "security",
    "sequence", "sequences", "serializable", "server", "session", "set", "sets", "share", "show", "simple",
    "skip", "snapshot", "source", "split", "sql", "stable", "standalone", "start", "statement",
    "statistics", "stdin", "stdout", "storage", "stored", "strict", "string", "strip", "subscription",
    "support", "sysid", "system", "tables", "tablespace", "target", "temp", "template", "temporary", "text",
    "ties", "transaction", "transform", "trigger", "truncate", "trusted", "type", "types", "uescape",
    "unbounded", "uncommitted", "unconditional", "unencrypted", "unknown", "unlisten", "unlogged", "until",
    "update", "vacuum", "valid", "validate", "validator", "value", "varying", "version", "view", "views",
    "virtual", "volatile", "whitespace", "within", "without", "work", "wrapper", "write", "xml", "year",
    "yes", "zone",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_apart() {
        let lists = [RESERVED, TYPE_OR_FUNCTION, COLUMN_NAME, UNRESERVED];
        let mut all = lists.concat();
        assert!(lists.iter().all(|list| list.is_sorted()));
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn words_have_their_category() {
        assert_eq!(category(b"select"), Some(Category::Reserved));
        assert_eq!(category(b"left"), Some(Category::TypeOrFunction));
        assert_eq!(category(b"coalesce"), Some(Category::ColumnName));
        assert_eq!(category(b"replace"), Some(Category::Unreserved));
        assert_eq!(category(b"nextval"), None);
        assert_eq!(category(b"\xff"), None);
    }
}
