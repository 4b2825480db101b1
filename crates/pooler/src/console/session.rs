//! A session at the console.
//!
//! **Intuition.** Ask, answer, ask again: the simple query protocol and nothing else.
//!
//! **Mechanism.** [`serve`] reads whole messages into one bounded buffer. The statements of a query string are run one
//! after the other; each answer is written before the next is run, so that no string of statements makes us keep more
//! than one table. While a command waits, the stream is watched for its end.
//!
//! **Failure.** See [`super`].

use std::{io, sync::Arc};

use tenfold_pgwire::{
    backend::TransactionStatus,
    frame::{self, Frame, Frames, frontend as tag},
    sqlstate::{self, SqlState},
    write::{self, Report, Severity},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    api::{ConsoleApi, Refused},
    command::{Command, Statement, statements},
    settings, show,
    table::Table,
};

/// A message larger than this ends the session: no command is as long.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1_024;

/// Read at once.
const READ_BYTES: usize = 4 * 1_024;

/// Who is at the console.
#[derive(Clone, Debug)]
pub struct Session {
    /// The user that logged in.
    pub user: Arc<str>,
    /// May command, not only look.
    pub is_admin: bool,
    /// The client's id.
    pub id: u64,
}

/// What a command answers before its CommandComplete.
enum Answer {
    Nothing,
    Table(Table),
    Help,
    Ignored,
    /// It is done but for this.
    Noticed(String),
}

struct Console<'a, S, A> {
    stream: S,
    session: Session,
    api: &'a A,
    /// Read and not yet handled: at most a message and [`READ_BYTES`].
    buffer: Vec<u8>,
    out: Vec<u8>,
    /// After an error in the extended protocol: everything up to Sync is dropped.
    is_skipping: bool,
}

/// Serves a client that is logged in and waits for its first ReadyForQuery, until it leaves.
///
/// # Errors
/// If the stream fails; a client that just goes away is none.
pub async fn serve<S, A>(stream: S, session: Session, api: &A) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: ConsoleApi,
{
    let (buffer, mut out) = (Vec::new(), Vec::new());
    write::ready_for_query(&mut out, TransactionStatus::Idle);
    Console { stream, session, api, buffer, out, is_skipping: false }.run().await
}

impl<S: AsyncRead + AsyncWrite + Unpin, A: ConsoleApi> Console<'_, S, A> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            while let Some(len) = self.whole_message().await? {
                let message: Vec<u8> = self.buffer.drain(..len).collect();
                let Some(Ok(message)) = Frames::new(&message).next() else { return Ok(()) };
                if !self.handle(message).await? {
                    return Ok(());
                }
            }
            self.flush().await?;
            if read_more(&mut self.stream, &mut self.buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// The length of the message the buffer begins with, once it is whole. One that never can be ends the session.
    async fn whole_message(&mut self) -> io::Result<Option<usize>> {
        let error = match frame::frontend_header(&self.buffer) {
            Ok(None) => return Ok(None),
            Ok(Some(header)) if header.len <= MESSAGE_BYTES_MAX => {
                return Ok(Some(header.len).filter(|len| *len <= self.buffer.len()));
            }
            Ok(Some(_)) => "a message larger than the console takes".to_owned(),
            Err(error) => error.to_string(),
        };
        Report::fatal(sqlstate::PROTOCOL_VIOLATION, &error).append_error(&mut self.out);
        self.flush().await?;
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// One message; false if the client said goodbye.
    async fn handle(&mut self, message: Frame<'_>) -> io::Result<bool> {
        match message.tag {
            tag::TERMINATE => return Ok(false),
            tag::SYNC => {
                self.is_skipping = false;
                self.ready();
            }
            tag::QUERY => {
                self.is_skipping = false;
                if self.query(message.body()).await?.is_gone() {
                    return Ok(false);
                }
                self.ready();
            }
            tag::FUNCTION_CALL => {
                self.refuse_protocol();
                self.ready();
            }
            tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE if !self.is_skipping => {
                self.is_skipping = true;
                self.refuse_protocol();
            }
            // FLUSH, COPY's leftovers and what is skipped ask for no answer.
            _ => {}
        }
        Ok(true)
    }

    fn ready(&mut self) {
        write::ready_for_query(&mut self.out, TransactionStatus::Idle);
    }

    fn refuse_protocol(&mut self) {
        let text = "extended query protocol not supported by admin console";
        let hint = "Use the simple query protocol, or your driver's setting for it.";
        Report::error(sqlstate::PROTOCOL_VIOLATION, text).with_hint(hint).append_error(&mut self.out);
    }

    async fn query(&mut self, body: &[u8]) -> io::Result<Presence> {
        let text = String::from_utf8_lossy(body);
        let statements = statements(text.trim_end_matches('\0'));
        if statements.is_empty() {
            write::empty_query_response(&mut self.out);
        }
        for statement in statements {
            let Some(done) = self.statement(&statement).await? else { return Ok(Presence::Gone) };
            if let Err(refused) = done {
                let code = SqlState::parse(refused.sqlstate().as_bytes()).unwrap_or(sqlstate::INTERNAL_ERROR);
                Report::error(code, &refused.to_string()).append_error(&mut self.out);
                break;
            }
            self.flush().await?;
        }
        Ok(Presence::Here)
    }

    /// `None`: the client went away meanwhile.
    async fn statement(&mut self, statement: &Statement) -> io::Result<Option<Result<(), Refused>>> {
        let Some(command) = Command::read(&statement.tokens) else {
            return Ok(Some(Err(Refused::Syntax(statement.text.clone()))));
        };
        let (api, session) = (self.api, self.session.clone());
        let running = run(api, &session, &command, &statement.text);
        tokio::pin!(running);
        let done = loop {
            // Both branches are cancellation safe: the command is pinned outside, and a read that did not happen took
            // nothing. Once the buffer is full nothing is read until the command is done.
            tokio::select! {
                biased;
                done = &mut running => break done,
                read = read_more(&mut self.stream, &mut self.buffer), if self.buffer.len() < MESSAGE_BYTES_MAX => {
                    if read? == 0 {
                        return Ok(None);
                    }
                }
            }
        };
        Ok(Some(done.map(|answer| self.answer(&command, &answer))))
    }

    fn answer(&mut self, command: &Command, answer: &Answer) {
        match answer {
            Answer::Nothing => {}
            Answer::Table(table) => table.write(&mut self.out),
            Answer::Help => Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, "Console usage")
                .with_detail(show::HELP)
                .append_notice(&mut self.out),
            Answer::Ignored => {
                let notice = Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, "SET ignored");
                notice.append_notice(&mut self.out);
                write::command_complete(&mut self.out, b"SET");
                return;
            }
            Answer::Noticed(text) => Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, text)
                .append_notice(&mut self.out),
        }
        write::command_complete(&mut self.out, command.tag().as_bytes());
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
        }
        Ok(())
    }
}

