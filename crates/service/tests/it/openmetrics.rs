//! The exposition, read back by a parser that takes nothing else than OpenMetrics.

use std::{
    collections::{BTreeMap, HashSet},
    thread,
    time::Duration,
};

use tenfold_service::{
    clock::Clock,
    metrics::{
        FamilySnapshot, Kind, LATENCY_BOUNDS_S, Registry, SERIES_PER_FAMILY_MAX, SeriesSnapshot, Value,
        process,
    },
};

use super::metric;

type Labels = Vec<(String, String)>;

/// A sample's name, its labels in order, and its value as it is written.
type Sample = (String, Labels, String);

#[derive(Debug, PartialEq)]
struct Family {
    name: String,
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

/// Parses a whole exposition; says what is wrong with the first line that is.
fn parse(text: &str) -> Result<Vec<Family>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("does not end in EOF")?;
    let mut families: Vec<Family> = Vec::new();
    let mut names = HashSet::new();
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        let declared = line.strip_prefix("# TYPE ").ok_or_else(|| format!("not a TYPE: {line}"))?;
        let (name, kind) = declared.split_once(' ').ok_or("TYPE without a kind")?;
        if !is_name(name) || !names.insert(name.to_owned()) {
            return Err(format!("bad or repeated family {name}"));
        }
        if let Some(unit) = lines.peek().and_then(|line| line.strip_prefix(&format!("# UNIT {name} "))) {
            if !name.ends_with(&format!("_{unit}")) {
                return Err(format!("{name} does not end in its unit {unit}"));
            }
            lines.next();
        }
        let help = lines.next().and_then(|line| line.strip_prefix(&format!("# HELP {name} ")));
        let help = unescape(help.ok_or("no HELP")?)?;
        let mut family = Family { name: name.into(), kind: kind.into(), help, samples: Vec::new() };
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            family.samples.push(parse_sample(line)?);
        }
        check_family(&family)?;
        families.push(family);
    }
    Ok(families)
}

fn parse_sample(line: &str) -> Result<Sample, String> {
    let name_end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("label without a value")?;
            let end = closing_quote(after).ok_or("label's value does not end")?;
            labels.push((label.to_owned(), unescape(&after[..end])?));
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or_else(|| format!("labels do not end: {line}"))?;
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let is_number = value.parse::<f64>().is_ok() && !value.ends_with(char::is_whitespace);
    let distinct: HashSet<_> = labels.iter().map(|(label, _)| label).collect();
    if !is_name(name) || !is_number || distinct.len() != labels.len() {
        return Err(format!("bad sample: {line}"));
    }
    Ok((name.to_owned(), labels, value.to_owned()))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(index, character)| {
        let closes = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        closes.then_some(index)
    })
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            ('"', _) => return Err(format!("bare quote in {text}")),
            (plain, false) => out.push(plain),
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some(escaped @ ('\\' | '"')) => out.push(escaped),
                other => return Err(format!("bad escape {other:?}")),
            },
        }
    }
    Ok(out)
}

fn check_family(family: &Family) -> Result<(), String> {
    let allowed: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_count", "_sum"],
        other => return Err(format!("unknown kind {other}")),
    };
    let mut seen = HashSet::new();
    for (name, labels, value) in &family.samples {
        let suffix = name.strip_prefix(&family.name).ok_or_else(|| format!("{name} in {}", family.name))?;
        if !allowed.contains(&suffix) || !seen.insert((name, labels)) {
            return Err(format!("{name} does not belong, or is there twice"));
        }
        if suffix == "_total" && value.parse::<f64>().unwrap() < 0.0 {
            return Err(format!("{name} is negative"));
        }
    }
    if family.kind == "histogram" { check_histogram(family) } else { Ok(()) }
}

