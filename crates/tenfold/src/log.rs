//! What the process says: diagnostics to stderr, the access log to stdout.
//!
//! **Mechanism.** Diagnostics are rare and written where they arise, one line each, so that lines of several threads never
//! mix. Access records come from the workers through the edge's bounded channel, and one thread writes them out in
//! batches; it flushes when nothing is waiting.
//!
//! **Failure.** A slow or full stdout fills the channel; the workers then drop records and count them, and never wait.
//! A stdout that is gone for good is said once, and records are thrown away from then on.

use std::io::{self, BufWriter, Write};
use std::thread::JoinHandle;
use std::time::Duration;

use tenfold_edge::access_log::{AccessLogReceiver, Record, rfc3339};
use tenfold_service::clock::Clock;

use crate::config::settings::LogFormat;

/// Bytes gathered before they are written without waiting for a pause.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the writer waits for a record before it looks again.
const PAUSE: Duration = Duration::from_secs(1);

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
}

impl Log {
    /// A log in this form.
    #[must_use]
    pub fn new(format: LogFormat, clock: Clock) -> Self {
        Self { format, clock }
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
        // If stderr is gone there is nobody left to tell.
        let _ = io::stderr().lock().write_all(line.as_bytes());
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

/// Starts the thread that writes the access log. It ends by itself once every worker is gone and all is written.
pub fn write_access_log(
    receiver: AccessLogReceiver,
    format: LogFormat,
    log: Log,
) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let mut out = BufWriter::with_capacity(BATCH_BYTES, io::stdout());
        if let Err(error) = pump(&receiver, format, &mut out) {
            log.error(&format!("the access log cannot be written any more: {error}"));
            // What is in the buffer would fail again.
            let _ = out.into_parts();
            while receiver.next(PAUSE).is_ok() {}
        }
    };
    std::thread::Builder::new().name("tenfold-log".into()).spawn(run)
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
