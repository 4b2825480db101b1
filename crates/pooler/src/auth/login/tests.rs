//! Logins of clients: what each method makes of each kind of secret, with our own other end as the client.

use proptest::prelude::*;
use tenfold_pgwire::{
    backend,
    frame::{Frames, backend as tag},
    scram::Verifier,
};

use super::*;
use crate::{
    auth::{SaltedCache, ServerLogin, ServerSecret, ServerStep},
    config::Password,
};

const SEEDS: LoginSeeds = LoginSeeds { nonce: *b"eighteen bytes it ", salt_seed: *b"0123456789abcdef" };
const END_POINT: &[u8] = b"hash of the certificate";

fn facts(tls: Option<TlsFacts>) -> ClientFacts {
    let addr = Some("127.0.0.1:5000".parse().unwrap());
    ClientFacts {
        user: "ann".into(),
        database: "shop".into(),
        addr,
        unix_peer: None,
        tls,
        replication: false,
    }
}

fn encrypted() -> Option<TlsFacts> {
    Some(TlsFacts { end_point: Some(END_POINT.into()), ..TlsFacts::default() })
}

fn credential(stored: &str) -> Arc<Credential> {
    Arc::new(Credential::new("ann".into(), Some(Password::new(stored))))
}

fn verifier() -> String {
    Verifier::derive(b"pencil", b"some salt", 2).to_string()
}

fn md5() -> String {
    Md5Secret::derive(b"ann", b"pencil").to_string()
}

/// How a login ended: who is in, or the text, the SQLSTATE and what the log says.
#[derive(Debug)]
enum End {
    In(Arc<Credential>),
    Out { message: String, code: String, denial: Denial },
}

/// Tags of what we sent, with the kind of authentication request.
type Sent = Vec<u32>;

