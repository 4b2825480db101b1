//! Logins at servers: what a server may say in which order, and what becomes of it.

use proptest::prelude::*;
use tenfold_pgwire::{
    backend::TransactionStatus,
    frame::{Frames, frontend},
    scram::{SHA_256, Server, ServerBinding, Verifier},
    startup::Initial,
};

use super::*;
use crate::config::Password;

fn login(secret: ServerSecret) -> ServerLogin {
    ServerLogin::new("ann".into(), "shop", &[], secret, [7; 18], Arc::default())
}

fn password() -> ServerSecret {
    ServerSecret::Password(Password::new("pencil"))
}

/// A server's messages, written by `fill`.
fn sent(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

/// Feeds all messages; the last step.
fn feed(login: &mut ServerLogin, messages: &[u8], out: &mut Vec<u8>) -> ServerStep {
    let mut last = ServerStep::Continue;
    for frame in Frames::new(messages) {
        assert!(matches!(last, ServerStep::Continue), "{last:?}");
        let frame = frame.unwrap();
        last = login.message(frame.tag, frame.body(), out);
    }
    last
}

fn failure(step: ServerStep) -> (String, FailureKind) {
    let ServerStep::Failed { error, kind } = step else { panic!("{step:?}") };
    let frame = Frames::new(&error).next().unwrap().unwrap();
    assert_eq!((frame.tag, frame.bytes.len()), (tag::ERROR_RESPONSE, error.len()));
    let report = backend::Report::parse(frame.body()).unwrap();
    (String::from_utf8_lossy(report.message()).into_owned(), kind)
}

#[test]
fn the_startup_message_names_user_database_and_settings_once() {
    let params = [("application_name", "x"), ("user", "mallory"), ("TimeZone", "UTC")];
    let params = params.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let login = ServerLogin::new("ann".into(), "shop", &params, ServerSecret::None, [7; 18], Arc::default());
    let packet = sent(|out| login.startup(out));
    let Ok(Some((Initial::Startup(startup), len))) = Initial::parse(&packet) else { panic!("{packet:?}") };
    assert_eq!((len, startup.user, startup.database), (packet.len(), &b"ann"[..], &b"shop"[..]));
    let names: Vec<_> =
        startup.params().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, ["user", "database", "application_name", "TimeZone"]);
}

#[test]
fn what_the_server_reports_is_gathered() {
    let messages = sent(|out| {
        write::authentication_ok(out);
        write::parameter_status(out, b"TimeZone", b"UTC");
        Report::new(write::Severity::Notice, sqlstate::WARNING, "by the way").append_notice(out);
        write::parameter_status(out, b"DateStyle", b"ISO");
        write::parameter_status(out, b"TimeZone", b"Europe/Berlin");
        write::backend_key_data(out, 4711, &[1, 2, 3, 4]);
        write::ready_for_query(out, TransactionStatus::Idle);
    });
    let mut out = Vec::new();
    let step = feed(&mut login(ServerSecret::None), &messages, &mut out);
    let ServerStep::Ready(ready) = step else { panic!("{step:?}") };
    let params: Vec<_> = ready.params.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(params, [("TimeZone", "Europe/Berlin"), ("DateStyle", "ISO")]);
    assert_eq!((ready.process_id, &ready.key[..]), (4711, &[1, 2, 3, 4][..]));
    assert!(out.is_empty());
}

