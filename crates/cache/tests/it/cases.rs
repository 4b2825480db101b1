//! The table of `cases.txt`: what is stored and what it is good for, each case with its source.

use std::time::{Duration, UNIX_EPOCH};

use tenfold_cache::policy::freshness::{Decision, decide};
use tenfold_cache::policy::vary::Vary;
use tenfold_cache::policy::{RequestFacts, ResponseFacts, storable};
use tenfold_cache::{Field, Override, Rule, Timestamp};

const CASES: &str = include_str!("cases.txt");
/// As many as were written; a table that lost its lines would pass.
const CASES_MIN: usize = 300;
/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW_S: u64 = 784_111_777;

fn rule(name: &str) -> Rule {
    let options = match name {
        "respect" => return Rule::Respect,
        "heuristic" => Override { heuristic: true, ..Override::default() },
        "set-cookie" => Override { set_cookie: true, ..Override::default() },
        "ttl" => Override {
            ttl: Some(Duration::from_secs(30)),
            negative_ttl: Some(Duration::from_secs(5)),
            ..Override::default()
        },
        "deaf" => Override { ignore_client_revalidation: true, ..Override::default() },
        other => panic!("no rule is called {other}"),
    };
    Rule::Override(options)
}

/// `Name: value | Name: value`, with `@-60` for a date.
fn fields(text: &str) -> Vec<(String, String)> {
    let read = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line}"));
        let value = value.trim();
        let dated = value.strip_prefix('@').map(|offset| {
            let offset: i64 = offset.parse().unwrap_or_else(|_| panic!("no offset: {value}"));
            let seconds = NOW_S.checked_add_signed(offset).expect("far from the epoch");
            httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
        });
        (name.to_owned(), dated.unwrap_or_else(|| value.to_owned()))
    };
    text.split(" | ").filter(|text| *text != "-").map(read).collect()
}

fn view(fields: &[(String, String)]) -> Vec<Field<'_>> {
    fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
}

fn outcome(case: &[&str]) -> &'static str {
    let [_, rule_name, stored_for, status, response, later_s, asked, _] = *case else {
        panic!("not eight columns: {case:?}")
    };
    let rule = rule(rule_name);
    let (stored_for, response, asked) = (fields(stored_for), fields(response), fields(asked));
    let (stored_for, response, asked) = (view(&stored_for), view(&response), view(&asked));
    let now = Timestamp::from_seconds(NOW_S);
    let facts = ResponseFacts::read(status.parse().expect("a status"), &response, now, now);
    let stored = storable(&RequestFacts::read("GET", &stored_for).under(&rule), &rule, &facts);
    let (Ok(stored), Ok(vary)) = (stored, Vary::select(&response, &stored_for)) else { return "unstored" };
    let request = RequestFacts::read("GET", &asked).under(&rule);
    if request.bypass().is_some() {
        return "bypass";
    }
    if vary.is_some_and(|vary| !vary.matches(&asked)) {
        return "other";
    }
    let later = Timestamp::from_seconds(NOW_S + later_s.parse::<u64>().expect("seconds"));
    match decide(&request, &rule, &stored, false, later) {
        Decision::Fresh(_) => "fresh",
        Decision::Stale { refresh: true, .. } => "refresh",
        Decision::Stale { refresh: false, .. } => "stale",
        Decision::Revalidate { requested: true, .. } => "requested",
        Decision::Revalidate { serve_if_error: true, .. } => "or-stale",
        Decision::Revalidate { .. } => "validate",
        Decision::Guarded => "guarded",
    }
}

#[test]
fn every_case_of_the_table_comes_out_as_the_standards_say() {
    let lines = || CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut wrong = Vec::new();
    for line in lines() {
        let case: Vec<&str> = line.split(" ; ").collect();
        let (found, expected) = (outcome(&case), *case.last().expect("a last column"));
        if found != expected {
            wrong.push(format!("{line}\n    came out as {found}"));
        }
        assert!(case[0].contains('§'), "no source: {line}");
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(lines().count() >= CASES_MIN);
}
