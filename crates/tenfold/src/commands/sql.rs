//! `tenfold sql explain`: where statements go and why, which tables they read and write.
//!
//! **Mechanism.** The statements are read as the pooler reads them. With `--database` the catalogue of that database is
//! loaded first, as the pooler's monitor does it; without, the catalogue is unknown, and only what needs none goes to a
//! replica.
//!
//! **Failure.** A database that can't be asked is an error, never a guess. Fingerprints printed here are stable from run
//! to run; those of a running process are its own secret.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tenfold_pooler::auth::SaltedCache;
use tenfold_pooler::control::{Client, Error, Resolver, Salter};
use tenfold_service::clock::Clock;
use tenfold_sql::{
    Catalogue, CatalogueBuilder, Classifier, Decision, Destination, Dialect, SearchPath, Seed, TableId,
    Tables, statements,
};
use tokio::time::timeout;

use super::check::databases::entrance;
use super::{complain, print, print_json};
use crate::cli::{Exit, SqlExplain};
use crate::config;
use crate::live::folder_of;
use crate::pooler_files;

/// Fixed, so that a statement has one fingerprint in every run.
const SEED: Seed =
    Seed([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d1, 0x082e_fa98_ec4e_6c89]);
/// A file of statements.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Until the server has given its whole catalogue.
const CATALOGUE_LIMIT: Duration = Duration::from_secs(60);
/// A name that was looked up once is good enough for one command.
const REFRESH: Duration = Duration::from_secs(60);

/// What statements are read with.
struct Known {
    catalogue: Arc<Catalogue>,
    path: Option<SearchPath>,
}

/// Reads the statements and prints where they go.
#[must_use]
pub fn explain(explain: &SqlExplain) -> Exit {
    let text = match text_of(explain) {
        Ok(text) => text,
        Err(message) => {
            complain(&format!("error: {message}"));
            return Exit::Usage;
        }
    };
    let known = match known(explain) {
        Ok(known) => known,
        Err((exit, message)) => {
            complain(&format!("error: {message}"));
            return exit;
        }
    };
    let mut classifier = Classifier::new(SEED);
    let mut explained = Vec::new();
    for statement in statements(&text, Dialect::default()) {
        let (catalogue, path) = (&known.catalogue, known.path.as_ref());
        let decision = classifier.classify_in(statement, Dialect::default(), catalogue, path);
        explained.push((String::from_utf8_lossy(statement).into_owned(), decision));
    }
    if explain.json {
        let all = explained.iter().map(|(sql, decision)| in_json(sql, decision, &known.catalogue)).collect();
        return print_json(&Value::Array(all));
    }
    let told = explained.iter().map(|(sql, decision)| in_words(sql, decision, &known.catalogue));
    print(&told.collect::<Vec<_>>().join("\n"))
}

fn text_of(explain: &SqlExplain) -> Result<Vec<u8>, String> {
    let Some(path) = &explain.file else {
        return Ok(explain.statement.clone().unwrap_or_default().into_bytes());
    };
    let size =
        std::fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{} is larger than 16 MiB", path.display()));
    }
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The catalogue of the database asked for, and the search path its sessions begin with.
fn known(explain: &SqlExplain) -> Result<Known, (Exit, String)> {
    let role = "";
    let given = explain.search_path.as_deref().map(|value| {
        let path = SearchPath::parse(value, role, &SEED);
        path.ok_or_else(|| (Exit::Usage, format!("{value:?} is no list of schemas")))
    });
    let given = given.transpose()?;
    let Some(name) = &explain.database else {
        return Ok(Known { catalogue: Catalogue::empty(), path: given });
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (Exit::Failed, format!("cannot start a runtime: {error}")))?;
    let asked = runtime.block_on(ask(&explain.config.config, name));
    runtime.shutdown_background();
    let (catalogue, begun) = asked?;
    Ok(Known { catalogue, path: given.or(begun) })
}

