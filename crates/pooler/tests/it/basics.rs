//! What every client does, through the pooler.

use tenfold_pooler::config::Mode;

use crate::{
    direct::Direct,
    pooled::{Pooled, config},
};

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

#[test]
fn statement_mode_takes_no_transaction_of_several_exchanges() {
    const REFUSED: &str = "transaction blocks are not allowed in statement mode";
    let mut config = config();
    config.databases[0].pool.mode = Mode::Statement;
    config.databases[0].pool.size = 1;
    let pooled = Pooled::start(config);
    let mut alone = Direct::connect_to(pooled.port(), &[]);
    assert_eq!(alone.query("BEGIN").unwrap_err(), REFUSED);
    assert_eq!(alone.value("SELECT 'stays'").as_deref(), Some("stays"));
    // Begun and ended within one string, it is one exchange.
    assert!(alone.query("BEGIN; SELECT 1; COMMIT").is_ok());
    let strings = ["BEGIN; SELECT 1", "SELECT 1; START TRANSACTION", "BEGIN; SELECT 1 / 0"];
    for string in strings {
        let mut among = Direct::connect_to(pooled.port(), &[]);
        let error = among.query(string).unwrap_err();
        assert!(
            error.starts_with("the connection was closed") && error.contains(REFUSED),
            "{string}: {error}"
        );
        assert_eq!(alone.value("SELECT pg_current_xact_id_if_assigned()"), None, "{string}");
    }
}