#[test]
fn secrets_that_do_not_serve_a_method_say_so() {
    let md5 = || ServerSecret::Md5(Md5Secret::derive(b"ann", b"pencil"));
    let keys = || ServerSecret::Scram(Arc::new(SaltedPassword::derive(b"pencil", b"s", 1).keys()));
    let clear = sent(write::authentication_cleartext_password);
    let salt = sent(|out| write::authentication_md5_password(out, [1, 2, 3, 4]));
    let sasl = sent(|out| write::authentication_sasl(out, &[SHA_256]));
    let gss = [b"R", &8_u32.to_be_bytes()[..], &7_u32.to_be_bytes()[..]].concat();
    for (request, secret, asked) in [
        (&clear, ServerSecret::None, "asks for a password"),
        (&clear, md5(), "asks for a password"),
        (&clear, keys(), "asks for a password"),
        (&salt, ServerSecret::None, "asks for an md5 password"),
        (&salt, keys(), "asks for an md5 password"),
        (&sasl, ServerSecret::None, "asks for a SCRAM password"),
        (&sasl, md5(), "asks for a SCRAM password"),
        (&gss, password(), "does not speak"),
    ] {
        let mut out = Vec::new();
        let (message, kind) = failure(feed(&mut login(secret), request, &mut out));
        assert!(message.contains(asked) && message.contains("\"ann\""), "{message}");
        assert_eq!(kind, FailureKind::Authentication);
        assert!(out.is_empty(), "nothing was shown");
    }
    for secret in [md5(), password()] {
        let mut out = Vec::new();
        assert!(matches!(feed(&mut login(secret), &salt, &mut out), ServerStep::Continue));
        let expected = Md5Secret::derive(b"ann", b"pencil").response([1, 2, 3, 4]);
        assert_eq!(out, sent(|out| write::password(out, &expected)));
    }
}

#[test]
fn the_servers_error_is_kept_whole() {
    for (code, expected) in [
        (sqlstate::INVALID_PASSWORD, FailureKind::Authentication),
        (sqlstate::INVALID_AUTHORIZATION_SPECIFICATION, FailureKind::Authentication),
        (sqlstate::INVALID_CATALOG_NAME, FailureKind::NoDatabase),
        (sqlstate::TOO_MANY_CONNECTIONS, FailureKind::Unavailable),
        (sqlstate::CANNOT_CONNECT_NOW, FailureKind::Unavailable),
        (sqlstate::INVALID_PARAMETER_VALUE, FailureKind::Refused),
    ] {
        let whole = sent(|out| Report::fatal(code, "no").with_detail("because").append_error(out));
        let step = feed(&mut login(password()), &whole, &mut Vec::new());
        let ServerStep::Failed { error, kind } = step else { panic!("{step:?}") };
        assert_eq!((error, kind), (whole, expected), "{code}");
    }
}

/// Holds the SCRAM exchange up to our proof, with a server that stores this verifier.
fn prove(login: &mut ServerLogin, verifier: &Verifier, out: &mut Vec<u8>) -> Server {
    let sasl = sent(|out| write::authentication_sasl(out, &[SHA_256]));
    assert!(matches!(feed(login, &sasl, out), ServerStep::Continue));
    let first = std::mem::take(out);
    let frame = Frames::of_frontend(&first).next().unwrap().unwrap();
    let initial = tenfold_pgwire::frontend::SaslInitialResponse::parse(frame.body()).unwrap();
    let server =
        Server::start(verifier, ServerBinding::None, initial.mechanism, initial.initial.unwrap(), &[9; 18]);
    let server = server.unwrap();
    let challenge = sent(|out| write::authentication_sasl_continue(out, server.challenge()));
    if let ServerStep::Derive(derivation) = feed(login, &challenge, out) {
        let salted = derivation.run();
        assert!(matches!(login.derived(&salted, out), ServerStep::Continue));
    }
    server
}

