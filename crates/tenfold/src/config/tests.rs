//! Whole files: what is built from good ones, and what is said, to the letter, about bad ones.

mod pooler;

use super::diagnostic::Severity;
use super::keys::{Key, Kind, ROOT};
use super::*;

/// A file with every key of this release.
const EVERYTHING: &str = r#"
workers = 2

[admin]
listen = "127.0.0.1:9900"
probe_listen = "0.0.0.0:9901"
token = "${ADMIN_TOKEN}"
handover = "/run/tenfold/handover.sock"

[log]
format = "json"
access = "12.5%"

[drain]
deadline = "10s"
handover = "20m"

[edge]
listen = ["0.0.0.0:8080", "[::1]:8081"]
trusted_proxies = ["10.0.0.0/8", "192.168.1.1"]
connections_max = 1000
connections_per_ip_max = 10
requests_per_connection_max = 100
head_max = "16KiB"
field_line_max = "4KiB"
target_max = "2KiB"
fields_max = 50
body_max = "1MiB"
head_read = "5s"
keep_alive = "20s"
body_idle = "15s"
send_rate_min = "1KiB"
own_writes = { key = "${ADMIN_TOKEN}", ttl = "2h", lag_max = "5s" }

[cache]
memory = "64MiB"
object_max = "1MiB"
variants_max = 8
files_max = 10
fills_max = 100
redis = "fast"
shared = { budget = "3ms", shield_budget = "30ms", life_max = "2h", object_max = "64KiB", prefix = "shop" }
purge_blind_max = "5m"
refills_max = 4

[redis.fast]
url = "rediss://cache.example:6380/2"
user = "edge"
password = "${DB_PASSWORD}"
connect = "300ms"
probe = "30ms"
in_flight_max = 64

[cluster.api]
nodes = ["${API_HOST:-127.0.0.1}:3000", { address = "api-2.internal:3000", weight = 2, host = "api.example" }]
balance = "round_robin"
health = { path = "/health", every = "2s", timeout = "1s", fail_after = 4, pass_after = 1 }
retries = { per_request = 2, budget = "10%" }
timeout = { connect = "500ms", response = "1m30s", idle = "2m" }

[[route]]
name = "product"
path = "/api/products/{id}"
host = "*.Shop.example"
methods = ["GET", "HEAD"]
headers = { X-Client = "ios" }
to = "api"
own_writes = true
cache = { ttl = "30s", stale_while_revalidate = "10m", stale_if_error = "1d", key = ["header:Accept-Language", "cookie:currency"], shared = true, negative_ttl = "5s", heuristic = true, store_set_cookie = true, ignore_client_revalidation = true, show_key = true, shield = true, tags = ["product:{id}"], query = { sort = true, keep = ["id"], drop = ["utm_*"] }, early_refresh = false, compress = { encodings = ["zstd", "gzip"], size_min = "2KiB", set_cookie = true } }

[[route]]
path = "/{*rest}"
to = "api"
cache = "off"

