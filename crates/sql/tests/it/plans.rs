//! PostgreSQL's own grammar, analysis and planner as the second opinion: what a plan reads and changes, the route says.
//!
//! Statements are made by a small grammar of their own and taken from the table of routes. Each is explained by a real
//! server; every relation that its plan scans (views and SQL functions being expanded by then) must be among the tables
//! read, every relation that it modifies among those written, and whatever modifies must not go to a replica. Ours may
//! name more: triggers, cascades and functions that no plan shows. What the server refuses says nothing.

use serde_json::Value;
use tenfold_sql::{Destination, Tables};

use crate::routes::{array, decide, shop};

/// Statements of random shape over the tables of the shop.
struct Maker {
    state: u64,
}

impl Maker {
    fn below(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 33).expect("it fits") % below
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn table(&mut self) -> &'static str {
        self.one(&[
            "users",
            "orders",
            "public.orders",
            "\"users\"",
            "events",
            "animals",
            "simple_orders",
            "open_orders",
            "totals",
            "app.orders",
            "cats",
            "events_2026",
            "timed",
            "with_function",
            "accounts",
            "other.users",
        ])
    }

    fn value(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.one(&["1", "id", "'7'::int", "length('x')", "$$a$$::text IS NULL"]).to_owned();
        }
        match self.below(9) {
            0 => format!("(SELECT max(id) FROM {} AS s)", self.table()),
            1 => format!("coalesce({}, 1)", self.value(0)),
            2 => format!("CASE WHEN {} THEN 1 ELSE {} END", self.condition(depth - 1), self.value(0)),
            3 => "order_count(1)".to_owned(),
            4 => "extract(year FROM date '2026-01-01')".to_owned(),
            5 => format!("abs({})", self.value(0)),
            6 => "pure(3)".to_owned(),
            7 => "count(*) OVER (ORDER BY id)".to_owned(),
            _ => self.value(0),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        match self.below(7) {
            0 if depth > 0 => format!("EXISTS ({})", self.select(depth - 1)),
            1 if depth > 0 => format!("id IN (SELECT id FROM {} AS c)", self.table()),
            2 => "id IS DISTINCT FROM 4".to_owned(),
            3 => "id BETWEEN 1 AND 3".to_owned(),
            4 => "id = ANY (ARRAY[1, 2])".to_owned(),
            5 if depth > 0 => format!("({} OR {})", self.condition(depth - 1), self.condition(0)),
            _ => "id > 0".to_owned(),
        }
    }

    fn source(&mut self, depth: usize) -> String {
        match self.below(8) {
            0 if depth > 0 => format!("({}) AS d", self.select(depth - 1)),
            1 => format!("{} AS d JOIN {} AS e USING (id)", self.table(), self.table()),
            2 => format!("({} AS d LEFT JOIN {} AS e USING (id))", self.table(), self.table()),
            3 => format!("{} d NATURAL JOIN {} e", self.table(), self.table()),
            4 => "(VALUES (1), (2)) AS d (id)".to_owned(),
            5 => format!("ONLY {} AS d", self.table()),
            _ => format!("{} AS d", self.table()),
        }
    }

    fn select(&mut self, depth: usize) -> String {
        let mut sql = String::new();
        if depth > 0 && self.below(4) == 0 {
            let inner = if self.below(5) == 0 {
                self.change(depth - 1) + " RETURNING 1 AS id"
            } else {
                self.select(depth - 1)
            };
            sql += &format!("WITH orders AS ({inner}) ");
        }
        sql += &format!("SELECT {} AS id FROM {}", self.value(depth), self.source(depth));
        if self.below(2) == 0 {
            sql += &format!(" WHERE {}", self.condition(depth));
        }
        if depth > 0 && self.below(5) == 0 {
            sql += &format!(" UNION ALL SELECT id FROM {} AS u", self.table());
        }
        if self.below(4) == 0 {
            sql += " ORDER BY 1 LIMIT 3";
        }
        sql
    }

    fn change(&mut self, depth: usize) -> String {
        let table = self.one(&[
            "users",
            "public.orders",
            "events",
            "animals",
            "simple_orders",
            "accounts",
            "app.orders",
        ]);
        match self.below(4) {
            0 => format!("INSERT INTO {table} (id) {}", self.select(depth)),
            1 => format!(
                "UPDATE {table} AS t SET id = t.id WHERE {}",
                self.condition(depth).replace("id", "t.id")
            ),
            2 => format!("DELETE FROM ONLY {table} AS t WHERE t.id = 1"),
            _ => format!("DELETE FROM {table} AS t USING {} AS o WHERE o.id = t.id", self.table()),
        }
    }
}

