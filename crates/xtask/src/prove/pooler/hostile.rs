//! Hostile bytes: a thousand connections a second that are no clients, beside clients that are.
//!
//! What they send is drawn from a fixed seed: nothing, noise, a startup packet and then noise, lengths that are none, TLS
//! asked for and not spoken, messages cut short, exchanges of passwords that go wrong at each step. Each leaves at once or
//! after the first answer. Meanwhile ten times as many strangers as may log in at once stand still in the middle of it,
//! and clients that know the password come and go.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_pgwire::startup::append_startup;
use tenfold_pgwire::write;
use tenfold_testkit::postgres::{Cluster, Options};
use tenfold_testkit::try_wait_for;

use super::super::stand::{Scratch, now, pause};
use super::super::verdict::Verdicts;
use super::scram_noise::ScramNoise;
use super::session::Session;
use super::stand::{PASSWORD, Pooler, database};
use super::steady::Steady;

const RATE: u64 = 1_000;
const THREADS: u64 = 8;
const GOOD_CLIENTS: usize = 32;
const GROWTH_MIB_MAX: u64 = 32;
const NOISE_BYTES_MAX: u64 = 2_048;
/// A garbage client waits no longer for an answer.
const PATIENCE: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(30);
const POOL: &str = "size = 16, reserve = 4";
const LOGINS_MAX: usize = 16;
/// Between two logins of one who knows the password.
const PACE: Duration = Duration::from_millis(20);

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let time = Duration::from_secs(if short { 5 } else { 60 });
    let mut verdicts = Verdicts::new(format!("pooler-hostile: {RATE} garbage connections a second"));
    let cluster = Cluster::start(&Options::default())?;
    cluster.psql("CREATE TABLE operations (at timestamptz DEFAULT now())")?;
    let all = format!("auth = \"scram-sha-256\"\nlogins_max = {LOGINS_MAX}");
    let mut pooler = Pooler::start_as(scratch, &all, &database(cluster.primary().port(), POOL))?;
    let good = Steady::start(pooler.addr, GOOD_CLIENTS);
    try_wait_for("the good clients to work", LIMIT, || good.done() > 10 * GOOD_CLIENTS as u64)?;
    let before = resident_mib(pooler.child.pid())?;
    let addr = pooler.addr;
    let stalled = stall(addr)?;
    let began = now();
    let (poured, newcomers) = std::thread::scope(|scope| {
        let newcomers = scope.spawn(move || come_and_go(addr, time));
        let threads: Vec<_> =
            (0..THREADS).map(|index| scope.spawn(move || pour(addr, index, time))).collect();
        let poured = threads.into_iter().filter_map(|thread| thread.join().ok());
        let poured = poured.fold(Poured::default(), Poured::and);
        (poured, newcomers.join().unwrap_or_default())
    });
    let rate = poured.sent as f64 / began.elapsed().as_secs_f64();
    drop(stalled);
    let seen = good.finish()?;
    let after = resident_mib(pooler.child.pid())?;
    let ended = pooler.child.try_wait();
    verdicts.note("of them exchanges of passwords", poured.exchanges.to_string());
    verdicts.none("let in without the password", poured.let_in);
    let (came, kept_out) = newcomers;
    let shown = format!("{came} logins, {kept_out} failed");
    let bar = format!("0 failed while {} stand still", 10 * LOGINS_MAX);
    verdicts.bar("newcomers with the password", shown, &bar, came > 0 && kept_out == 0);
    verdicts.bar("garbage connections a second", format!("{rate:.0}"), "≥ 900", rate >= 900.0);
    verdicts.bar(
        "the pooler",
        ended.map_or("runs".into(), |status| status.to_string()),
        "runs",
        ended.is_none(),
    );
    let panics = pooler.child.log().matches("panicked").count() as u64;
    verdicts.none("panics", panics);
    let growth = after.saturating_sub(before);
    let bar = format!("≤ {GROWTH_MIB_MAX} MiB");
    verdicts.bar("memory", format!("{before} MiB, then {after} MiB"), &bar, growth <= GROWTH_MIB_MAX);
    verdicts.bar("good clients: failed transactions", seen.shown(), "0", seen.failures() == 0);
    verdicts.note("good clients: longest wait", format!("{} ms", seen.slowest.as_millis()));
    Ok(verdicts)
}

