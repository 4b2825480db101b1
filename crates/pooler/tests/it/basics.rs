//! What every client does, through the pooler.

use crate::pooled::{Pooled, config};

#[test]
fn psql_asks_and_is_answered() {
    let pooled = Pooled::start(config());
    assert_eq!(pooled.psql("SELECT 1 + 1"), Ok("2".into()));
    let error = pooled.psql("SELECT 1 / 0").unwrap_err();
    assert!(error.contains("division by zero"), "{error}");
    let error = pooled.psql("SELEKT").unwrap_err();
    assert!(error.contains("syntax error"), "{error}");
}

#[test]
fn a_transaction_keeps_its_server() {
    let pooled = Pooled::start(config());
    let sql = "BEGIN; CREATE TEMP TABLE t (n int) ON COMMIT DROP; INSERT INTO t VALUES (7); SELECT n FROM t; COMMIT;";
    assert_eq!(pooled.psql(sql), Ok("7".into()));
}

#[test]
fn settings_follow_their_client_only() {
    let pooled = Pooled::start(config());
    let mut psql = pooled.psql_command();
    psql.args(["-c", "SET work_mem = '5MB'", "-c", "SELECT 1", "-c", "SHOW work_mem"]);
    assert_eq!(crate::pooled::told(psql.output().unwrap()), Ok("1\n5MB".into()));
    assert_eq!(pooled.psql("SHOW work_mem"), Ok("4MB".into()));
}
