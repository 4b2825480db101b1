//! A server of one thread per connection, whose behaviour is a function of the connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

/// A server that lives until the test process ends. Its address as a base URL.
pub(crate) fn start(serve: impl Fn(Connection) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || serve(Connection::new(stream)));
        }
    });
    url
}

/// A server that answers every request with what `answer` makes of it, on kept connections.
pub(crate) fn answering(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> String {
    start(move |mut connection| {
        while let Some(request) = connection.read() {
            connection.write(&answer(&request));
        }
    })
}

/// A base URL where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// `200 OK` with a body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// One accepted connection.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

/// A request as read.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    /// The next request, or None when the client has gone.
    pub(crate) fn read(&mut self) -> Option<Request> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.reader.read_exact(&mut body).ok()?;
        let mut words = head.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        Some(Request { method, target, head, body: String::from_utf8(body).ok()? })
    }

    pub(crate) fn write(&mut self, bytes: &str) {
        // A client that has gone is the client's affair.
        let _ = self.reader.get_mut().write_all(bytes.as_bytes());
    }

    /// Waits for a first byte and hangs up without reading it, which resets the connection.
    pub(crate) fn reset_on_request(self) {
        let _ = self.reader.get_ref().peek(&mut [0]);
    }

    /// Stays silent until the client has gone.
    pub(crate) fn hold(mut self) {
        while self.read().is_some() {}
    }
}
