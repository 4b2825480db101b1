//! What the process says: diagnostics to stderr, the access log to stdout.
//!
//! **Mechanism.** Diagnostics are rare; they go through a bounded queue to a thread of their own, one line each, so that
//! lines of several threads never mix and nobody ever waits for stderr. Access records come from the workers through the edge's bounded channel, and one thread writes them out in
//! batches; it flushes when nothing is waiting.
//!
//! **Failure.** A slow or full stdout fills the channel; the workers then drop records and count them, and never wait. Of
//! diagnostics, too, the newest are dropped; how many were is said as soon as stderr takes something again.
//! A stdout that is gone for good is said once, and records are thrown away from then on.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tenfold_edge::access_log::{AccessLogReceiver, Record, rfc3339};
use tenfold_service::clock::Clock;

use crate::config::settings::LogFormat;

/// Bytes gathered before they are written without waiting for a pause.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the writer waits for a record before it looks again.
const PAUSE: Duration = Duration::from_secs(1);

/// Diagnostics that wait for stderr.
const LINES_MAX: usize = 1_024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// Needs a look.
    Warn,
    /// Something was not done.
    Error,
}

/// Where diagnostics go. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log {
    format: LogFormat,
    clock: Clock,
    lines: SyncSender<Message>,
    /// Lines that found the queue full, since the last one written.
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// Dropped when all before it is written.
    Flush(SyncSender<()>),
}

impl Log {
    /// A log in this form, on stderr. Its thread ends with the last clone.
    pub fn start(format: LogFormat, clock: Clock) -> io::Result<Self> {
        Self::start_to(io::stderr(), format, clock)
    }

    fn start_to(mut out: impl Write + Send + 'static, format: LogFormat, clock: Clock) -> io::Result<Self> {
        let (lines, queue) = sync_channel(LINES_MAX);
        let log = Self { format, clock: clock.clone(), lines, dropped: Arc::default() };
        let dropped = Arc::clone(&log.dropped);
        let run = move || {
            while let Ok(message) = queue.recv() {
                let text = match message {
                    Message::Line(text) => text,
                    Message::Flush(written) => {
                        drop(written);
                        continue;
                    }
                };
                // If stderr is gone there is nobody left to tell.
                let _ = out.write_all(text.as_bytes());
                let missing = dropped.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    let note = format!("{missing} lines were dropped here: nobody read them in time");
                    let _ = out.write_all(line(format, Level::Warn, &note, clock.unix_ms()).as_bytes());
                }
            }
        };
        std::thread::Builder::new().name("tenfold-says".into()).spawn(run)?;
        Ok(log)
    }

    /// Waits until what was said is written, for at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let (written, is_written) = sync_channel(0);
        if self.lines.try_send(Message::Flush(written)).is_ok() {
            // Disconnected: the thread has come to it.
            let _ = is_written.recv_timeout(limit);
        }
    }

    /// Good to know.
    pub fn info(&self, message: &str) {
        self.write(Level::Info, message);
    }

    /// Needs a look.
    pub fn warn(&self, message: &str) {
        self.write(Level::Warn, message);
    }

    /// Something was not done.
    pub fn error(&self, message: &str) {
        self.write(Level::Error, message);
    }

    fn write(&self, level: Level, message: &str) {
        let line = line(self.format, level, message, self.clock.unix_ms());
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn line(format: LogFormat, level: Level, message: &str, unix_ms: u64) -> String {
    let level = match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let message = message.trim_end();
    match format {
        LogFormat::Text => format!("{level}: {message}\n"),
        LogFormat::Json => {
            let line = serde_json::json!({ "time": rfc3339(unix_ms), "level": level, "message": message });
            format!("{line}\n")
        }
    }
}

/// The thread that writes the access log. It ends by itself once every worker is gone and all is written.
#[derive(Debug)]
pub struct AccessLogThread {
    /// Nothing is sent: its other end is dropped with the thread's last word.
    ended: Receiver<()>,
}

impl AccessLogThread {
    /// Starts it.
    pub fn start(receiver: AccessLogReceiver, format: LogFormat, log: Log) -> io::Result<Self> {
        let (running, ended) = sync_channel(0);
        let run = move || {
            let _running = running;
            let mut out = BufWriter::with_capacity(BATCH_BYTES, io::stdout());
            if let Err(error) = pump(&receiver, format, &mut out) {
                log.error(&format!("the access log cannot be written any more: {error}"));
                // What is in the buffer would fail again.
                let _ = out.into_parts();
                while receiver.next(PAUSE).is_ok() {}
            }
        };
        std::thread::Builder::new().name("tenfold-log".into()).spawn(run)?;
        Ok(Self { ended })
    }

    /// Waits for its end, for at most `limit`; false if a stdout that takes nothing still holds it.
    #[must_use]
    pub fn join_within(self, limit: Duration) -> bool {
        !matches!(self.ended.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
    }
}

fn pump(receiver: &AccessLogReceiver, format: LogFormat, out: &mut impl Write) -> io::Result<()> {
    loop {
        let Ok(waiting) = receiver.next(Duration::ZERO) else { return out.flush() };
        let record = match waiting {
            Some(record) => record,
            None => {
                out.flush()?;
                match receiver.next(PAUSE) {
                    Ok(Some(record)) => record,
                    Ok(None) => continue,
                    Err(_) => return out.flush(),
                }
            }
        };
        writeln!(out, "{}", text_of(&record, format))?;
    }
}

fn text_of(record: &Record, format: LogFormat) -> String {
    match format {
        LogFormat::Text => record.to_text(),
        LogFormat::Json => record.to_json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing until it is let go, then hands on what it was given.
    struct Stuck {
        hold: Receiver<()>,
        taken: std::sync::mpsc::Sender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.hold.recv();
            let _ = self.taken.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_stderr_holds_nobody_up_and_what_was_dropped_is_counted() {
        let (let_go, hold) = sync_channel(0);
        let (taken, written) = std::sync::mpsc::channel();
        let log = Log::start_to(Stuck { hold, taken }, LogFormat::Text, Clock::system()).expect("a thread");
        // One line is in the thread's hands, or still in the queue.
        for number in 0..LINES_MAX + 10 {
            log.info(&format!("line {number}"));
        }
        log.flush(Duration::ZERO);
        let dropped = log.dropped.load(Ordering::Relaxed);
        assert!((9..=10).contains(&dropped), "{dropped}");
        drop(let_go);
        assert_eq!(written.recv().expect("the first line"), "info: line 0\n");
        let note = written.recv().expect("a note");
        assert!(note.contains(&format!("{dropped} lines were dropped")), "{note}");
        drop(log);
        assert_eq!(written.iter().count(), LINES_MAX + 10 - usize::try_from(dropped).expect("few") - 1);
    }

    #[test]
    fn a_diagnostic_is_one_line_of_json_whatever_is_in_it() {
        let text = line(LogFormat::Json, Level::Warn, "first\nsecond \"x\"\n", 1_000);
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["message"], "first\nsecond \"x\"");
        assert_eq!(value["level"], "warn");
        assert_eq!(line(LogFormat::Text, Level::Error, "no", 0), "error: no\n");
    }
}
