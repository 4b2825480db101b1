//! A PostgreSQL of the test binary's own, and connections to it that hide nothing.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    net::TcpStream,
    sync::OnceLock,
    time::Duration,
};

use tenfold_pgwire::{
    backend::{DataRow, ParameterStatus, Report},
    frame::Frames,
    frontend::Format,
    startup::append_startup,
    write,
};
use tenfold_testkit::postgres::{Cluster, Options};

/// Rows of text columns.
pub(crate) type Rows = Vec<Vec<Option<Vec<u8>>>>;

/// An answer that takes longer never comes.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// One server for all tests of this binary; it ends with the process.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()).unwrap())
}

/// A connection as its superuser.
pub(crate) struct Direct {
    stream: TcpStream,
    read: VecDeque<u8>,
    /// The last ParameterStatus of each setting.
    pub(crate) reports: HashMap<String, String>,
}

impl Direct {
    pub(crate) fn connect() -> Self {
        Self::connect_to(cluster().primary().port(), &[])
    }

    /// A connection to whoever listens on this port, with more startup parameters.
    pub(crate) fn connect_to(port: u16, more: &[(&str, &str)]) -> Self {
        Self::open(port, "postgres", more)
    }

    /// A connection to another database than `postgres`.
    pub(crate) fn connect_to_database(port: u16, database: &str) -> Self {
        Self::open(port, database, &[])
    }

    /// A connection to any database, with more startup parameters.
    pub(crate) fn open(port: u16, database: &str, more: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIME_MAX)).unwrap();
        let mut direct = Self { stream, read: VecDeque::new(), reports: HashMap::new() };
        let mut out = Vec::new();
        let params = [(&b"user"[..], &b"postgres"[..]), (b"database", database.as_bytes())];
        let more = more.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        append_startup(&mut out, 0, params.into_iter().chain(more));
        direct.send(&out).unwrap();
        direct
    }

    /// Says goodbye, as drivers do.
    pub(crate) fn terminate(mut self) {
        let mut out = Vec::new();
        write::terminate(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    /// Sends bytes and does not wait for what they bring.
    pub(crate) fn tell(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The connection itself.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Runs a simple query; the rows of all its results.
    pub(crate) fn query(&mut self, sql: impl AsRef<[u8]>) -> Result<Rows, String> {
        let mut out = Vec::new();
        write::query(&mut out, sql.as_ref());
        self.send(&out)
    }

    /// Runs one statement with parameters.
    pub(crate) fn execute(&mut self, sql: &str, params: &[&str]) -> Result<Rows, String> {
        let mut out = Vec::new();
        write::parse(&mut out, b"", sql.as_bytes(), []);
        let values = params.iter().map(|param| Some(param.as_bytes()));
        write::bind(&mut out, b"", b"", Format::Text, values, Format::Text);
        write::execute(&mut out, b"", 0);
        write::sync(&mut out);
        self.send(&out)
    }

    /// Sets a setting by parameters, so that no quoting of ours is involved.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.execute("SELECT set_config($1, $2, false)", &[name, value]).unwrap();
    }

    /// The first column of the first row.
    pub(crate) fn value(&mut self, sql: &str) -> Option<String> {
        let rows = self.query(sql).unwrap();
        rows[0][0].as_ref().map(|value| String::from_utf8(value.clone()).unwrap())
    }

    /// Sends messages and reads up to ReadyForQuery.
    pub(crate) fn send(&mut self, out: &[u8]) -> Result<Rows, String> {
        self.stream.write_all(out).unwrap();
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let read = self.read.make_contiguous();
            let mut frames = Frames::new(read);
            let mut ready = false;
            for frame in &mut frames {
                let frame = frame.unwrap();
                match frame.tag {
                    b'D' => {
                        let row = DataRow::parse(frame.body()).unwrap();
                        rows.push(row.columns().map(|column| column.map(<[u8]>::to_vec)).collect());
                    }
                    b'E' => {
                        let report = Report::parse(frame.body()).unwrap();
                        failure = Some(String::from_utf8_lossy(report.message()).into_owned());
                    }
                    b'S' => {
                        let status = ParameterStatus::parse(frame.body()).unwrap();
                        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        self.reports.insert(text(status.name), text(status.value));
                    }
                    b'Z' => ready = true,
                    _ => {}
                }
            }
            let consumed = frames.consumed();
            self.read.drain(..consumed);
            if ready {
                return failure.map_or(Ok(rows), Err);
            }
            let mut buffer = [0; 16_384];
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(format!("the connection was closed: {failure:?}")),
                Ok(count) => count,
                Err(error) => return Err(format!("no answer: {error}: {failure:?}")),
            };
            self.read.extend(&buffer[..count]);
        }
    }
}