/// Logs in to a database of the file and reads its catalogue.
async fn ask(path: &Path, name: &str) -> Result<(Arc<Catalogue>, Option<SearchPath>), (Exit, String)> {
    let usage = |message: String| (Exit::Usage, message);
    let loaded = config::load(path)
        .map_err(|_| usage(format!("{} has mistakes: see tenfold check", path.display())))?;
    let settings = loaded.settings.pooler.as_ref().ok_or_else(|| usage("the file has no database".into()))?;
    let config = pooler_files::read(settings, folder_of(path), [0; 16])
        .map_err(|_| usage(format!("{} has mistakes: see tenfold check", path.display())))?;
    let database = config.databases.iter().find(|database| &*database.name == name);
    let database = database.ok_or_else(|| usage(format!("the file has no database \"{name}\"")))?;
    let entrance = entrance(&config, database)
        .ok_or_else(|| usage(format!("the file names nobody who can log in to \"{name}\"")))?;
    let (addresses, failures) = Resolver::new(Clock::system()).addresses(&database.hosts, REFRESH).await;
    let salter = Salter::new(Arc::new(SaltedCache::default()));
    let mut why = failures.join(", ");
    for address in &addresses {
        let read = async {
            let mut client = Client::connect(address, &entrance, &salter).await?;
            read_catalogue(&mut client).await
        };
        match timeout(CATALOGUE_LIMIT, read).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = "it takes too long".into(),
        }
    }
    Err((Exit::Failed, format!("database \"{name}\" cannot be asked: {why}")))
}

async fn read_catalogue(client: &mut Client) -> Result<(Arc<Catalogue>, Option<SearchPath>), Error> {
    let begun = client.rows("SELECT pg_catalog.current_setting('search_path'), current_user").await?;
    let column = |index: usize| begun.first().and_then(|row| row.get(index)?.as_deref());
    let path = column(0).zip(column(1)).and_then(|(path, role)| SearchPath::parse(path, role, &SEED));
    let mut builder = CatalogueBuilder::new();
    client.rows("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    for (index, query) in Catalogue::QUERIES.iter().enumerate() {
        client.each_row(query, |columns| Ok(builder.row(index, columns)?)).await?;
    }
    client.rows("COMMIT").await?;
    Ok((builder.build(1), path))
}

/// Where it goes, in words.
fn goes_to(decision: &Decision) -> String {
    match decision.route.destination {
        Destination::Replica if decision.route.binds => {
            "a replica; within a transaction block, wherever that runs".into()
        }
        Destination::Replica => "a replica".into(),
        Destination::Follows => "wherever its transaction runs; alone, the primary".into(),
        Destination::Primary(reason) => match &decision.route.culprit {
            Some(name) => format!("the primary: {} ({name})", reason.text()),
            None => format!("the primary: {}", reason.text()),
        },
    }
}

fn names(tables: &Tables, catalogue: &Catalogue) -> Vec<String> {
    let name = |table: &TableId| {
        catalogue.table_name(*table).map_or_else(|| format!("table {}", table.0), str::to_owned)
    };
    match tables {
        Tables::Some(tables) => tables.iter().map(name).collect(),
        Tables::All => vec!["*".into()],
    }
}

fn in_words(sql: &str, decision: &Decision, catalogue: &Catalogue) -> String {
    let tables = |tables: &Tables| match names(tables, catalogue).as_slice() {
        [] => "nothing".to_owned(),
        [all] if all == "*" => "possibly any table".to_owned(),
        names => names.join(", "),
    };
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<12} {value}");
    };
    line("goes to", &goes_to(decision));
    line("reads", &tables(&decision.route.reads));
    line("writes", &tables(&decision.route.writes));
    if let Some(key) = &decision.route.key {
        line("key", &key.column);
    }
    if !decision.effects.is_empty() {
        line("leaves", &decision.effects.to_string());
    }
    line("fingerprint", &decision.fingerprint.to_string());
    if catalogue.version() == 0 {
        line("catalogue", "unknown: name a database with --database");
    }
    let shown: String =
        sql.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    format!("{shown}\n{out}")
}

fn in_json(sql: &str, decision: &Decision, catalogue: &Catalogue) -> Value {
    let (place, reason) = match decision.route.destination {
        Destination::Replica => ("replica", None),
        Destination::Follows => ("transaction", None),
        Destination::Primary(reason) => ("primary", Some(reason.label())),
    };
    json!({
        "statement": sql,
        "goes_to": place,
        "reason": reason,
        "culprit": decision.route.culprit,
        "reads": names(&decision.route.reads, catalogue),
        "writes": names(&decision.route.writes, catalogue),
        "of_transaction": decision.route.binds,
        "key": decision.route.key.as_ref().map(|key| &*key.column),
        "fingerprint": decision.fingerprint.to_string(),
        "catalogue_known": catalogue.version() != 0,
    })
}