#[test]
fn a_server_that_does_not_prove_itself_is_not_believed() {
    let verifier = Verifier::derive(b"pencil", b"salt", 3);
    for hostile in [
        sent(write::authentication_ok),
        sent(|out| write::authentication_sasl_final(out, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        sent(|out| write::authentication_sasl_final(out, b"")),
        sent(|out| write::authentication_sasl_final(out, b"e=other-error")),
        sent(|out| write::authentication_sasl_continue(out, b"r=x,s=AAAA,i=1")),
        sent(write::authentication_cleartext_password),
        sent(|out| write::ready_for_query(out, TransactionStatus::Idle)),
    ] {
        let (mut login, mut out) = (login(password()), Vec::new());
        let _ = prove(&mut login, &verifier, &mut out);
        out.clear();
        let step = feed(&mut login, &hostile, &mut out);
        assert!(matches!(step, ServerStep::Failed { .. }), "{hostile:?} {step:?}");
        assert!(out.is_empty(), "{hostile:?}");
    }
    let (mut login, mut out) = (login(password()), Vec::new());
    let server = prove(&mut login, &verifier, &mut out);
    let frame = Frames::of_frontend(&out).next().unwrap().unwrap();
    assert_eq!(frame.tag, frontend::PASSWORD);
    let accepted = server.finish(frame.body()).unwrap();
    let good = sent(|out| write::authentication_sasl_final(out, &accepted.message));
    assert!(matches!(feed(&mut login, &good, &mut Vec::new()), ServerStep::Continue));
    // Only now.
    assert!(matches!(
        feed(&mut login, &sent(write::authentication_ok), &mut Vec::new()),
        ServerStep::Continue
    ));
}

#[test]
fn a_password_is_salted_once_for_all_logins() {
    let (salted, verifier) = (Arc::new(SaltedCache::default()), Verifier::derive(b"pencil", b"salt", 3));
    let derives = || {
        let mut login = ServerLogin::new("ann".into(), "shop", &[], password(), [7; 18], salted.clone());
        let mut out = Vec::new();
        let sasl = sent(|out| write::authentication_sasl(out, &[SHA_256]));
        assert!(matches!(feed(&mut login, &sasl, &mut out), ServerStep::Continue));
        let frame = Frames::of_frontend(&out).next().unwrap().unwrap();
        let initial = tenfold_pgwire::frontend::SaslInitialResponse::parse(frame.body()).unwrap();
        let none = ServerBinding::None;
        let server = Server::start(&verifier, none, initial.mechanism, initial.initial.unwrap(), &[9; 18]);
        let challenge =
            sent(|out| write::authentication_sasl_continue(out, server.as_ref().unwrap().challenge()));
        match feed(&mut login, &challenge, &mut Vec::new()) {
            ServerStep::Derive(derivation) => {
                let result = derivation.run();
                let _ = login.derived(&result, &mut Vec::new());
                true
            }
            ServerStep::Continue => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(derives());
    assert!(!derives());
}

#[test]
fn reports_without_end_are_given_up() {
    let mut login = login(ServerSecret::None);
    let mut out = Vec::new();
    assert!(matches!(feed(&mut login, &sent(write::authentication_ok), &mut out), ServerStep::Continue));
    let mut failed = None;
    for n in 0..=PARAMS_MAX {
        let body = [b"name", n.to_string().as_bytes(), b"\0value\0"].concat();
        if let ServerStep::Failed { kind, .. } = login.message(tag::PARAMETER_STATUS, &body, &mut out) {
            failed = Some((n, kind));
            break;
        }
    }
    assert_eq!(failed, Some((PARAMS_MAX, FailureKind::Protocol)));
}

proptest! {
    #[test]
    fn any_bytes_from_a_server_are_answered_or_given_up(
        secret in 0..3_usize,
        messages in prop::collection::vec(
            (prop_oneof![prop::sample::select(b"RSKZENv".to_vec()), any::<u8>()],
             prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                (0..13_u32, prop::collection::vec(any::<u8>(), 0..40))
                    .prop_map(|(kind, rest)| [&kind.to_be_bytes()[..], &rest].concat()),
                "r=[a-zA-Z0-9]{0,60},s=[a-zA-Z0-9]{0,12}=?,i=[0-9]{1,9}"
                    .prop_map(|text| [&11_u32.to_be_bytes()[..], text.as_bytes()].concat()),
             ]),
            0..8,
        ),
    ) {
        let keys = SaltedPassword::derive(b"pencil", b"s", 1).keys();
        let secret = [ServerSecret::None, password(), ServerSecret::Scram(Arc::new(keys))][secret].clone();
        let (mut login, mut out) = (login(secret), Vec::new());
        for (tag, body) in messages {
            match login.message(tag, &body, &mut out) {
                ServerStep::Continue => {}
                ServerStep::Derive(_) | ServerStep::Ready(_) => break,
                ServerStep::Failed { error, .. } => {
                    prop_assert!(Frames::new(&error).all(|frame| frame.is_ok()));
                    break;
                }
            }
        }
        prop_assert!(Frames::of_frontend(&out).all(|frame| frame.is_ok()));
    }
}
