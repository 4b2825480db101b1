//! What a pass costs the shop, its database and Tenfold, and how much of the crowd got through to them.
//!
//! Two readings, before and after, and their difference. Statements come from PostgreSQL's own count
//! (`pg_stat_statements`), told apart by the tables they name: public data is read from products, categories, reviews
//! and stock, everything else belongs to one customer. Requests that reached the shop are Tenfold's exchanges with its
//! nodes; of those, the ones on the uncached route are no fetches. Connections are looked at every second, since both
//! the shop's pools and the pooler keep them for longer than that; the wait for one is the pooler's own histogram.

use anyhow::Result;

use super::front::Tenfold;
use super::stack::Stack;

/// Statements of the shop's public pages and lists.
const PUBLIC_READS: &str = r"query ~* '^\s*SELECT' AND query ~* '\m(products|categories|reviews|stock)\M'
    AND query !~* '\m(users|cart_items|orders|order_items)\M' AND query !~* 'FOR UPDATE'";
/// The route of tenfold.toml that is not cached.
const UNCACHED_ROUTE: &str = "route=\"personal\"";

/// Everything that only grows, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    pub(crate) shop_cpu_s: f64,
    pub(crate) postgres_cpu_s: f64,
    pub(crate) tenfold_cpu_s: f64,
    /// Statements the primary ran for routes that can be cached.
    pub(crate) public_queries: f64,
    /// All statements the primary ran.
    pub(crate) queries: f64,
    /// Requests Tenfold sent to the shop.
    pub(crate) exchanges: f64,
    /// Of them, those on the uncached route.
    pub(crate) passed: f64,
    /// Their time to the head of the answer, summed.
    pub(crate) response_s: f64,
}

impl Reading {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(crate) fn take(stack: &Stack, tenfold: Option<&Tenfold>) -> Result<Self> {
        let cluster = stack.cluster();
        let mut reading = Self {
            shop_cpu_s: stack.shop_cpu_seconds(),
            postgres_cpu_s: cluster.cpu_seconds(),
            public_queries: cluster.query_count_where(PUBLIC_READS)? as f64,
            queries: cluster.query_count()? as f64,
            ..Self::default()
        };
        if let Some(tenfold) = tenfold {
            let metrics = tenfold.metrics()?;
            reading.tenfold_cpu_s = tenfold.cpu_seconds();
            reading.exchanges = sum(&metrics, "tenfold_edge_upstream_exchanges_total", "");
            reading.passed = sum(&metrics, "tenfold_edge_requests_total", UNCACHED_ROUTE);
            reading.response_s = sum(&metrics, "tenfold_edge_upstream_response_seconds_sum", "");
        }
        Ok(reading)
    }

    /// What came between an earlier reading and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            shop_cpu_s: self.shop_cpu_s - earlier.shop_cpu_s,
            postgres_cpu_s: self.postgres_cpu_s - earlier.postgres_cpu_s,
            tenfold_cpu_s: self.tenfold_cpu_s - earlier.tenfold_cpu_s,
            public_queries: self.public_queries - earlier.public_queries,
            queries: self.queries - earlier.queries,
            exchanges: self.exchanges - earlier.exchanges,
            passed: self.passed - earlier.passed,
            response_s: self.response_s - earlier.response_s,
        }
    }

    /// Requests for what can be cached that reached the shop all the same, revalidations included.
    pub(crate) fn fetches(&self) -> f64 {
        self.exchanges - self.passed
    }

    /// How long the shop took to answer on average.
    pub(crate) fn response_mean_s(&self) -> f64 {
        if self.exchanges > 0.0 { self.response_s / self.exchanges } else { 0.0 }
    }
}

/// The most connections seen at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    /// At the server.
    pub(crate) server: u64,
    /// From the shop: to the server, or to the pooler.
    pub(crate) shop: u64,
}

impl Connections {
    /// Looks once. What cannot be seen now is not counted: a server that refuses more connections refuses ours, too.
    pub(crate) fn look(&mut self, stack: &Stack, tenfold: Option<&Tenfold>) {
        let server = stack.server_connections().unwrap_or(0);
        let shop = match tenfold {
            None => server,
            Some(tenfold) => tenfold.metrics().map_or(0, |metrics| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
                let clients = sum(&metrics, "tenfold_pooler_clients", "") as u64;
                clients
            }),
        };
        self.server = self.server.max(server);
        self.shop = self.shop.max(shop);
    }
}

/// How long clients of the pooler waited for a server connection: the bounds of a histogram in seconds, and how many
/// waits were no longer. Empty where there is no pooler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Waits(Vec<(f64, f64)>);

impl Waits {
    pub(crate) fn read(tenfold: Option<&Tenfold>) -> Result<Self> {
        tenfold.map_or_else(|| Ok(Self::default()), |tenfold| Ok(Self::parse(&tenfold.metrics()?)))
    }

    fn parse(metrics: &str) -> Self {
        let buckets =
            metrics.lines().filter_map(|line| line.strip_prefix("tenfold_pooler_wait_seconds_bucket{le=\""));
        let parse = |rest: &str| {
            let (bound, count) = rest.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.parse().ok()?))
        };
        Self(buckets.filter_map(parse).collect())
    }

    /// What came between an earlier reading and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let earlier = |index| earlier.0.get(index).map_or(0.0, |&(_, count): &(f64, f64)| count);
        let between = |(index, &(bound, count)): (usize, &(f64, f64))| (bound, count - earlier(index));
        Self(self.0.iter().enumerate().map(between).collect())
    }

    /// A bound that 99 of 100 waits kept, in seconds; `None` if there were no waits.
    pub(crate) fn p99_s(&self) -> Option<f64> {
        let all = self.0.last().map(|&(_, count)| count).filter(|&count| count > 0.0)?;
        self.0.iter().find(|(_, count)| *count >= 0.99 * all).map(|&(bound, _)| bound)
    }
}

/// The sum over all series of a name whose labels contain `label`.
pub(crate) fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let matching = series.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    matching.filter_map(|rest| rest.split_whitespace().next_back()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_of_ninety_nine_in_a_hundred_is_found_between_two_readings() {
        let metrics = |counts: [u32; 3]| {
            let line =
                |bound, count| format!("tenfold_pooler_wait_seconds_bucket{{le=\"{bound}\"}} {count}\n");
            line("0.01", counts[0]) + &line("0.1", counts[1]) + &line("+Inf", counts[2])
        };
        let before = Waits::parse(&metrics([0, 50, 100]));
        let check = |after, p99_s| assert_eq!(Waits::parse(&metrics(after)).since(&before).p99_s(), p99_s);
        check([100, 150, 200], Some(0.01));
        check([98, 150, 200], Some(0.1));
        check([0, 50, 101], Some(f64::INFINITY));
        check([0, 50, 100], None);
        assert_eq!(Waits::default().since(&Waits::default()).p99_s(), None);
    }

    #[test]
    fn series_are_summed_by_name_and_label() {
        let metrics = "\
# TYPE a counter
a_total{route=\"x\",status=\"2xx\"} 3
a_total{route=\"x\",status=\"5xx\"} 1
a_total{route=\"y\",status=\"2xx\"} 10
a_total_more{route=\"x\"} 100
b_total 7
# EOF
";
        assert_eq!(sum(metrics, "a_total", "route=\"x\""), 4.0);
        assert_eq!(sum(metrics, "a_total", ""), 14.0);
        assert_eq!(sum(metrics, "b_total", ""), 7.0);
        assert_eq!(sum(metrics, "c_total", ""), 0.0);
    }
}
