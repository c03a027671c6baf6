//! Functions that everybody knows: what calling them touches beside the rows that they are given.
//!
//! To [`infer`](super::infer), for functions that no catalog lists.

/// Volatile functions that read and write nothing that another call could see. PostgreSQL's own, and those of the extensions
/// `uuid-ossp` and `pgcrypto`.
const HARMLESS: [&str; 15] = [
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "moddatetime",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "setseed",
    "timeofday",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuidv7",
];

/// Functions that tell what the same connection did before.
const OF_THE_CONNECTION: [&str; 5] = ["changes", "currval", "last_insert_rowid", "lastval", "total_changes"];

/// Functions that both databases or the common ones of either have, that read only what they are given.
const PLAIN: [&str; 124] = [
    "abs",
    "age",
    "any_value",
    "array_agg",
    "array_append",
    "array_length",
    "array_position",
    "array_to_json",
    "array_to_string",
    "avg",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "cast",
    "ceil",
    "ceiling",
    "char",
    "char_length",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "current_date",
    "current_setting",
    "current_time",
    "current_timestamp",
    "current_user",
    "date",
    "date_part",
    "date_trunc",
    "datetime",
    "dense_rank",
    "exp",
    "extract",
    "first_value",
    "floor",
    "format",
    "generate_series",
    "glob",
    "greatest",
    "group_concat",
    "hex",
    "ifnull",
    "iif",
    "initcap",
    "instr",
    "json",
    "json_agg",
    "json_array",
    "json_array_elements",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_each",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_object_agg",
    "json_patch",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_tree",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_object_agg",
    "jsonb_set",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "like",
    "ln",
    "lower",
    "lpad",
    "ltrim",
    "max",
    "min",
    "mod",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "percent_rank",
    "percentile_cont",
    "power",
    "printf",
    "quote",
    "rank",
    "regexp_replace",
    "replace",
    "right",
    "round",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "sign",
    "split_part",
    "sqrt",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "to_char",
    "to_jsonb",
    "total",
];

/// More of SQLite's own, and a few beside them that only its dialect has.
const SQLITE: [&str; 52] = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bm25",
    "concat",
    "cos",
    "cosh",
    "degrees",
    "highlight",
    "if",
    "json_array_insert",
    "json_error_position",
    "json_pretty",
    "jsonb_array",
    "jsonb_extract",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_patch",
    "jsonb_remove",
    "jsonb_replace",
    "jsonb_tree",
    "likelihood",
    "likely",
    "log",
    "log10",
    "log2",
    "median",
    "octet_length",
    "pi",
    "pow",
    "radians",
    "random",
    "randomblob",
    "sin",
    "sinh",
    "snippet",
    "soundex",
    "sqlite_version",
    "tan",
    "tanh",
    "time",
    "timediff",
    "trim",
    "trunc",
    "typeof",
    "unhex",
];

/// The rest of SQLite's own.
const SQLITE_MORE: [&str; 8] =
    ["string_agg", "unicode", "unistr", "unistr_quote", "unixepoch", "unlikely", "upper", "zeroblob"];

/// Whether it is volatile and yet touches nothing.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

/// Whether it tells what the connection did before: nothing, if that was the same call.
pub(super) fn is_of_the_connection(name: &str) -> bool {
    OF_THE_CONNECTION.contains(&name)
}

/// Whether it reads tables that only its arguments name.
pub(super) fn reads_by_name(name: &str) -> bool {
    const MAKERS: [&str; 4] = ["_to_xml", "_to_xmlschema", "_to_xml_and_xmlschema", "ts_stat"];
    MAKERS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a function that no catalog lists reads only what it is given.
pub(super) fn is_plain(name: &str) -> bool {
    PLAIN.contains(&name)
        || matches!(name, "trim" | "unnest" | "upper" | "to_json" | "to_timestamp" | "user" | "session_user")
}

/// Whether it is one of SQLite's own that read only what they are given.
pub(super) fn is_plain_in_sqlite(name: &str) -> bool {
    is_plain(name) || SQLITE.contains(&name) || SQLITE_MORE.contains(&name)
}