[pooler]
listen = ["127.0.0.1:6432", "unix:/run/tenfold:5432"]
tls = { certificate = "server.crt", key = "server.key", ca = "clients.crt", mode = "verify-full", ciphers = ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"], tls13_ciphers = ["TLS_AES_128_GCM_SHA256"], version_min = "1.2" }
auth = "md5"
hba = "pg_hba.conf"
users = { file = "userlist.txt", query = "SELECT usename, passwd FROM pg_shadow WHERE usename = $1", user = "asker", password = "${DB_PASSWORD}", database = "shop" }
admin_users = ["admin"]
stats_users = ["metrics"]
clients_max = 5000
logins_max = 100
login_timeout = "10s"
cancel_wait = "4s"
query_wait_notify = "0s"
ignore_startup_parameters = ["extra_float_digits"]
application_name_add_host = true
log_connections = true
statements_max = 50
dns_refresh = "30s"
tcp = { keepalive = false, keepalive_idle = "60s", keepalive_interval = "5s", keepalive_count = 3, user_timeout = "20s" }
pool = { mode = "statement", size = 9, reserve = 1, reserve_wait = "1s", min = 2, database_max = 30, clients_max = 400, query_wait = "7s", idle = "2m", lifetime = "3h", fast_close = true, query_timeout = "1m", idle_in_transaction = "2m", transaction_timeout = "3m", client_idle = "4m", connect_timeout = "3s", connect_retry = "1s", check_after = "10s", hot_rows = "25%", sequences = "pin" }

[pooler.user.reporting]
password_file = "/run/secrets/reporting"
mode = "session"
size = 2
reserve = 0
clients_max = 20
servers_max = 4
priority = "background"
query_timeout = "10m"
idle_in_transaction = "1m"
transaction_timeout = "20m"
client_idle = "1h"

[database.shop]
primary = ["postgres://app@10.0.0.1:5432/shop", "postgres://app@10.0.0.2/shop"]
password = "${DB_PASSWORD}"
sslmode = "verify-full"
tls = { ca = "system", certificate = "client.crt", key = "client.key", ciphers = ["ECDHE-ECDSA-CHACHA20-POLY1305"], tls13_ciphers = ["TLS_CHACHA20_POLY1305_SHA256"], version_min = "1.3" }
users = { file = "shop.txt", query = "SELECT * FROM lookup($1)", password_file = "/run/secrets/shop" }
connect_query = "SELECT 1"
pool = { mode = "transaction", size = 20 }
replicas = ["10.0.0.3:5433", "postgres://app@10.0.0.4/shop", { host = "replica", weight = 3 }]
reads = { consistency = "eventual", catch_up = "0s", lag_max = "2s", size = 7, primary_tables = ["accounts"] }

[database.shop.user.app]
size = 12
priority = "critical"

[database."*"]
primary = "/run/postgresql"
pool.min = 0
"#;

fn variables(name: &str) -> Option<String> {
    match name {
        "ADMIN_TOKEN" | "TENFOLD_ADMIN_TOKEN" | "TENFOLD_POSITION_KEY" => {
            Some("correct-horse-battery".to_owned())
        }
        "SHORT" => Some("hunter2".to_owned()),
        "DB_PASSWORD" => Some("battery-staple".to_owned()),
        _ => None,
    }
}

fn read(source: &str) -> Result<Loaded, Report> {
    parse("tenfold.toml", source, &variables)
}

fn good(source: &str) -> Loaded {
    read(source).unwrap_or_else(|report| panic!("{}", report.render(false)))
}

#[track_caller]
fn refused(source: &str, expected: &str) {
    let report = read(source).expect_err("a mistake was planted");
    assert_eq!(report.render(false).trim_end(), expected.trim(), "{}", report.render(false));
}

/// A route and a cluster that are fine, before what a test is about.
const BASE: &str =
    "cluster.api.nodes = [\"127.0.0.1:3000\"]\nroute = [{ path = \"/{*rest}\", to = \"api\" }]\n";

#[track_caller]
fn refused_after_base(rest: &str, expected: &str) {
    refused(&format!("{BASE}{rest}"), expected);
}

#[test]
fn every_key_is_read_and_none_ignored() {
    let loaded = good(EVERYTHING);
    let mut unread = Vec::new();
    loaded.tree.unread("", &mut unread);
    assert!(unread.is_empty(), "accepted and ignored: {unread:?}");
    let mut missing = Vec::new();
    not_in(EVERYTHING, ROOT, &mut missing);
    assert!(missing.is_empty(), "not in the test's file: {missing:?}");
}

/// Names of keys that a file doesn't hold.
fn not_in(file: &str, keys: &'static [Key], missing: &mut Vec<&'static str>) {
    for key in keys.iter().filter(|key| !matches!(key.kind, Kind::Later)) {
        if !file.contains(key.name) {
            missing.push(key.name);
        }
        not_in(file, explain::children(&key.kind), missing);
    }
}

#[test]
fn own_writes_wait_for_the_slowest_database_unless_told_otherwise() {
    use std::time::Duration;
    let seconds = |source: &str| good(source).settings.edge.own_writes.lag_max.as_secs();
    assert_eq!(seconds(EVERYTHING), 5);
    let own = &good(EVERYTHING).settings.edge.own_writes;
    assert!(own.key.is_some() && own.ttl == Duration::from_secs(7200));
    assert_eq!(seconds(BASE), 10);
    let database = |name: &str, lag_max: &str| {
        let reads = format!("replicas = \"10.0.0.2:5432\"\nreads.lag_max = \"{lag_max}\"\n");
        format!(
            "[database.{name}]\nprimary = \"postgres://app@10.0.0.1:5432/{name}\"\npassword = \"x\"\n{reads}"
        )
    };
    assert_eq!(seconds(&format!("{BASE}{}{}", database("a", "30s"), database("b", "1m"))), 60);
}

#[test]
fn a_file_with_everything_is_built_as_written() {
    use std::time::Duration;
    use tenfold_cache::{KeyPart, Rule};

    let settings = good(EVERYTHING).settings;
    assert_eq!(settings.workers, Some(2));
    assert_eq!(settings.admin.token.as_ref().map(|token| token.0.as_str()), Some("correct-horse-battery"));
    assert!(!format!("{settings:?}").contains("correct-horse"));
    let edge = &settings.edge;
    assert_eq!(edge.access_log.sample_ppm, 125_000);
    assert_eq!(edge.listen.len(), 2);
    assert_eq!(edge.trusted_proxies[1].to_string(), "192.168.1.1/32");
    assert_eq!(edge.limits.connections_per_ip_max, Some(10));
    assert_eq!(edge.limits.head_bytes_max, 16 << 10);
    let cluster = &edge.clusters[0];
    assert_eq!(cluster.nodes[0].address, "127.0.0.1:3000");
    assert_eq!((cluster.nodes[1].weight, cluster.nodes[1].host.as_deref()), (2, Some("api.example")));
    assert_eq!(cluster.timeouts.response, Duration::from_secs(90));
    assert_eq!(cluster.retry.budget.percent, 10);
    let route = &edge.routes[0];
    assert_eq!(route.host.as_deref(), Some("*.shop.example"));
    assert_eq!(route.headers, [("x-client".to_owned(), "ios".to_owned())]);
    let Rule::Override(rule) = &route.cache else { panic!("an override was written") };
    assert_eq!(rule.ttl, Some(Duration::from_secs(30)));
    assert_eq!(rule.negative_ttl, Some(Duration::from_secs(5)));
    let compress = rule.compress.as_ref().expect("asked for");
    assert_eq!(*compress.codings, [tenfold_cache::Coding::Zstd, tenfold_cache::Coding::Gzip]);
    assert!(compress.size_min == 2048 && compress.set_cookie && rule.early_refresh_off);
    assert!(rule.heuristic && rule.set_cookie && rule.ignore_client_revalidation && rule.show_key);
    assert_eq!((rule.tags.len(), rule.query.as_ref().map(|query| query.sort)), (1, Some(true)));
    assert_eq!(rule.key, [KeyPart::Header("accept-language".into()), KeyPart::Cookie("currency".into())]);
    assert!(matches!(edge.routes[1].cache, Rule::Off));
    assert_eq!(edge.routes[1].name, "/{*rest}");
}

#[test]
fn a_route_and_a_cluster_are_a_whole_file() {
    let loaded = good(BASE);
    assert_eq!(loaded.settings.edge.listen, ["127.0.0.1:8080".parse().expect("an address")]);
    assert_eq!(loaded.settings.admin.listen.to_string(), "127.0.0.1:9900");
    assert_eq!(loaded.settings.drain_deadline.as_secs(), 30);
    assert_eq!(loaded.settings.edge.clusters[0].health, None);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn the_defaults_are_those_of_the_tiers() {
    let edge = good(BASE).settings.edge;
    assert_eq!(format!("{:?}", edge.limits), format!("{:?}", tenfold_edge::config::Limits::default()));
    assert_eq!(edge.clusters[0].timeouts, tenfold_edge::config::Timeouts::default());
    assert_eq!(edge.cache, tenfold_cache::Config::default());
    assert_eq!(edge.access_log.sample_ppm, tenfold_edge::config::AccessLogConfig::default().sample_ppm);
    let sharing = format!("{BASE}\n[cache]\nredis = \"r\"\n[redis.r]\nurl = \"redis://127.0.0.1:6379\"\n");
    let shared = good(&sharing).settings.shared.expect("it shares");
    assert_eq!(shared.tier, tenfold_cache::tier::Settings::default());
    let (set, default) = (shared.redis, tenfold_state::Config::default());
    assert_eq!(
        (set.connect, set.probe, set.in_flight_max),
        (default.connect, default.probe, default.in_flight_max)
    );
}

#[test]
fn every_default_and_example_is_accepted_by_its_own_key() {
    fn check(keys: &'static [Key], path: &str) {
        for key in keys.iter().filter(|key| !matches!(key.kind, Kind::Later)) {
            for text in key.default.into_iter().chain([key.example]) {
                let source = format!("{} = {text}", key.name);
                let parsed =
                    DeTable::parse(&source).unwrap_or_else(|error| panic!("{path}{source}: {error}"));
                let mut walk = walk::Walk::new(&variables);
                walk.table(keys, "", parsed.get_ref(), &(0..0));
                let about_it = |d: &&Diagnostic| !d.message.starts_with("missing key");
                let wrong = walk.diagnostics.iter().find(about_it);
                assert_eq!(wrong, None, "{path}{source}");
            }
            assert!(key.doc.ends_with('.'), "{path}{} has no sentence", key.name);
            check(explain::children(&key.kind), &format!("{path}{}.", key.name));
        }
    }
    check(ROOT, "");
}

#[test]
fn a_broken_file_still_says_where_its_admin_server_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenfold.toml");
    let check = |source: &str, listen: &str, token: Option<&str>| {
        std::fs::write(&path, source).expect("a file");
        assert_eq!(admin_of(&path), (listen.parse().expect("an address"), token.map(str::to_owned)));
    };
    check("", "127.0.0.1:9900", None);
    check(
        "[admin]\nlisten = \"127.0.0.1:7\"\ntoken = \"0123456789abcdef\"\n[oops\nx",
        "127.0.0.1:7",
        Some("0123456789abcdef"),
    );
    check("[admin]\nlisten = 7", "127.0.0.1:9900", None);
    assert_eq!(admin_of(&folder.path().join("none")).0, good(BASE).settings.admin.listen);
}

/// The guide's reference as the table of keys has it.
fn reference(keys: &'static [Key], path: &str, out: &mut String) {
    use std::fmt::Write as _;
    for key in keys.iter().filter(|key| !matches!(key.kind, Kind::Later)) {
        let full = format!("{path}{}", key.name);
        let children = explain::children(&key.kind);
        let below = match key.kind {
            Kind::Named(_) => format!("{full}.NAME."),
            _ => format!("{full}."),
        };
        let default = match key.default {
            Some("{}") => String::new(),
            Some(default) => format!(" Default `{default}`."),
            None if key.required => " Required.".to_owned(),
            None => String::new(),
        };
        let example = if children.is_empty() {
            format!(" Example: `{} = {}`.", key.name, key.example)
        } else {
            String::new()
        };
        let _ = writeln!(out, "- `{full}`: {}{default}{example}", key.doc);
        reference(children, &below, out);
    }
}

#[test]
fn the_guide_has_every_key_as_the_table_does() {
    const GUIDE: &str = include_str!("../../../../docs/guide/configuration.md");
    let mut expected = String::new();
    reference(ROOT, "", &mut expected);
    let (_, written) = GUIDE.split_once("## Keys\n\n").expect("the guide ends with its keys");
    assert_eq!(written, expected, "put this at the end of docs/guide/configuration.md:\n{expected}");
}

#[test]
fn the_masked_file_holds_no_secret() {
    let shown = good(EVERYTHING).tree.to_json().to_string();
    assert!(!shown.contains("correct-horse") && !shown.contains("battery-staple"), "{shown}");
    assert!(shown.contains("\"token\":\"***\""), "{shown}");
    assert!(shown.contains("\"response\":\"1m30s\""), "{shown}");
}

#[test]
fn ten_mistakes_are_all_named_at_once() {
    let report = read(include_str!("../../tests/it/ten_mistakes.toml")).expect_err("ten were planted");
    let expected = include_str!("../../tests/it/ten_mistakes.txt");
    assert_eq!(report.render(false), expected, "\n{}", report.render(false));
    assert_eq!(report.errors(), 10);
}

#[test]
fn what_was_probably_meant_is_offered() {
    refused_after_base(
        "[log]\nformt = \"json\"",
        r#"
error: unknown key "formt" in [log]
 --> tenfold.toml:4:1
  |
4 | formt = "json"
  | ^^^^^ did you mean "format"?
"#,
    );
    refused_after_base(
        "[drain]\ndeadline = 30",
        r#"
error: deadline needs a unit
 --> tenfold.toml:4:12
  |
4 | deadline = 30
  |            ^^ did you mean "30s"?
"#,
    );
    refused(
        "[cluster.api]\nnodes = [\"http://127.0.0.1:3000/\"]\n[[route]]\npath = \"/\"\nto = \"app\"",
        r#"
error: bad nodes "http://127.0.0.1:3000/"
 --> tenfold.toml:2:10
  |
2 | nodes = ["http://127.0.0.1:3000/"]
  |          ^^^^^^^^^^^^^^^^^^^^^^^^ expected host:port; write "127.0.0.1:3000"

error: there is no cluster "app"
 --> tenfold.toml:5:6
  |
5 | to = "app"
  |      ^^^^^ did you mean "api"?
"#,
    );
}

#[test]
fn a_cipher_suite_that_there_is_not_is_shown_with_those_there_are() {
    let source =
        "[database.d]\nprimary = \"postgres://u@h\"\ntls.tls13_ciphers = [\"TLS_AES_256_GCM_SHA348\"]";
    refused(
        source,
        r#"
error: unknown tls13_ciphers "TLS_AES_256_GCM_SHA348"
 --> tenfold.toml:3:22
  |
3 | tls.tls13_ciphers = ["TLS_AES_256_GCM_SHA348"]
  |                      ^^^^^^^^^^^^^^^^^^^^^^^^ did you mean "TLS_AES_256_GCM_SHA384"? there are "TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256" or "TLS_CHACHA20_POLY1305_SHA256"
"#,
    );
}

#[test]
fn a_key_in_the_wrong_table_is_sent_home() {
    let check = |rest: &str, label: &str| {
        let report = read(&format!("{BASE}{rest}")).expect_err("misplaced");
        assert_eq!(report.diagnostics[0].label, label, "{rest}");
    };
    check("[log]\nworkers = 2", "it belongs in the file's top level");
    check("[admin]\nbody_max = \"1MiB\"", "it belongs in [edge]");
    check("[edge]\nstale_if_error = \"1d\"", "it belongs in [route.cache]");
    check("[edge]\nbalance = \"round_robin\"", "it belongs in [cluster.NAME]");
}

#[test]
fn a_tag_names_parts_of_its_own_route() {
    let cluster = "cluster.api.nodes = [\"127.0.0.1:3000\"]\n";
    let route = "[[route]]\npath = \"/p/{id}\"\nto = \"api\"\ncache = { tags = [\"p:{other}\"] }";
    let report = read(&format!("{cluster}{route}")).expect_err("no such part");
    assert!(report.render(false).contains("{other} is no part of the path"), "{}", report.render(false));
}

#[test]
fn a_cache_table_without_a_ttl_goes_by_the_responses_own_headers() {
    use tenfold_cache::{Override, Rule};
    let cluster = "cluster.api.nodes = [\"127.0.0.1:3000\"]\n";
    let loaded =
        good(&format!("{cluster}route = [{{ path = \"/\", to = \"api\", cache = {{ heuristic = true }} }}]"));
    let expected = Rule::Override(Override { heuristic: true, ..Override::default() });
    assert_eq!(loaded.settings.edge.routes[0].cache, expected);
}

#[test]
fn keys_of_later_releases_are_refused_by_name() {
    refused_after_base(
        "[waiting_room.sale]\nadmit = \"200/s\"",
        r#"
error: "waiting_room" is not in this release yet
 --> tenfold.toml:3:2
  |
3 | [waiting_room.sale]
  |  ^^^^^^^^^^^^ remove it: a queue before the shop will come with a later release
"#,
    );
    for later in [
        "[[route]]\npath = \"/b\"\nto = \"api\"\npriority = \"normal\"",
        "edge.tls = {}",
        "pooler.auth = \"ldap\"",
        "auth.x = {}",
        "rate.x = {}",
        "secrets.signing = []",
    ] {
        let report =
            read(&format!("{}{later}", "cluster.api.nodes = [\"127.0.0.1:3000\"]\n")).expect_err(later);
        assert!(
            report.render(false).contains("is not in this release yet"),
            "{later}: {}",
            report.render(false)
        );
    }
}

#[test]
fn a_redis_that_is_shared_is_one_that_there_is() {
    refused_after_base(
        "[cache]\nredis = \"cahce\"\n[redis.cache]\nurl = \"redis://h\"",
        r#"
error: there is no redis "cahce"
 --> tenfold.toml:4:9
  |
4 | redis = "cahce"
  |         ^^^^^^^ did you mean "cache"?
"#,
    );
    let report =
        read(&format!("{BASE}[redis.cache]\nurl = \"redos://:hunter2@h\"")).expect_err("a wrong scheme");
    let text = report.render(false);
    assert!(text.contains("it begins with redis://"), "{text}");
    let alone = good(&format!("{BASE}[redis.cache]\nurl = \"redis://h\""));
    assert!(alone.settings.shared.is_none());
    let warned = alone.report(alone.warnings.clone()).render(false);
    assert!(warned.contains("nothing uses redis \"cache\""), "{warned}");
}

#[test]
fn syntax_errors_stand_beside_the_others_and_make_no_echo() {
    refused(
        "workers = \n[cluster.api]\nnodes = [\"127.0.0.1:3000\"]\nbalanc = \"round_robin\"\n[[route]]\npath = \"/\"\nto = api\n",
        r#"
error: string values must be quoted
 --> tenfold.toml:1:11
  |
1 | workers =
  |           ^ expected a value

error: unknown key "balanc" in [cluster.api]
 --> tenfold.toml:4:1
  |
4 | balanc = "round_robin"
  | ^^^^^^ did you mean "balance"?

error: string values must be quoted
 --> tenfold.toml:7:6
  |
7 | to = api
  |      ^^^ did you mean "api"?
"#,
    );
}

#[test]
fn what_a_variable_holds_is_never_shown() {
    let source = format!(
        "{BASE}[admin]\ntoken = \"${{SHORT}}\"\nlisten = \"${{SHORT}}\"\n[edge]\nlisten = \"${{NOT_SET}}\"\n"
    );
    let shown = read(&source).expect_err("mistakes were planted").render(false);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("environment variable NOT_SET is not set"), "{shown}");
    assert!(shown.contains("bad listen \"${SHORT}\""), "{shown}");
    assert!(shown.contains("bad token"), "{shown}");
}