fn resident_mib(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
    let kib: u64 = line.split_whitespace().next().context("VmRSS is empty")?.parse()?;
    Ok(kib >> 10)
}

/// What one thread sent, or all of them.
#[derive(Clone, Copy, Debug, Default)]
struct Poured {
    sent: u64,
    /// Connections that went as far as the password.
    exchanges: u64,
    /// Of these, those that were let in.
    let_in: u64,
}

impl Poured {
    fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            exchanges: self.exchanges + other.exchanges,
            let_in: self.let_in + other.let_in,
        }
    }
}

/// Strangers that begin to log in and say no more, half of them before their first message and half behind it.
fn stall(addr: SocketAddr) -> Result<Vec<TcpStream>> {
    let mut out = Vec::new();
    append_startup(&mut out, 0, [(&b"user"[..], &b"postgres"[..]), (b"database", b"postgres")]);
    let mut begun = out.clone();
    write::sasl_initial_response(&mut begun, "SCRAM-SHA-256", Some(b"n,,n=,r=stranger"));
    let stand_still = |index| {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(if index % 2 == 0 { &out } else { &begun })?;
        Ok(stream)
    };
    (0..10 * LOGINS_MAX).map(stand_still).collect()
}

/// One that knows the password, over and over: logins, and those that failed.
fn come_and_go(addr: SocketAddr, time: Duration) -> (u64, u64) {
    let began = now();
    let (mut came, mut kept_out) = (0, 0);
    while began.elapsed() < time {
        let answer = Session::connect(addr).and_then(|mut session| session.query("SELECT 'in'"));
        came += 1;
        kept_out += u64::from(!answer.is_ok_and(|answer| answer.rows == ["in"]));
        pause(PACE);
    }
    (came, kept_out)
}

/// One thread's share, at its pace.
fn pour(addr: SocketAddr, index: u64, time: Duration) -> Poured {
    let began = now();
    let mut scram = ScramNoise::new();
    let mut noise = Noise((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut poured = Poured::default();
    while began.elapsed() < time {
        let due = Duration::from_micros(poured.sent * 1_000_000 * THREADS / RATE);
        pause(due.saturating_sub(began.elapsed()));
        let Ok(mut stream) = TcpStream::connect(addr) else { continue };
        poured.sent += 1;
        if noise.draw(4) == 0 {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            poured.exchanges += 1;
            poured.let_in += u64::from(scram.exchange(&mut stream, &mut noise, PASSWORD.as_bytes()));
            continue;
        }
        let _ = stream.write_all(&noise.garbage());
        if noise.draw(2) == 0 {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(&noise.bytes());
        }
    }
    poured
}

/// xorshift64.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.draw(256).to_le_bytes()[0]
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let len = self.draw(NOISE_BYTES_MAX);
        (0..len).map(|_| self.byte()).collect()
    }

    fn garbage(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.draw(6) {
            0 => {}
            1 => out = self.bytes(),
            // A length that is negative or without end, in a packet of startup.
            2 => out.extend_from_slice(&[[0xff, 0xff, 0xff, 0xff], [0x7f, 0xff, 0xff, 0xff]].concat()),
            // SSLRequest, and no TLS.
            3 => {
                out.extend_from_slice(&[0, 0, 0, 8, 4, 210, 22, 47]);
                out.extend(self.bytes());
            }
            // CancelRequest for nobody.
            4 => {
                out.extend_from_slice(&[0, 0, 0, 16, 4, 210, 22, 46]);
                out.extend((0..8).map(|_| self.byte()));
            }
            // A login, and noise for messages.
            _ => {
                append_startup(&mut out, 0, [(&b"user"[..], &b"postgres"[..]), (b"database", b"postgres")]);
                out.push(b"QPBdpS"[usize::from(self.byte()) % 6]);
                out.extend(self.bytes());
            }
        }
        out
    }
}
