//! Where RESET and SET … TO DEFAULT take a session that began with startup parameters: back to them, as PostgreSQL does,
//! unless what did it was undone.

use super::kinds::{Kind, kind};

const BEGAN: &[(&str, &str)] =
    &[("options", "-c work_mem=5MB -c leak.tenant=began"), ("application_name", "began")];
const WORK_MEM: &str = "SHOW work_mem";
const ALL: &str = "SELECT current_setting('work_mem'), current_setting('application_name'), \
                   current_setting('lock_timeout'), coalesce(current_setting('leak.tenant', true), '')";
const LOCAL: &str = "SET LOCAL work_mem TO DEFAULT";

const fn began(name: &'static str, sets: &'static [&'static str], reads: &'static str) -> Kind {
    Kind { startup: BEGAN, ..kind(name, sets, reads) }
}

/// All with the same beginning.
pub(super) const STARTUPS: &[Kind] = &[
    began("nothing", &[], ALL),
    began("SET and RESET", &["SET work_mem = '7MB'", "RESET work_mem"], ALL),
    began("SET and RESET in one string", &["SET work_mem = '7MB'; RESET work_mem"], ALL),
    began("SET beside a RESET", &["SET work_mem = '7MB'; SET lock_timeout = '9s'; RESET lock_timeout"], ALL),
    began("SET after a RESET", &["RESET work_mem; SET work_mem = '7MB'"], ALL),
    began("SET to DEFAULT", &["SET work_mem = '7MB'", "SET work_mem TO DEFAULT"], ALL),
    began("SET to DEFAULT in one string", &["SET work_mem = '7MB'; SET work_mem TO DEFAULT"], ALL),
    began("SET the name to DEFAULT", &["SET application_name = 'x'", "SET application_name TO DEFAULT"], ALL),
    began("SET LOCAL to DEFAULT", &["SET work_mem = '7MB'", "BEGIN", LOCAL, "COMMIT"], ALL),
    began("set_config to NULL", &["SET work_mem = '7MB'", "SELECT set_config('work_mem', NULL, false)"], ALL),
    began("SET of the default's value", &["SET work_mem = '4MB'"], ALL),
    began("RESET rolled back", &["SET work_mem = '7MB'", "BEGIN", "RESET work_mem", "ROLLBACK"], WORK_MEM),
    began(
        "RESET in a savepoint rolled back",
        &["SET work_mem = '7MB'", "BEGIN", "SAVEPOINT s", "RESET work_mem", "ROLLBACK TO s", "COMMIT"],
        WORK_MEM,
    ),
    began("RESET failed", &["SET work_mem = '7MB'; RESET work_mem; SELECT 1/0"], WORK_MEM),
    began("RESET in DO", &["SET work_mem = '7MB'", "DO $$BEGIN RESET work_mem; END$$"], WORK_MEM),
    began("RESET ALL", &["SET work_mem = '7MB'; SET application_name = 'x'", "RESET ALL"], ALL),
    began("RESET ALL and SET", &["RESET ALL; SET work_mem = '7MB'"], ALL),
    began("DISCARD ALL", &["SET work_mem = '7MB'", "SET leak.tenant = 'x'", "DISCARD ALL"], ALL),
    began("RESET ALL rolled back", &["SET work_mem = '7MB'", "BEGIN", "RESET ALL", "ROLLBACK"], ALL),
];