#[test]
fn what_a_variable_holds_is_named_by_the_variable() {
    let route = "[[route]]\nname = \"b\"\npath = \"/b\"\nto = \"api\"\nheaders = { x-edge-secret = \"${SHORT}\", v = \"1\" }";
    let nodes = "cluster.api.nodes = [\"127.0.0.1:3000\"]\n";
    let shown = good(&format!("{nodes}{route}")).tree.to_json();
    assert_eq!(shown["route"][0]["headers"], serde_json::json!({ "x-edge-secret": "${SHORT}", "v": "1" }));
    let mistakes = format!(
        "cluster.api.nodes = [\"${{SHORT}}:1\", \"${{SHORT}}:1\"]\n{route}\n[[route]]\nname = \"${{SHORT}}\"\npath = \"/c${{SHORT}}{{x}}\"\nto = \"${{SHORT}}\"\n\
         [[route]]\nname = \"${{SHORT}}\"\npath = \"/d\"\nto = \"api\"\n"
    );
    let report = read(&mistakes).expect_err("mistakes were planted");
    let text = report.render(false);
    assert_eq!(report.errors(), 4, "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("there is no cluster \"${SHORT}\""), "{text}");
}

#[test]
fn every_word_that_can_be_chosen_is_built_from() {
    fn words(keys: &'static [Key], name: &str) -> &'static [&'static str] {
        let of = |kind: &'static Kind| match kind {
            Kind::Choice { known, .. } => *known,
            _ => &[],
        };
        let key = keys.iter().find(|key| key.name == name).expect("a key");
        match &key.kind {
            Kind::OneOf(kinds) => kinds.iter().map(of).find(|words| !words.is_empty()).expect("words"),
            kind => of(kind),
        }
    }
    let children = |name: &str| {
        let key = ROOT.iter().find(|key| key.name == name).expect("a table");
        explain::children(&key.kind)
    };
    let below = |keys: &'static [Key], name: &str| {
        explain::children(&keys.iter().find(|key| key.name == name).expect("a table").kind)
    };
    let base = "[cluster.api]\nnodes = [\"a:1\"]\n[[route]]\npath = \"/\"\nto = \"api\"\n";
    let built = |rest: &str| format!("{:?}", good(&format!("{base}{rest}")).settings);
    let lines = [
        (words(children("log"), "format"), "[log]\nformat = \"WORD\""),
        (words(children("cluster"), "balance"), "[cluster.b]\nnodes = [\"b:1\"]\nbalance = \"WORD\""),
        (
            words(children("pooler"), "auth"),
            "[pooler]\nauth = \"WORD\"\ntls = { certificate = \"c\", key = \"k\", ca = \"a\", mode = \"verify-ca\" }\n[database.d]\nprimary = \"postgres://u@h\"",
        ),
        (
            words(children("database"), "sslmode"),
            "[database.d]\nprimary = \"postgres://u@h\"\ntls.ca = \"system\"\nsslmode = \"WORD\"",
        ),
        (
            words(below(children("pooler"), "tls"), "mode"),
            "[database.d]\nprimary = \"postgres://u@h\"\n[pooler]\ntls = { certificate = \"c\", key = \"k\", ca = \"a\", mode = \"WORD\" }",
        ),
        (
            words(below(children("database"), "pool"), "mode"),
            "[database.d]\nprimary = \"postgres://u@h\"\npool.mode = \"WORD\"",
        ),
        (
            words(below(children("database"), "pool"), "sequences"),
            "[database.d]\nprimary = \"postgres://u@h\"\npool.sequences = \"WORD\"",
        ),
        (
            words(below(children("database"), "user"), "priority"),
            "[database.d]\nprimary = \"postgres://u@h\"\nuser.u.priority = \"WORD\"",
        ),
        (words(children("route"), "cache"), "[[route]]\npath = \"/b\"\nto = \"api\"\ncache = \"WORD\""),
    ];
    for (words, line) in lines {
        let mut outcomes: Vec<_> = words.iter().map(|word| built(&line.replace("WORD", word))).collect();
        outcomes.dedup();
        assert!(outcomes.len() == words.len() && words.len() > 1, "{line}: {words:?}");
    }
}

