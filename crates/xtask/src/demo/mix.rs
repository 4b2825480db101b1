//! What is asked of the shop: its own traffic (`examples/shop/load.toml`) with the popularity of a real site.
//!
//! Customers log in once, before anything is measured, and their tokens serve every run. Before each run the shop is
//! put back as it was (carts empty, orders gone, stock refilled), so that the second pass does not meet the leftovers
//! of the first.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tenfold_loadgen::scenario::Class;
use tenfold_loadgen::trace::KeyTrace;
use tenfold_loadgen::{Plan, Scenario, Schedule};

use super::Options;
use super::stack::Stack;

/// Whose keys decide which product is asked for.
pub(crate) const TRACE: &str = "web12";
/// Log-ins cost the shop 50 ms of CPU each, as they should.
const CUSTOMERS: u32 = 60;
const CUSTOMERS_QUICK: u32 = 10;
/// More would be a mix that no cache helps, and not what shops see.
const PERSONAL_SHARE_MAX: f64 = 0.10;
/// The same load every time.
const SEED: u64 = 19_980_512;
/// What is put back between runs. The stock of what was ordered returns first.
const RESET: &str = "
    UPDATE stock SET available = available + sold.quantity
    FROM (SELECT product_id, sum(quantity)::int AS quantity FROM order_items GROUP BY product_id) AS sold
    WHERE stock.product_id = sold.product_id;
    TRUNCATE order_items, orders, cart_items RESTART IDENTITY;
";

/// What a run asks for.
pub(crate) struct Mix {
    scenario: Scenario,
    keys: Arc<KeyTrace>,
    tokens: Arc<Vec<String>>,
}

impl Mix {
    /// Reads scenario and trace, and logs the customers in.
    pub(crate) fn prepare(stack: &Stack, root: &Path, options: Options) -> Result<Self> {
        let path = root.join("examples/shop/load.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Scenario = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for setup in &mut scenario.setup {
            setup.repeat = setup.repeat.min(if options.quick { CUSTOMERS_QUICK } else { CUSTOMERS });
        }
        let share = personal_share(&scenario);
        ensure!(share <= PERSONAL_SHARE_MAX, "{:.0} % of the mix are personal or write", share * 100.0);
        let path = root.join(format!("data/{TRACE}.trace"));
        let keys = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let keys = Arc::new(KeyTrace::parse(&keys)?);
        let mut mix = Self { scenario, keys, tokens: Arc::default() };
        let login = mix.plan(
            stack.urls(),
            Schedule::constant(
                1.0,
                std::time::Duration::from_secs(1),
                tenfold_loadgen::schedule::Spacing::Even,
                SEED,
            )?,
        );
        mix.tokens = tenfold_loadgen::log_in(&login)?.into();
        Ok(mix)
    }

    /// A run of this mix against these targets.
    pub(crate) fn plan(&self, targets: Vec<String>, schedule: Schedule) -> Plan {
        let mut plan = Plan::new(targets, self.scenario.clone(), schedule);
        plan.keys = Some(Arc::clone(&self.keys));
        plan.tokens = Arc::clone(&self.tokens);
        plan.slo = Some(super::SLO);
        plan.seed = SEED;
        plan
    }

    /// Of the customers who are logged in.
    pub(crate) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Which routes, by the scenario's order, may be cached.
    pub(crate) fn cacheable(&self) -> Vec<bool> {
        self.scenario.routes.iter().map(|route| route.class == Class::Cacheable).collect()
    }

    /// Puts the shop back as it was.
    pub(crate) fn reset(stack: &Stack) -> Result<()> {
        stack.sql(RESET)?;
        stack.sql("VACUUM ANALYZE stock, orders, order_items, cart_items").map(drop)
    }

    pub(crate) fn seed() -> u64 {
        SEED
    }
}

fn personal_share(scenario: &Scenario) -> f64 {
    let weight = |wanted: &dyn Fn(Class) -> bool| {
        let routes = scenario.routes.iter().filter(|route| wanted(route.class));
        f64::from(routes.map(|route| route.weight).sum::<u32>())
    };
    weight(&|class| class != Class::Cacheable) / weight(&|_| true)
}
