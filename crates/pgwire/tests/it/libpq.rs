//! libpq logs in to a server made of nothing but this crate: psql by SCRAM and md5, right and wrong passwords.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

use tenfold_pgwire::backend::{Column, TransactionStatus};
use tenfold_pgwire::frame::{self, Frame};
use tenfold_pgwire::frontend::{Format, PasswordMessage, Query, SaslInitialResponse, SaslResponse};
use tenfold_pgwire::md5::Md5Secret;
use tenfold_pgwire::scram::{NONCE_BYTES, Server, ServerBinding, Verifier};
use tenfold_pgwire::startup::{Initial, VERSION_MINOR_LATEST};
use tenfold_pgwire::{Error, sqlstate, write};
use tenfold_testkit::postgres::Install;

const LIMIT: Duration = Duration::from_secs(20);

/// What the server stores.
#[derive(Clone, Debug)]
enum Stored {
    Scram(Verifier),
    Md5(Md5Secret),
}

/// One connection of a client that logs in.
struct Session {
    stream: TcpStream,
    received: Vec<u8>,
    out: Vec<u8>,
}

impl Session {
    fn fill(&mut self) -> usize {
        let mut piece = [0; 1024];
        let len = self.stream.read(&mut piece).expect("psql sends in time");
        self.received.extend_from_slice(&piece[..len]);
        len
    }

    fn flush(&mut self) {
        // psql may have left after an error of ours.
        let _ = self.stream.write_all(&self.out);
        self.out.clear();
    }

    /// The body of the next message of this tag.
    fn receive(&mut self, tag: u8) -> Vec<u8> {
        loop {
            if let Some(header) = frame::frontend_header(&self.received).expect("psql frames well")
                && self.received.len() >= header.len
            {
                let bytes: Vec<u8> = self.received.drain(..header.len).collect();
                assert_eq!(header.tag, tag);
                return Frame { tag, bytes: &bytes }.body().to_vec();
            }
            assert_ne!(self.fill(), 0, "psql left");
        }
    }

    /// Answers requests for encryption until the startup packet is there; returns the user.
    fn start(&mut self) -> Vec<u8> {
        loop {
            let taken = match Initial::parse(&self.received).expect("psql starts well") {
                None => {
                    assert_ne!(self.fill(), 0, "psql left");
                    continue;
                }
                Some((Initial::Startup(startup), _)) => {
                    assert_eq!(startup.negotiation(VERSION_MINOR_LATEST), None);
                    assert_eq!(startup.database, b"shop");
                    let user = startup.user.to_vec();
                    self.received.clear();
                    return user;
                }
                Some((Initial::SslRequest | Initial::GssEncRequest, taken)) => taken,
                Some(other) => panic!("{other:?}"),
            };
            self.received.drain(..taken);
            self.out.push(b'N');
            self.flush();
        }
    }

    fn authenticate(&mut self, stored: &Stored) -> Result<(), Error> {
        match stored {
            Stored::Md5(secret) => {
                write::authentication_md5_password(&mut self.out, [1, 2, 3, 4]);
                self.flush();
                let body = self.receive(b'p');
                let is_right = secret.check([1, 2, 3, 4], PasswordMessage::parse(&body)?.password);
                is_right.then_some(()).ok_or(Error::ScramProof)
            }
            Stored::Scram(verifier) => {
                let binding = ServerBinding::None;
                write::authentication_sasl(&mut self.out, binding.mechanisms());
                self.flush();
                let body = self.receive(b'p');
                let chosen = SaslInitialResponse::parse(&body)?;
                let first = chosen.initial.expect("libpq sends it at once");
                let server = Server::start(verifier, binding, chosen.mechanism, first, &[5; NONCE_BYTES])?;
                write::authentication_sasl_continue(&mut self.out, server.challenge());
                self.flush();
                let accepted = server.finish(SaslResponse::parse(&self.receive(b'p')).message)?;
                assert!(accepted.keys.fit(verifier));
                write::authentication_sasl_final(&mut self.out, &accepted.message);
                Ok(())
            }
        }
    }

    fn serve(&mut self, stored: &Stored) {
        let user = self.start();
        if let Err(error) = self.authenticate(stored) {
            write::Report::fatal(error.sqlstate(), &error.to_string()).append_error(&mut self.out);
            return self.flush();
        }
        write::authentication_ok(&mut self.out);
        write::parameter_status(&mut self.out, b"server_version", b"18.0");
        write::parameter_status(&mut self.out, b"client_encoding", b"UTF8");
        write::backend_key_data(&mut self.out, 7, b"keys");
        write::ready_for_query(&mut self.out, TransactionStatus::Idle);
        self.flush();
        let body = self.receive(b'Q');
        assert_eq!(Query::parse(&body), Ok(Query { sql: b"TABLE made_up" }));
        let column = |name| Column {
            name,
            table_oid: 0,
            attribute: 0,
            type_oid: 25,
            type_len: -1,
            type_modifier: -1,
            format: Format::Text,
        };
        write::row_description(&mut self.out, [column(b"user"), column(b"none")]);
        write::data_row(&mut self.out, [Some(&user[..]), None]);
        write::data_row(&mut self.out, [Some(&b"two"[..]), Some(b"")]);
        write::Report::new(write::Severity::Notice, sqlstate::WARNING, "mind the gap")
            .with_hint("Jump.")
            .append_notice(&mut self.out);
        write::command_complete(&mut self.out, b"SELECT 2");
        write::ready_for_query(&mut self.out, TransactionStatus::Idle);
        self.flush();
        self.receive(b'X');
    }
}

/// Runs psql with this password against a server that stores this.
fn psql(stored: &Stored, password: &str) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let bin = Install::find().expect("PostgreSQL is installed").bin;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().expect("psql comes");
            stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
            Session { stream, received: Vec::new(), out: Vec::new() }.serve(stored);
        });
        let mut psql = Command::new(bin.join("psql"));
        psql.args([
            "-X",
            "-w",
            "-A",
            "-t",
            "-P",
            "null=(null)",
            "-h",
            "127.0.0.1",
            "-U",
            "ann",
            "-d",
            "shop",
        ]);
        psql.args(["-p", &port.to_string(), "-c", "TABLE made_up"]);
        psql.env("PGPASSWORD", password).output().expect("psql runs")
    })
}

fn check(stored: &Stored) {
    let output = psql(stored, "open sesame");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ann|(null)\ntwo|\n");
    assert_eq!(said, "NOTICE:  mind the gap\nHINT:  Jump.\n");
    let output = psql(stored, "close sesame");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("FATAL:  password authentication failed"), "{said}");
}

#[test]
fn psql_logs_in_by_scram() {
    check(&Stored::Scram(Verifier::derive(b"open sesame", b"some salt", 4096)));
    let mock = Stored::Scram(Verifier::mock(b"ann", &[3; 32], 4096));
    assert!(!psql(&mock, "open sesame").status.success());
}

#[test]
fn psql_logs_in_by_md5() {
    check(&Stored::Md5(Md5Secret::derive(b"ann", b"open sesame")));
}