#[test]
fn the_whole_is_checked_too() {
    let check = |source: &str, message: &str| {
        let report = read(source).expect_err(message);
        assert!(
            report.diagnostics.iter().any(|d| d.severity == Severity::Error && d.message == message),
            "{}",
            report.render(false)
        );
    };
    let after_base = |rest: &str| format!("{BASE}{rest}");
    check("", "there is neither a [[route]] nor a [database.NAME], so there is nothing to start");
    check(
        &after_base("admin.listen = \"0.0.0.0:9900\""),
        "admin.listen = \"0.0.0.0:9900\" is off loopback and has no token",
    );
    check(&after_base("edge.listen = \"127.0.0.1:9900\""), "127.0.0.1:9900 is used twice");
    check(
        &after_base("cache = { memory = \"1MiB\", object_max = \"2MiB\" }"),
        "cache.object_max = 2MiB cannot be kept in cache.memory = 1MiB",
    );
    let (by_default, hint) =
        (after_base("cache.memory = \"1MiB\""), "set cache.object_max to at most 785KiB");
    let shown = read(&by_default).expect_err("it does not fit").render(false);
    assert!(shown.contains(hint) && shown.contains("memory = \"1MiB\""), "{shown}");
    check(&after_base("admin.listen = \"127.0.0.1:8080\""), "127.0.0.1:8080 is used twice");
    check(&after_base("edge.listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]"), "127.0.0.1:0 is used twice");
    check(
        &after_base("cluster.b = { nodes = [\"a:1\"], retries = { budget = \"2.5%\" } }"),
        "budget is not a whole percentage",
    );
    check(&after_base("[cluster.empty]\nnodes = []"), "cluster \"empty\" has no nodes");
    let two = |a: &str, b: &str| {
        format!(
            "[cluster.api]\nnodes = [\"a:1\", \"a:1\"]\n[[route]]\nto = \"api\"\n{a}\n[[route]]\nto = \"api\"\n{b}\n"
        )
    };
    check(&two("path = \"/\"", "path = \"/b\""), "node \"a:1\" is in cluster \"api\" twice");
    check(&two("name = \"x\"\npath = \"/\"", "name = \"x\"\npath = \"/b\""), "two routes are named \"x\"");
    // As the router ties them: by what requests can tell apart.
    check(
        &two("path = \"/a\"\nheaders = { x = \"1\" }", "path = \"/a\"\nheaders = { y = \"1\" }"),
        "route[1] and route[0] ask for the same requests",
    );
    check(&two("path = \"/b\"", "path = \"/a/../b\""), "bad path \"/a/../b\"");
    check(
        &two("path = \"/a/{id}\"", "path = \"/a/{sku}\""),
        "route[1] and route[0] ask for the same requests",
    );
}