/// Whether the client is still there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    Gone,
}

impl Presence {
    fn is_gone(self) -> bool {
        self == Self::Gone
    }
}

/// Reads what is there; 0 at the end of the stream, also if it was reset.
async fn read_more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.reserve(READ_BYTES);
    match stream.read_buf(buffer).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
        read => read,
    }
}

async fn run<A: ConsoleApi>(
    api: &A,
    session: &Session,
    command: &Command,
    text: &str,
) -> Result<Answer, Refused> {
    match command {
        Command::Show(what, only) => return show_command(api, session, what, only.as_deref(), text).await,
        Command::Set(key, _) if show::session_setting(key).is_some() => return Ok(Answer::Ignored),
        _ if !session.is_admin => return Err(Refused::Rights),
        Command::Set(key, value) => {
            let waits = api.apply(settings::set(&api.config(), key, value)?)?;
            return Ok(waits.map_or(Answer::Nothing, Answer::Noticed));
        }
        Command::Reload => api.reload().await?,
        Command::Pause(database) => api.pause(real(database)?).await?,
        Command::Suspend => api.suspend().await?,
        Command::Resume(database) => api.resume(real(database)?)?,
        Command::Reconnect(database) => api.reconnect(real(database)?)?,
        Command::WaitClose(database) => api.wait_close(real(database)?).await?,
        Command::Enable(enabled, database) => {
            let required = || Refused::Value("a database is required".to_owned());
            api.enable(real(database)?.ok_or_else(required)?, *enabled)?;
        }
        Command::Kill(database) => api.kill(real(database)?)?,
        Command::KillClient(id) => {
            let id = id.as_deref().and_then(|id| id.parse().ok());
            let invalid = || Refused::Value("invalid client pointer supplied".to_owned());
            api.kill_client(id.ok_or_else(invalid)?).await?;
        }
        Command::Shutdown(how) => api.shutdown(*how)?,
    }
    Ok(Answer::Nothing)
}

async fn show_command<A: ConsoleApi>(
    api: &A,
    session: &Session,
    what: &str,
    only: Option<&str>,
    text: &str,
) -> Result<Answer, Refused> {
    let syntax = || Refused::Syntax(text.to_owned());
    if let Some(table) = show::session_setting(what) {
        return Ok(Answer::Table(table));
    }
    match what {
        "help" => return Ok(Answer::Help),
        "config" => {
            let mut table = settings::table(&api.config());
            table.keep("key", only);
            return Ok(Answer::Table(table));
        }
        "fds" if !session.is_admin => return Err(Refused::Rights),
        _ if !show::is_known(what) => return Err(syntax()),
        _ => {}
    }
    let report = api.report().await;
    let averages = api.averages(&report.totals);
    show::table(what, only, &report, &averages).map(Answer::Table).ok_or_else(syntax)
}

/// The console itself is no database to be commanded.
fn real(database: &Option<String>) -> Result<Option<&str>, Refused> {
    match database.as_deref() {
        Some(name) if crate::config::CONSOLE_DATABASES.contains(&name) => {
            Err(Refused::State(format!("cannot do this to the admin database: {name}")))
        }
        name => Ok(name),
    }
}