fn check_histogram(family: &Family) -> Result<(), String> {
    let mut by_labels: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (name, labels, value) in &family.samples {
        let value: f64 = value.parse().unwrap();
        let (bounds, others): (Vec<_>, Vec<_>) = labels.iter().cloned().partition(|(label, _)| label == "le");
        if name.ends_with("_bucket") {
            let bound =
                bounds.first().ok_or("bucket without le")?.1.parse().map_err(|_| "le is no number")?;
            by_labels.entry(others).or_default().push((bound, value));
        } else if name.ends_with("_count") {
            counts.insert(others, value);
        }
    }
    for (labels, buckets) in by_labels {
        let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let last = buckets.last().copied().ok_or("no bucket")?;
        if !rises || last.0 != f64::INFINITY || counts.get(&labels) != Some(&last.1) {
            return Err(format!("{} {labels:?}: {buckets:?}", family.name));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_head = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    name.bytes().next().is_some_and(is_head)
        && name.bytes().all(|byte| is_head(byte) || byte.is_ascii_digit())
}

/// The parsed family of this name.
fn family(registry: &Registry, name: &str) -> Family {
    let families = parse(&registry.render()).unwrap();
    families.into_iter().find(|family| family.name == name).unwrap()
}

#[test]
fn the_parser_is_strict() {
    fn check(body: &str, is_valid: bool) {
        let parsed = parse(&format!("{body}# EOF\n"));
        assert_eq!(parsed.is_ok(), is_valid, "{body} {parsed:?}");
    }
    let head = "# TYPE a counter\n# HELP a Text.\n";
    check(&format!("{head}a_total 1\n"), true);
    check(&format!("{head}a_total{{b=\"c\\\"\\\\\\n\"}} 1\n"), true);
    check(&format!("{head}a_total 1\n{head}a_total 1\n"), false);
    check(&format!("{head}a_total 1\na_total 1\n"), false);
    check(&format!("{head}a 1\n"), false);
    check(&format!("{head}a_total -1\n"), false);
    check(&format!("{head}a_total{{b=\"c\"d\"}} 1\n"), false);
    check(&format!("{head}a_total{{b=\"\\c\"}} 1\n"), false);
    check(&format!("{head}a_total{{b=\"c\"}}1\n"), false);
    check("a_total 1\n", false);
    let histogram = "# TYPE h histogram\n# HELP h Text.\n";
    check(
        &format!("{histogram}h_bucket{{le=\"1.0\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\nh_count 2\nh_sum 3\n"),
        true,
    );
    check(
        &format!("{histogram}h_bucket{{le=\"1.0\"}} 3\nh_bucket{{le=\"+Inf\"}} 2\nh_count 2\nh_sum 3\n"),
        false,
    );
    check(&format!("{histogram}h_bucket{{le=\"1.0\"}} 1\nh_count 1\nh_sum 3\n"), false);
    assert!(parse("# TYPE a counter\n# HELP a Text.\n").is_err());
}

#[test]
fn everything_a_process_has_is_valid() {
    let registry = Registry::new(2);
    process::register(&registry, &Clock::system());
    registry.counter("tenfold_edge_requests", "Requests.", &[("route", "shop"), ("cluster", "api")]).add(3);
    registry
        .counter("tenfold_edge_requests", "Requests.", &[("route", "a\"b\\c\nd"), ("cluster", "ü")])
        .add(1);
    registry.gauge("tenfold_edge_open", "He said \"no\".\nAnd \\ left.", &[]).set(-7);
    registry.gauge_fn("tenfold_edge_share_ratio", "A share.", &[], || f64::NAN);
    let histogram =
        registry.histogram("tenfold_edge_wait_seconds", "Waits.", &[("route", "shop")], LATENCY_BOUNDS_S);
    for wait_ms in [0, 3, 30, 300_000] {
        histogram.observe(Duration::from_millis(wait_ms));
    }
    let families = parse(&registry.render()).unwrap();
    let requests = families.iter().find(|family| family.name == "tenfold_edge_requests").unwrap();
    assert_eq!(requests.samples.len(), 2);
    let odd = ("route".to_owned(), "a\"b\\c\nd".to_owned());
    let sample = requests.samples.iter().find(|(_, labels, _)| labels.contains(&odd)).unwrap();
    assert_eq!((sample.1[0].1.as_str(), sample.2.as_str()), ("ü", "1"));
    let open = families.iter().find(|family| family.name == "tenfold_edge_open").unwrap();
    assert_eq!((open.help.as_str(), open.samples[0].2.as_str()), ("He said \"no\".\nAnd \\ left.", "-7"));
    let resident = families.iter().find(|family| family.name == "process_resident_memory_bytes").unwrap();
    assert!(resident.samples[0].2.parse::<f64>().unwrap() > 1e6);
    let text = registry.render();
    assert!(text.contains("# UNIT tenfold_edge_wait_seconds seconds\n"));
    assert!(text.contains("tenfold_edge_wait_seconds_bucket{route=\"shop\",le=\"1.0\"} 3\n"), "{text}");
    assert!(text.contains("tenfold_edge_wait_seconds_sum{route=\"shop\"} 300.033\n"), "{text}");
}

#[test]
fn one_name_and_its_labels_are_one_series() {
    let registry = Registry::new(1);
    let register = |labels: &[(&'static str, &str)]| registry.counter("tenfold_edge_hits", "Hits.", labels);
    register(&[("a", "1"), ("b", "2")]).add(1);
    register(&[("b", "2"), ("a", "1")]).add(1);
    register(&[("b", "1"), ("a", "1")]).add(5);
    assert_eq!(family(&registry, "tenfold_edge_hits").samples.len(), 2);
    assert_eq!(register(&[("a", "1"), ("b", "2")]).value(), 2);
}

#[test]
fn additions_from_many_threads_all_arrive() {
    let registry = Registry::new(1);
    let counter = registry.counter("tenfold_edge_hits", "Hits.", &[]);
    thread::scope(|scope| {
        (0..4).for_each(|_| {
            scope.spawn(|| (0..1_000).for_each(|_| counter.add(1)));
        });
    });
    assert_eq!(family(&registry, "tenfold_edge_hits").samples[0].2, "4000");
}

#[test]
fn a_callback_is_replaced_and_may_use_the_registry() {
    let registry = Registry::new(1);
    registry.gauge_fn("tenfold_cache_entries", "Entries.", &[], || 1.0);
    let inner = registry.clone();
    registry.gauge_fn("tenfold_cache_entries", "Entries.", &[], move || {
        inner.counter("tenfold_cache_scrapes", "Scrapes.", &[]).add(1);
        2.0
    });
    assert_eq!(family(&registry, "tenfold_cache_entries").samples[0].2, "2");
    // This reading is the second.
    assert_eq!(metric(&registry, "tenfold_cache_scrapes", None), 2.0);
    registry.counter_fn("tenfold_cache_evictions", "Evictions.", &[], || 1e15);
    assert_eq!(family(&registry, "tenfold_cache_evictions").samples[0].2, "1000000000000000");
}

#[test]
fn series_of_what_a_reload_took_away_are_removed() {
    let registry = Registry::new(1);
    let route = |name: &str| registry.counter("tenfold_edge_requests", "Requests.", &[("route", name)]);
    let (kept, gone) = (route("kept"), route("gone"));
    kept.add(1);
    gone.add(1);
    registry.gauge("tenfold_edge_gone", "Gone.", &[("route", "gone")]).set(1);
    registry.retain(|_, labels| !labels.contains(&("route", "gone".to_owned())));
    gone.add(1);
    let families = parse(&registry.render()).unwrap();
    assert!(families.iter().all(|family| family.name != "tenfold_edge_gone"));
    assert_eq!(metric(&registry, "tenfold_edge_requests", None), 1.0);
    assert_eq!(route("gone").value(), 0);
    assert_eq!(route("kept").value(), 1);
}

#[test]
fn a_full_family_refuses_and_says_so() {
    let registry = Registry::new(0);
    for index in 0..SERIES_PER_FAMILY_MAX + 3 {
        registry.gauge("tenfold_edge_many", "Many.", &[("route", &index.to_string())]).set(1);
    }
    assert_eq!(family(&registry, "tenfold_edge_many").samples.len(), SERIES_PER_FAMILY_MAX);
    assert_eq!(metric(&registry, "tenfold_service_metric_series_refused", None), 3.0);
}

#[test]
fn families_made_at_the_scrape_stand_among_the_others() {
    let registry = Registry::new(1);
    registry.counter("tenfold_edge_last", "Last.", &[]).add(1);
    registry.counter("tenfold_cache_first", "First.", &[]).add(1);
    let series = |at: usize| SeriesSnapshot {
        labels: vec![("database", at.to_string())],
        value: Value::Number(at as f64),
    };
    let made = move |count| FamilySnapshot {
        name: "tenfold_cache_second",
        help: "Second.",
        kind: Kind::Gauge,
        series: (0..count).map(series).collect(),
    };
    registry.families_fn("pooler", move || vec![made(1)]);
    registry.families_fn("pooler", move || vec![made(SERIES_PER_FAMILY_MAX + 2)]);
    let families = parse(&registry.render()).unwrap();
    let names: Vec<_> = families.iter().map(|family| family.name.as_str()).collect();
    let expected = [
        "tenfold_cache_first",
        "tenfold_cache_second",
        "tenfold_edge_last",
        "tenfold_service_metric_series_refused",
    ];
    assert_eq!(names, expected);
    assert_eq!(families[1].samples.len(), SERIES_PER_FAMILY_MAX);
    assert_eq!(metric(&registry, "tenfold_service_metric_series_refused", None), 2.0);
}

#[test]
fn a_snapshot_has_the_values_themselves() {
    let registry = Registry::new(1);
    let histogram = registry.histogram("tenfold_edge_wait_seconds", "Waits.", &[], &[0.1, 0.2, 0.4]);
    (0..100).for_each(|_| histogram.observe(Duration::from_millis(150)));
    histogram.observe(Duration::from_secs(9));
    let snapshot = registry.snapshot();
    let waits = snapshot.iter().find(|family| family.name == "tenfold_edge_wait_seconds").unwrap();
    assert_eq!(waits.kind, Kind::Histogram);
    let Value::Histogram(waits) = &waits.series[0].value else { panic!("{waits:?}") };
    assert_eq!((waits.count(), waits.buckets[1]), (101, (0.2, 100)));
    let median = waits.quantile_s(0.5).unwrap();
    assert!((0.149..0.152).contains(&median), "{median}");
    assert_eq!(waits.quantile_s(1.0), Some(0.4), "above all bounds: the last one is what is known");
}

#[test]
fn mistakes_in_the_program_are_found_at_registration() {
    fn check(register: impl FnOnce(&Registry) + std::panic::UnwindSafe) {
        let registered = std::panic::catch_unwind(|| {
            let registry = Registry::new(0);
            registry.counter("tenfold_edge_taken", "Taken.", &[]).add(1);
            register(&registry);
        });
        assert!(registered.is_err());
    }
    check(|registry| drop(registry.gauge("tenfold_edge_taken", "Another kind.", &[])));
    check(|registry| drop(registry.counter("tenfold_edge_x_total", "Suffix.", &[])));
    check(|registry| drop(registry.counter("tenfold-edge", "Not a name.", &[])));
    check(|registry| drop(registry.counter("tenfold_edge", "Not a label.", &[("le", "1")])));
    check(|registry| drop(registry.counter("tenfold_edge", "A label twice.", &[("a", "1"), ("a", "2")])));
}