#[test]
fn a_default_that_collides_is_not_what_is_blamed() {
    let report = read(&format!("{BASE}admin.listen = \"127.0.0.1:8080\"")).expect_err("a collision");
    assert!(
        report.render(false).contains("3 | admin.listen = \"127.0.0.1:8080\""),
        "{}",
        report.render(false)
    );
}

#[test]
fn a_check_that_outlasts_its_interval_is_worth_a_warning() {
    let health = "cluster.api.health = { path = \"/\", every = \"500ms\" }\n";
    let warnings = good(&format!("{health}{BASE}")).warnings;
    assert_eq!(warnings[0].message, "health.timeout is not below health.every");
}

#[test]
fn a_lifetime_that_a_key_of_one_cookie_keeps_from_applying_is_worth_a_warning() {
    let warned = |cache: &str| {
        let route = format!("{{ path = \"/{{*rest}}\", to = \"api\", cache = {{ {cache} }} }}");
        let warnings =
            good(&format!("cluster.api.nodes = [\"127.0.0.1:3000\"]\nroute = [{route}]\n")).warnings;
        warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>()
    };
    let never =
        |key: &str| vec![format!("{key} never applies to a request that has the cookie of \"cookie:c\"")];
    assert_eq!(warned("ttl = \"1m\", key = [\"cookie:c\"]"), never("ttl"));
    assert_eq!(warned("negative_ttl = \"1m\", key = [\"header:a\", \"cookie:c\"]"), never("negative_ttl"));
    for fine in [
        "ttl = \"1m\", key = [\"cookie:c\"], shared = true",
        "ttl = \"1m\", key = [\"cookie:c\", \"header:Cookie\"]",
        "ttl = \"1m\", key = [\"header:a\"]",
        "key = [\"cookie:c\"]",
    ] {
        assert_eq!(warned(fine), [""; 0], "{fine}");
    }
}

