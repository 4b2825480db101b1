//! The access log: a sample of ordinary requests, and every one that went wrong.
//!
//! A worker builds a record only for what is kept, and hands it over through a bounded channel; whoever holds the other
//! end (the binary) writes it out on a thread of its own. When that thread can't keep up, records are dropped and
//! counted: a full disk must not slow an answer.
//!
//! Sampling is by an accumulator for each worker, so that 1 % is every hundredth request and not a matter of luck.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::reason::Reason;

/// Records in flight to the writer.
const RECORDS_MAX: usize = 4096;
const PARTS: u32 = 1_000_000;

/// One request, as the log keeps it.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the answer was done, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Who asked.
    pub client: IpAddr,
    /// As in the answer's `X-Request-Id`.
    pub request_id: String,
    /// As received.
    pub method: String,
    /// In normal form; of a request that was refused at once, as received. Cut at 1 KiB, as are method and target.
    pub host: String,
    /// Path and query, as a node would see them; of a request that was refused at once, as received.
    pub target: String,
    /// The route's name, if one was found.
    pub route: Option<Arc<str>>,
    /// What was answered; 0 if nothing was.
    pub status: u16,
    /// Of the body sent to the client.
    pub body_bytes: u64,
    /// From when the request's head was whole to the answer's last byte; an answer that is ready at once is done when it
    /// has been handed to the connection.
    pub duration: Duration,
    /// The word for what the cache did, such as `hit`.
    pub cache: &'static str,
    /// Why it was refused or cut.
    pub reason: Option<Reason>,
}

/// Where workers hand their records in. A clone for each worker, since each clone samples by itself.
#[derive(Debug)]
pub struct AccessLog {
    sender: SyncSender<Record>,
    dropped: Arc<AtomicU64>,
    accumulated: AtomicU32,
}

/// The writer's end.
#[derive(Debug)]
pub struct AccessLogReceiver {
    receiver: Receiver<Record>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Both ends.
    #[must_use]
    pub fn channel() -> (Self, AccessLogReceiver) {
        let (sender, receiver) = sync_channel(RECORDS_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = Self { sender, dropped: Arc::clone(&dropped), accumulated: AtomicU32::new(0) };
        (log, AccessLogReceiver { receiver, dropped })
    }

    /// Hands in a request if it is to be kept. `record` is called only then. `sample_ppm` of a million ordinary requests
    /// are kept; one with a reason or a status of 500 or more always is.
    pub fn offer(&self, sample_ppm: u32, remarkable: bool, record: impl FnOnce() -> Record) {
        if !remarkable && !self.is_sampled(sample_ppm) {
            return;
        }
        if self.sender.try_send(record()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_sampled(&self, sample_ppm: u32) -> bool {
        let accumulated = self.accumulated.load(Ordering::Relaxed) + sample_ppm.min(PARTS);
        self.accumulated.store(accumulated % PARTS, Ordering::Relaxed);
        accumulated >= PARTS
    }
}

impl Clone for AccessLog {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            dropped: Arc::clone(&self.dropped),
            accumulated: AtomicU32::new(0),
        }
    }
}

impl AccessLogReceiver {
    /// Waits for a record, at most `limit`. `Err` once every sender is gone.
    ///
    /// # Errors
    /// The log is over.
    pub fn next(&self, limit: Duration) -> Result<Option<Record>, LogEnded> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.receiver.recv_timeout(limit) {
            Ok(record) => Ok(Some(record)),
            Err(Timeout) => Ok(None),
            Err(Disconnected) => Err(LogEnded),
        }
    }

    /// Counts the records that found the channel full, since the start; outlives this end, as a metric has to.
    #[must_use]
    pub fn dropped_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

/// Every worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access log has ended")]
pub struct LogEnded;

impl Record {
    /// One line of JSON, without its line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut line = String::with_capacity(320);
        line.push('{');
        write_member(&mut line, "time", &rfc3339(self.unix_ms));
        write_member(&mut line, "client", &self.client.to_string());
        write_member(&mut line, "request_id", &self.request_id);
        write_member(&mut line, "method", &self.method);
        write_member(&mut line, "host", &self.host);
        write_member(&mut line, "target", &self.target);
        if let Some(route) = &self.route {
            write_member(&mut line, "route", route);
        }
        write_member(&mut line, "cache", self.cache);
        if let Some(reason) = self.reason {
            write_member(&mut line, "reason", reason.as_str());
        }
        let duration_us = self.duration.as_micros();
        // Writing to a `String` cannot fail.
        let _ = write!(
            line,
            "\"status\":{},\"body_bytes\":{},\"duration_us\":{duration_us}}}",
            self.status, self.body_bytes
        );
        line
    }

    /// One line for people, without its line end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let route = self.route.as_deref().unwrap_or("-");
        let reason = self.reason.map_or("-", Reason::as_str);
        format!(
            "{} {} {} {} {}{} route={route} cache={} bytes={} ms={:.3} reason={reason} id={}",
            rfc3339(self.unix_ms),
            self.client,
            self.status,
            escaped(&self.method),
            escaped(&self.host),
            escaped(&self.target),
            self.cache,
            self.body_bytes,
            self.duration.as_secs_f64() * 1000.0,
            self.request_id,
        )
    }
}

/// A client chooses these bytes, and a terminal may read them: nothing but visible ASCII stays as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() { out.push(c) } else { out.extend(c.escape_default()) }
    }
    out
}

fn write_member(line: &mut String, name: &str, value: &str) {
    let _ = write!(line, "\"{name}\":\"");
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push_str("\",");
}

/// `1994-11-06T08:49:37.123Z`, by Howard Hinnant's civil-from-days.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            unix_ms: 784_111_777_123,
            client: IpAddr::from([192, 0, 2, 1]),
            request_id: "id".to_owned(),
            method: "GET".to_owned(),
            host: "shop.example".to_owned(),
            target: "/a\"b\u{1b}[31m".to_owned(),
            route: Some("product".into()),
            status: 503,
            body_bytes: 12,
            duration: Duration::from_micros(1500),
            cache: "miss",
            reason: Some(Reason::NoNode),
        }
    }

    #[test]
    fn times_are_calendar_times() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (784_111_777_123, "1994-11-06T08:49:37.123Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
    }

    #[test]
    fn a_clients_bytes_cannot_forge_a_line() {
        let json = record().to_json();
        assert!(json.contains(r#""target":"/a\"b\u001b[31m""#), "{json}");
        assert!(
            json.ends_with(r#""reason":"no_node","status":503,"body_bytes":12,"duration_us":1500}"#),
            "{json}"
        );
        assert!(!record().to_text().contains('\u{1b}'));
    }

    #[test]
    fn one_percent_is_every_hundredth() {
        let (log, receiver) = AccessLog::channel();
        (0..1000).for_each(|_| log.offer(10_000, false, record));
        let kept = std::iter::from_fn(|| receiver.next(Duration::ZERO).ok().flatten()).count();
        assert_eq!(kept, 10);
    }

    #[test]
    fn the_remarkable_is_always_kept_and_a_full_channel_drops() {
        let (log, receiver) = AccessLog::channel();
        (0..RECORDS_MAX + 5).for_each(|_| log.offer(0, true, record));
        assert_eq!(receiver.dropped_counter().load(Ordering::Relaxed), 5);
        drop(log);
        let kept = std::iter::from_fn(|| receiver.next(Duration::ZERO).ok().flatten()).count();
        assert_eq!(kept, RECORDS_MAX);
        assert_eq!(receiver.next(Duration::ZERO).err(), Some(LogEnded));
    }
}
