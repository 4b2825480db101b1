//! What a request costs the generator: CPU microseconds against a server that does nothing.
//!
//! `cargo run --release -p tenfold-loadgen --example cost [rate] [seconds] [connections]`. The server is a thread of
//! this process; the generator counts its own threads' CPU alone.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::net::Ipv4Addr;
use std::time::Duration;

use tenfold_loadgen::schedule::Spacing;
use tenfold_loadgen::{Plan, Scenario, Schedule, Stop, run, table};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Status: t; hit; ttl=20\r\n\
    Content-Length: 27\r\n\r\n{\"id\": 17, \"name\": \"socks\"}";
const SCENARIO: &str = r#"{
    "name": "cost",
    "route": [{"name": "product", "weight": 9, "path": "/api/products/{random:1-20000}"},
              {"name": "cart", "weight": 1, "class": "write", "method": "POST", "path": "/api/cart", "body": "{\"product\": {n}}"}],
    "count_header": [{"name": "Cache-Status", "part": 1}]
}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rate: f64 = arguments.next().as_deref().unwrap_or("5000").parse()?;
    let seconds: u64 = arguments.next().as_deref().unwrap_or("5").parse()?;
    let connections_max: usize = arguments.next().as_deref().unwrap_or("512").parse()?;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let target = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || serve(listener));
    let scenario: Scenario = serde_json::from_str(SCENARIO)?;
    let schedule = Schedule::constant(rate, Duration::from_secs(seconds), Spacing::Poisson, 1)?;
    let mut plan = Plan::new(vec![target], scenario, schedule);
    plan.client.connections_max = connections_max;
    let run = run(&plan, &Stop::default(), &mut |second| println!("{}", table::render_second(second)))?;
    println!("\n{}", table::render(&run.report));
    Ok(())
}

/// Answers every read with the same bytes: requests of this example come whole.
fn serve(listener: std::net::TcpListener) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream));
        }
    })
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut received = [0; 4096];
    while stream.read(&mut received).await? > 0 {
        stream.write_all(ANSWER).await?;
    }
    Ok(())
}