#[test]
fn routes_that_differ_do_not_tie() {
    let two = |a: &str, b: &str| {
        format!(
            "{}[[route]]\nto = \"api\"\n{a}\n[[route]]\nto = \"api\"\n{b}\n",
            "cluster.api.nodes = [\"127.0.0.1:3000\"]\n"
        )
    };
    for (a, b) in [
        ("path = \"/a\"", "path = \"/{b}\""),
        ("path = \"/a\"\nmethods = [\"GET\"]", "path = \"/a\"\nmethods = [\"POST\"]"),
        ("path = \"/a\"\nmethods = [\"GET\"]", "path = \"/a\""),
        ("path = \"/a\"\nhost = \"x\"", "path = \"/a\""),
        ("path = \"/a\"\nheaders = { v = \"1\" }", "path = \"/a\"\nheaders = { v = \"2\" }"),
    ] {
        let routes = good(&two(a, b)).settings.edge.routes;
        assert_ne!(routes[0].name, routes[1].name);
    }
}

#[test]
fn any_bytes_get_an_answer() {
    for source in [
        "\0",
        "[",
        "[[",
        "[[route",
        "route = 1",
        "route = [1]",
        "cluster = 1",
        "cluster.api = 1",
        "a.b.c.d = 1",
        "\u{feff}workers = 1",
        "workers = 99999999999999999999999",
        "workers = -1",
        "workers = 1.5",
        "workers = 1979-05-27",
        &"[".repeat(100_000),
        &"a.".repeat(50_000),
        "route = [{}]",
        "[cluster.\"\"]\nnodes = []",
    ] {
        assert!(read(source).is_err_and(|report| !report.render(true).is_empty()));
    }
}