fn error_of(out: &[u8]) -> (String, String) {
    let last = Frames::new(out).last().unwrap().unwrap();
    assert_eq!(last.tag, tag::ERROR_RESPONSE);
    let report = backend::Report::parse(last.body()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(report.is_fatal());
    (text(report.message()), report.sqlstate().unwrap().to_string())
}

/// Holds a login with our own client side, which has `secret`.
fn play(
    method: AuthMethod,
    known: Option<Arc<Credential>>,
    secret: ServerSecret,
    tls: Option<TlsFacts>,
) -> (End, Sent) {
    let end_point = tls.as_ref().and_then(|tls| tls.end_point.clone());
    let salted = Arc::new(SaltedCache::default());
    let mut client =
        ServerLogin::new("ann".into(), "shop", &[], secret, [7; 18], salted).with_end_point(end_point);
    let (mut to_client, mut to_us, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    let (mut login, mut step) = Login::begin(facts(tls), method, known, SEEDS, &mut to_client);
    loop {
        match step {
            Step::Derive(derivation) => {
                step = login.derived(&derivation.run(), &mut to_client);
                continue;
            }
            Step::Done(Authenticated { credential }) => return (End::In(credential), sent),
            Step::Refused(denial) => {
                let (message, code) = error_of(&to_client);
                return (End::Out { message, code, denial }, sent);
            }
            Step::Continue => {}
        }
        for frame in Frames::new(&std::mem::take(&mut to_client)) {
            let frame = frame.unwrap();
            sent.push(u32::from_be_bytes(frame.body()[..4].try_into().unwrap()));
            match client.message(frame.tag, frame.body(), &mut to_us) {
                ServerStep::Derive(derivation) => {
                    let salted = derivation.run();
                    assert!(matches!(client.derived(&salted, &mut to_us), ServerStep::Continue));
                }
                ServerStep::Continue => {}
                other => panic!("{other:?}"),
            }
        }
        let answer = std::mem::take(&mut to_us);
        let frame = Frames::of_frontend(&answer).next().unwrap().unwrap();
        step = login.message(frame.tag, frame.body(), &mut to_client);
    }
}

fn with(password: &str) -> ServerSecret {
    ServerSecret::Password(Password::new(password))
}

const METHODS: [AuthMethod; 3] = [AuthMethod::Password, AuthMethod::Md5, AuthMethod::ScramSha256];

#[test]
fn each_method_takes_each_secret_it_can() {
    let (md5, verifier) = (md5(), verifier());
    // The requests sent: 3 clear, 5 md5, 10 and 11 SCRAM.
    for (method, stored, possible, requests) in [
        (AuthMethod::Password, "pencil", true, &[3][..]),
        (AuthMethod::Password, &md5, true, &[3]),
        (AuthMethod::Password, &verifier, true, &[3]),
        (AuthMethod::Md5, "pencil", true, &[5]),
        (AuthMethod::Md5, &md5, true, &[5]),
        (AuthMethod::Md5, &verifier, true, &[10, 11]),
        (AuthMethod::ScramSha256, "pencil", true, &[10, 11]),
        (AuthMethod::ScramSha256, &md5, false, &[10, 11]),
        (AuthMethod::ScramSha256, &verifier, true, &[10, 11]),
    ] {
        for tls in [None, encrypted()] {
            let (end, sent) = play(method, Some(credential(stored)), with("pencil"), tls.clone());
            assert_eq!(matches!(end, End::In(_)), possible, "{method:?} {stored} {end:?}");
            assert_eq!(sent, requests, "{method:?} {stored}");
            let (end, sent) = play(method, Some(credential(stored)), with("wrong"), tls);
            assert!(matches!(end, End::Out { .. }), "{method:?} {stored}");
            assert_eq!(sent, requests, "{method:?} {stored}");
        }
    }
}

#[test]
fn a_wrong_password_reads_like_an_unknown_user() {
    let (md5, verifier) = (md5(), verifier());
    for method in METHODS {
        let known =
            ["pencil", &md5, &verifier, "", "SCRAM-SHA-256$4096:cut"].map(|stored| Some(credential(stored)));
        for known in known.into_iter().chain([None]) {
            let expected = match &known {
                None => "no such user",
                Some(known) => match (known.secret(), method) {
                    (Secret::None, _) => "the user has no password",
                    (Secret::Damaged, _) => "the stored secret is damaged",
                    (Secret::Md5(_), AuthMethod::ScramSha256) => "an md5 secret can't be used with SCRAM",
                    _ => "wrong password",
                },
            };
            let (end, _) = play(method, known, with("wrong"), None);
            let End::Out { message, code, denial } = end else { panic!("{method:?} {end:?}") };
            assert_eq!(message, "password authentication failed for user \"ann\"");
            assert_eq!((code.as_str(), denial.refusal), ("28P01", Refusal::Authentication));
            assert_eq!(denial.detail, expected, "{method:?}");
        }
    }
}

#[test]
fn trust_lets_in_whom_it_knows() {
    let (end, sent) = play(AuthMethod::Trust, Some(credential("")), ServerSecret::None, None);
    assert!(matches!(end, End::In(_)) && sent.is_empty());
    let (end, _) = play(AuthMethod::Trust, None, ServerSecret::None, None);
    let End::Out { message, code, .. } = end else { panic!("{end:?}") };
    assert_eq!(
        (message.as_str(), code.as_str()),
        ("password authentication failed for user \"ann\"", "28P01")
    );
}

#[test]
fn a_certificate_counts_if_it_is_verified_and_for_the_user() {
    let certificate = |verified, name: Option<&str>| {
        let peer_common_name = name.map(Into::into);
        Some(TlsFacts { peer_common_name, peer_verified: verified, end_point: None })
    };
    let check = |tls, known: bool, expected: Option<&str>| {
        let known = known.then(|| credential(""));
        match (play(AuthMethod::Cert, known, ServerSecret::None, tls).0, expected) {
            (End::In(_), None) => {}
            (End::Out { message, code, denial }, Some(expected)) => {
                assert_eq!(message, "certificate authentication failed for user \"ann\"");
                assert_eq!((code.as_str(), denial.detail.as_str()), ("28000", expected));
            }
            other => panic!("{other:?}"),
        }
    };
    check(certificate(true, Some("ann")), true, None);
    check(certificate(true, Some("ann")), false, Some("no such user"));
    check(certificate(true, Some("Ann")), true, Some("the certificate is for \"Ann\""));
    check(certificate(true, None), true, Some("the certificate has no common name"));
    check(certificate(false, Some("ann")), true, Some("no certificate of a known authority"));
    check(None, true, Some("the connection is not encrypted"));
}

#[test]
fn a_peer_counts_if_it_has_the_users_name() {
    let check = |unix_peer: Option<UnixPeer>, known: bool, expected: Option<&str>| {
        let facts = ClientFacts { addr: None, unix_peer, ..facts(None) };
        let mut out = Vec::new();
        let (_, step) = Login::begin(facts, AuthMethod::Peer, known.then(|| credential("")), SEEDS, &mut out);
        match (step, expected) {
            (Step::Done(_), None) => assert_eq!(out, b"R\0\0\0\x08\0\0\0\0"),
            (Step::Refused(denial), Some(expected)) => {
                assert_eq!(error_of(&out).0, "Peer authentication failed for user \"ann\"");
                assert_eq!(denial.detail, expected);
            }
            other => panic!("{other:?}"),
        }
    };
    let peer = |name: Option<&str>| Some(UnixPeer { uid: 1000, name: name.map(Into::into) });
    check(peer(Some("ann")), true, None);
    check(peer(Some("ann")), false, Some("no such user"));
    check(peer(Some("bob")), true, Some("the process belongs to \"bob\""));
    check(peer(None), true, Some("the process belongs to 1000, who has no name"));
    check(None, true, Some("not a Unix socket"));
}

#[test]
fn logins_leave_what_servers_need() {
    let kind = |method, stored: &str| {
        let (end, _) = play(method, Some(credential(stored)), with("pencil"), None);
        let End::In(credential) = end else { panic!("{end:?}") };
        match credential.server_secret() {
            ServerSecret::None => "none",
            ServerSecret::Password(password) => {
                assert_eq!(password.expose(), "pencil");
                "password"
            }
            ServerSecret::Md5(_) => "md5",
            ServerSecret::Scram(_) => "scram",
        }
    };
    let (md5, verifier) = (md5(), verifier());
    assert_eq!(kind(AuthMethod::Password, &md5), "password");
    assert_eq!(kind(AuthMethod::Password, &verifier), "password");
    assert_eq!(kind(AuthMethod::Md5, &md5), "md5");
    assert_eq!(kind(AuthMethod::Md5, &verifier), "scram");
    assert_eq!(kind(AuthMethod::ScramSha256, &verifier), "scram");
    assert_eq!(kind(AuthMethod::ScramSha256, "pencil"), "password");
}

#[test]
fn keys_a_client_showed_log_in_where_the_same_verifier_is() {
    let known = credential(&verifier());
    assert!(matches!(play(AuthMethod::ScramSha256, Some(known.clone()), with("pencil"), None).0, End::In(_)));
    let passed_on = known.server_secret();
    assert!(matches!(passed_on, ServerSecret::Scram(_)));
    let elsewhere = Some(credential(&verifier()));
    assert!(matches!(play(AuthMethod::ScramSha256, elsewhere, passed_on.clone(), encrypted()).0, End::In(_)));
    let other = Some(credential(&Verifier::derive(b"pencil", b"other salt", 2).to_string()));
    assert!(matches!(play(AuthMethod::ScramSha256, other, passed_on, None).0, End::Out { .. }));
}

#[test]
fn what_was_derived_is_not_derived_again() {
    let derives = |method, known: &Arc<Credential>| {
        let mut out = Vec::new();
        let (mut login, step) = Login::begin(facts(None), method, Some(known.clone()), SEEDS, &mut out);
        let step = match step {
            Step::Continue if method == AuthMethod::Password => {
                login.message(PASSWORD, b"pencil\0", &mut out)
            }
            step => step,
        };
        match step {
            Step::Derive(derivation) => {
                let _ = login.derived(&derivation.run(), &mut out);
                true
            }
            _ => false,
        }
    };
    let plain = credential("pencil");
    assert!(derives(AuthMethod::ScramSha256, &plain));
    assert!(!derives(AuthMethod::ScramSha256, &plain));
    let stored = credential(&verifier());
    assert!(derives(AuthMethod::Password, &stored));
    assert!(!derives(AuthMethod::Password, &stored));
    assert!(!derives(AuthMethod::ScramSha256, &stored));
}

/// Begins with a known user, sends these messages, and expects this error.
fn check_hostile(method: AuthMethod, messages: &[(u8, &[u8])], code: &str, text: &str) {
    for known in [Some(credential(&verifier())), None] {
        let mut out = Vec::new();
        let method =
            if known.is_none() && method == AuthMethod::Md5 { AuthMethod::ScramSha256 } else { method };
        let (mut login, mut step) = Login::begin(facts(encrypted()), method, known, SEEDS, &mut out);
        for (tag, body) in messages {
            assert!(matches!(step, Step::Continue), "{method:?} {messages:?} {step:?}");
            step = login.message(*tag, body, &mut out);
        }
        assert!(matches!(step, Step::Refused(_)), "{method:?} {messages:?} {step:?}");
        let (message, found) = error_of(&out);
        assert_eq!((message.as_str(), found.as_str()), (text, code), "{method:?} {messages:?}");
        // Nothing is taken after the end.
        assert!(matches!(login.message(PASSWORD, b"pencil\0", &mut out), Step::Refused(_)));
    }
}

#[test]
fn hostile_messages_end_the_login() {
    let (clear, scram, violation) = (AuthMethod::Password, AuthMethod::ScramSha256, "08P01");
    check_hostile(clear, &[(b'X', b"")], violation, "expected password response, got message type 88");
    check_hostile(
        clear,
        &[(b'Q', b"SELECT 1\0")],
        violation,
        "expected password response, got message type 81",
    );
    check_hostile(clear, &[(PASSWORD, b"")], violation, "invalid password packet size");
    check_hostile(clear, &[(PASSWORD, b"pencil")], violation, "invalid password packet size");
    check_hostile(clear, &[(PASSWORD, b"pen\0cil\0")], violation, "invalid password packet size");
    check_hostile(clear, &[(PASSWORD, b"\0")], "28P01", "empty password returned by client");
    check_hostile(scram, &[(b'X', b"")], violation, "expected SASL response, got message type 88");
    let bad_choice = "client selected an invalid SASL authentication mechanism";
    check_hostile(scram, &[(PASSWORD, b"SCRAM-SHA-1\0\xff\xff\xff\xff")], violation, bad_choice);
    check_hostile(scram, &[(PASSWORD, b"PLAIN\0\0\0\0\x01x")], violation, bad_choice);
    for body in [&b""[..], b"pencil\0", b"SCRAM-SHA-256", b"SCRAM-SHA-256\0", b"SCRAM-SHA-256\0\0\0\0"] {
        let mut out = Vec::new();
        let known = Some(credential(&verifier()));
        let (mut login, _) = Login::begin(facts(None), scram, known, SEEDS, &mut out);
        assert!(matches!(login.message(PASSWORD, body, &mut out), Step::Refused(_)), "{body:?}");
        assert_eq!(error_of(&out).1, violation, "{body:?}");
    }
    // Lengths that lie: negative, beyond the end, behind it.
    for length in [-2_i32, i32::MIN, 100, i32::MAX] {
        let body = [b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], b"n,,n=,r=abc"].concat();
        let mut out = Vec::new();
        let (mut login, _) = Login::begin(facts(None), scram, None, SEEDS, &mut out);
        assert!(matches!(login.message(PASSWORD, &body, &mut out), Step::Refused(_)), "{length}");
        assert_eq!(error_of(&out).1, violation, "{length}");
    }
    let first: &[u8] = b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc";
    let no_first: &[u8] = b"SCRAM-SHA-256\0\xff\xff\xff\xff";
    let downgrade: &[u8] = b"SCRAM-SHA-256\0\0\0\0\x0by,,n=,r=abc";
    check_hostile(scram, &[(PASSWORD, first), (PASSWORD, b"")], violation, "malformed SCRAM message");
    check_hostile(scram, &[(PASSWORD, first), (PASSWORD, b"p=x")], violation, "malformed SCRAM message");
    check_hostile(scram, &[(PASSWORD, no_first), (PASSWORD, b"")], violation, "malformed SCRAM message");
    check_hostile(scram, &[(PASSWORD, downgrade)], "28000", "SCRAM channel binding negotiation error");
    check_hostile(
        scram,
        &[(PASSWORD, first), (b'd', b"")],
        violation,
        "expected SASL response, got message type 100",
    );
}

#[test]
fn messages_while_something_is_salted_are_refused() {
    let mut out = Vec::new();
    let known = Some(credential("pencil"));
    let (mut login, step) = Login::begin(facts(None), AuthMethod::ScramSha256, known, SEEDS, &mut out);
    let Step::Derive(derivation) = step else { panic!("{step:?}") };
    assert!(matches!(login.message(PASSWORD, b"x\0", &mut out), Step::Refused(_)));
    assert!(matches!(login.derived(&derivation.run(), &mut out), Step::Refused(_)));
}

#[test]
fn a_login_is_small() {
    assert!(size_of::<Login>() <= 1024, "{}", size_of::<Login>());
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_refused(
        method in 0..3_usize,
        stored in 0..4_usize,
        messages in prop::collection::vec(
            (prop_oneof![4 => Just(PASSWORD), 1 => any::<u8>()],
             prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                "(SCRAM-SHA-256|SCRAM-SHA-256-PLUS)\0\0\0\0[\u{0}-\u{20}](n|y|p=tls-server-end-point),,n=,r=[a-z]{0,20}".prop_map(String::into_bytes),
                "c=(biws|eSws),r=[a-zA-Z0-9]{0,40},p=[a-zA-Z0-9+/=]{0,44}".prop_map(String::into_bytes),
             ]),
            0..5,
        ),
    ) {
        let known = ["pencil", &md5(), &verifier()].get(stored).map(|stored| credential(stored));
        let mut out = Vec::new();
        let (mut login, mut step) = Login::begin(facts(encrypted()), METHODS[method], known, SEEDS, &mut out);
        for (tag, body) in messages {
            if let Step::Derive(derivation) = step {
                step = login.derived(&derivation.run(), &mut out);
            }
            if !matches!(step, Step::Continue) {
                break;
            }
            step = login.message(tag, &body, &mut out);
        }
        prop_assert!(!matches!(step, Step::Done(_)), "nobody guesses");
        prop_assert!(Frames::new(&out).all(|frame| frame.is_ok()));
    }
}