/// What fits on one command line.
const STATEMENTS_AT_ONCE: usize = 100;

/// The server's plan of each statement, as JSON; `null` for what it refuses.
fn planned_by_the_server(statements: &[String]) -> Vec<String> {
    let plans = shop().database.run(&format!(
        "SELECT coalesce(oracle.plan(s)::jsonb::text, 'null') FROM unnest({}) WITH ORDINALITY AS x (s, n) ORDER BY n",
        array(statements.iter().map(String::as_str))
    ));
    plans.lines().map(str::to_owned).collect()
}

/// Relations scanned and modified by a plan.
fn relations(plan: &Value, reads: &mut Vec<(String, String)>, writes: &mut Vec<(String, String)>) {
    match plan {
        Value::Array(plans) => plans.iter().for_each(|plan| relations(plan, reads, writes)),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
            if let (Some(schema), Some(name)) = (text("Schema"), text("Relation Name")) {
                let is_change = text("Node Type").as_deref() == Some("ModifyTable");
                let list = if is_change { &mut *writes } else { &mut *reads };
                list.push((schema, name));
            }
            fields.values().for_each(|plan| relations(plan, reads, writes));
        }
        _ => {}
    }
}

/// Tables of relations that a plan names, of which the route does not.
fn missing(named: &[(String, String)], told: &Tables) -> Vec<String> {
    let is_missing = |(schema, name): &&(String, String)| {
        let Some((Tables::Some(own), _)) = shop().catalogue.tables(Some(schema), name) else { return false };
        !own.iter().all(|table| told.contains(*table))
    };
    named.iter().filter(is_missing).map(|(schema, name)| format!("{schema}.{name}")).collect()
}

#[test]
fn plans_name_no_table_that_the_route_does_not() {
    let mut maker = Maker { state: 0x2545_f491_4f6c_dd1d };
    let mut statements: Vec<String> =
        (0..1_200).map(|index| if index % 3 == 0 { maker.change(2) } else { maker.select(3) }).collect();
    let table = include_str!("../routes/table.txt").lines().filter_map(|line| line.split_once(" | "));
    statements.extend(table.map(|(_, sql)| sql.trim_matches(';').replace("$1", "1")));
    let plans: Vec<String> = statements.chunks(STATEMENTS_AT_ONCE).flat_map(planned_by_the_server).collect();
    let (mut planned, mut changing, mut on_replicas) = (0, 0, 0);
    let mut wrong = Vec::new();
    assert_eq!(plans.len(), statements.len());
    for (sql, plan) in statements.iter().zip(&plans) {
        let plan: Value = serde_json::from_str(plan).expect("a plan");
        if plan.is_null() {
            continue;
        }
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        relations(&plan, &mut reads, &mut writes);
        let route = decide(sql).route.clone();
        planned += 1;
        changing += usize::from(!writes.is_empty());
        on_replicas += usize::from(route.destination == Destination::Replica);
        let (reads, unwritten) = (missing(&reads, &route.reads), missing(&writes, &route.writes));
        let is_lost = !writes.is_empty() && route.destination == Destination::Replica;
        // What is modified is scanned as well; tables read matter where a replica may answer.
        let is_stale = !reads.is_empty() && route.destination == Destination::Replica;
        if is_lost || is_stale || !unwritten.is_empty() {
            wrong.push(format!("{sql}\n    reads {reads:?}, writes {unwritten:?}, {}", route.destination));
        }
    }
    assert!(wrong.is_empty(), "{} of {planned}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(planned > 600 && changing > 150 && on_replicas > 300, "{planned} {changing} {on_replicas}");
}
