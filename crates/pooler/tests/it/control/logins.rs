//! Logins at a real server: every method, every kind of secret, with TLS and without.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tenfold_pgwire::{md5::Md5Secret, scram::SaltedPassword};
use tenfold_pooler::{
    auth::{
        ClientFacts, Credential, FailureKind, Login, LoginSeeds, ServerLogin, ServerSecret, ServerStep, Step,
    },
    config::{AuthMethod, Password, ServerTls, TlsMode},
    control::{Address, Client, Endpoint, Entrance, Error},
};
use tenfold_testkit::{
    postgres::{Cluster, Options, Tls},
    tls::Authority,
};

use super::{LIMIT, block, password, salter};

const HBA: &str = "\
host all postgres 127.0.0.1/32 trust
host all clear all password
host all hashed all md5
hostnossl all scrambled all scram-sha-256
hostssl all scrambled all scram-sha-256
hostssl all certified all cert
hostssl all tls_only all scram-sha-256
hostnossl all plain_only all scram-sha-256
local all all trust
";

struct Guarded {
    cluster: Cluster,
    authority: Authority,
}

/// A server with a rule for each method.
fn guarded() -> &'static Guarded {
    static GUARDED: OnceLock<Guarded> = OnceLock::new();
    GUARDED.get_or_init(|| {
        let authority = Authority::new("tests");
        let identity = authority.server(&["localhost"]);
        let tls = Tls { identity, client_ca: Some(authority.certificate().to_owned()) };
        let options = Options { tls: Some(tls), hba: Some(HBA.into()), ..Options::default() };
        let cluster = Cluster::start(&options).unwrap();
        cluster
            .psql(
                "SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN PASSWORD 'pencil'; \
                 SET password_encryption = 'scram-sha-256'; CREATE ROLE clear LOGIN PASSWORD 'pencil'; \
                 CREATE ROLE scrambled LOGIN PASSWORD 'pencil'; CREATE ROLE certified LOGIN; \
                 CREATE ROLE tls_only LOGIN PASSWORD 'pencil'; CREATE ROLE plain_only LOGIN PASSWORD 'pencil'",
            )
            .unwrap();
        Guarded { cluster, authority }
    })
}

fn address() -> Address {
    let at = format!("127.0.0.1:{}", guarded().cluster.primary().port()).parse().unwrap();
    Address { host: 0, name: "localhost".into(), at: Endpoint::Tcp(at) }
}

fn tls(mode: TlsMode, authority: &Authority, certificate: Option<&str>) -> ServerTls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let identity = authority.client(name);
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.collect::<Result<_, _>>().unwrap(), key).unwrap()
        }
    };
    ServerTls { mode, config: Some(Arc::new(config)), ..ServerTls::none() }
}

fn plain() -> ServerTls {
    ServerTls::none()
}

fn enter(user: &str, secret: ServerSecret, tls: ServerTls) -> Result<Client, Error> {
    let entrance = Entrance { user: user.into(), dbname: "postgres".into(), secret, tls, limit: LIMIT };
    block(Client::connect(&address(), &entrance, &salter()))
}

/// Who we are, and whether encrypted, in the server's words.
fn session(user: &str, secret: ServerSecret, tls: ServerTls) -> Result<(String, String), Error> {
    block(async {
        let entrance = Entrance { user: user.into(), dbname: "postgres".into(), secret, tls, limit: LIMIT };
        let mut client = Client::connect(&address(), &entrance, &salter()).await?;
        let sql = "SELECT current_user, ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let rows = client.rows(sql).await?;
        let mut columns = rows.into_iter().next().unwrap().into_iter().flatten();
        Ok((columns.next().unwrap(), columns.next().unwrap()))
    })
}

fn kind(result: Result<Client, Error>) -> Option<FailureKind> {
    match result {
        Ok(_) => None,
        Err(Error::Server { kind, .. }) => Some(kind),
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn every_method_takes_the_secrets_it_can() {
    let md5 = |user: &str| ServerSecret::Md5(Md5Secret::derive(user.as_bytes(), b"pencil"));
    let refused = Some(FailureKind::Authentication);
    for (user, secret, expected) in [
        ("postgres", ServerSecret::None, None),
        ("clear", password("pencil"), None),
        ("clear", password("pen"), refused),
        ("clear", ServerSecret::None, refused),
        ("clear", md5("clear"), refused),
        ("hashed", password("pencil"), None),
        ("hashed", password("pen"), refused),
        ("hashed", md5("hashed"), None),
        ("hashed", md5("other"), refused),
        ("scrambled", password("pencil"), None),
        ("scrambled", password("pen"), refused),
        ("scrambled", md5("scrambled"), refused),
        ("scrambled", ServerSecret::None, refused),
        ("nobody", password("pencil"), refused),
    ] {
        assert_eq!(kind(enter(user, secret.clone(), plain())), expected, "{user} {secret:?}");
    }
}

#[test]
fn tls_is_used_as_the_mode_says() {
    let authority = &guarded().authority;
    let stranger = Authority::new("stranger");
    let check = |user: &str, tls: ServerTls, encrypted: Option<bool>| {
        let mode = tls.mode;
        let found = session(user, password("pencil"), tls);
        assert_eq!(found.as_ref().ok().map(|(_, ssl)| ssl == "true"), encrypted, "{mode:?} {user} {found:?}");
    };
    for (mode, both, tls_only, plain_only) in [
        (TlsMode::Disable, Some(false), None, Some(false)),
        (TlsMode::Allow, Some(false), Some(true), Some(false)),
        (TlsMode::Prefer, Some(true), Some(true), Some(false)),
        (TlsMode::Require, Some(true), Some(true), None),
        (TlsMode::VerifyFull, Some(true), Some(true), None),
    ] {
        check("scrambled", tls(mode, authority, None), both);
        check("tls_only", tls(mode, authority, None), tls_only);
        check("plain_only", tls(mode, authority, None), plain_only);
    }
    let error = enter("scrambled", password("pencil"), tls(TlsMode::VerifyFull, &stranger, None));
    assert!(matches!(error, Err(Error::Tls(_))), "{error:?}");
    // A certificate nobody believes: prefer goes on in plain text, as in libpq.
    check("scrambled", tls(TlsMode::Prefer, &stranger, None), Some(false));
}

#[test]
fn our_certificate_proves_who_we_are() {
    let authority = &guarded().authority;
    let enter = |name| {
        let tls = tls(TlsMode::VerifyFull, authority, name);
        session("certified", ServerSecret::None, tls).map(|(user, _)| user).ok()
    };
    assert_eq!(enter(Some("certified")).as_deref(), Some("certified"));
    assert_eq!(enter(Some("someone")), None);
    assert_eq!(enter(None), None);
}

#[test]
fn scram_is_bound_to_the_channel() {
    // The server offers -PLUS over TLS, so a client that can bind and does not would be refused as downgraded.
    let found = session("tls_only", password("pencil"), tls(TlsMode::VerifyFull, &guarded().authority, None));
    assert_eq!(found.unwrap(), ("tls_only".into(), "true".into()));
}

#[test]
fn keys_that_a_client_showed_log_in_for_it() {
    let stored =
        guarded().cluster.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scrambled'").unwrap();
    let credential = Arc::new(Credential::new("scrambled".into(), Some(Password::new(&stored))));
    assert!(matches!(credential.server_secret(), ServerSecret::None));
    assert_eq!(
        kind(enter("scrambled", credential.server_secret(), plain())),
        Some(FailureKind::Authentication)
    );
    log_in(&credential, "pencil");
    assert!(matches!(credential.server_secret(), ServerSecret::Scram(_)));
    for tls in [plain(), tls(TlsMode::Require, &guarded().authority, None)] {
        assert_eq!(kind(enter("scrambled", credential.server_secret(), tls)), None);
    }
    let other = SaltedPassword::derive(b"pencil", b"another salt", 4_096).keys();
    let other = ServerSecret::Scram(Arc::new(other));
    assert_eq!(kind(enter("scrambled", other, plain())), Some(FailureKind::Authentication));
}

/// A client of ours logs in at the pooler by SCRAM.
fn log_in(credential: &Arc<Credential>, with: &str) {
    let seeds = LoginSeeds { nonce: [1; 18], salt_seed: [2; 16] };
    let facts = ClientFacts {
        user: Arc::clone(credential.user()),
        database: "shop".into(),
        addr: None,
        unix_peer: None,
        tls: None,
        replication: false,
    };
    let mut client =
        ServerLogin::new(Arc::clone(credential.user()), "shop", &[], password(with), [3; 18], Arc::default());
    let (mut to_client, mut to_us) = (Vec::new(), Vec::new());
    let (mut login, mut step) =
        Login::begin(facts, AuthMethod::ScramSha256, Some(Arc::clone(credential)), seeds, &mut to_client);
    while !matches!(step, Step::Done(_)) {
        assert!(matches!(step, Step::Continue), "{step:?}");
        for frame in tenfold_pgwire::frame::Frames::new(&std::mem::take(&mut to_client)) {
            let frame = frame.unwrap();
            if let ServerStep::Derive(derivation) = client.message(frame.tag, frame.body(), &mut to_us) {
                let _ = client.derived(&derivation.run(), &mut to_us);
            }
        }
        let answer = std::mem::take(&mut to_us);
        let frame = tenfold_pgwire::frame::Frames::of_frontend(&answer).next().unwrap().unwrap();
        step = login.message(frame.tag, frame.body(), &mut to_client);
    }
}

#[test]
fn a_database_that_is_not_there_is_told_apart() {
    let entrance = |dbname: &str| Entrance {
        user: "postgres".into(),
        dbname: dbname.into(),
        secret: ServerSecret::None,
        tls: plain(),
        limit: LIMIT,
    };
    let result = block(Client::connect(&address(), &entrance("nowhere"), &salter()));
    assert_eq!(kind(result), Some(FailureKind::NoDatabase));
}

#[test]
fn a_server_that_stays_silent_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Endpoint::Tcp(listener.local_addr().unwrap());
    let silent = Address { host: 0, name: "localhost".into(), at };
    let entrance = Entrance {
        user: "postgres".into(),
        dbname: "postgres".into(),
        secret: ServerSecret::None,
        tls: plain(),
        limit: std::time::Duration::from_millis(50),
    };
    let result = block(Client::connect(&silent, &entrance, &salter()));
    assert!(matches!(result, Err(Error::TimedOut(_))), "{result:?}");
}

#[test]
fn queries_give_rows_errors_and_notifications() {
    block(async {
        let entrance = Entrance {
            user: "postgres".into(),
            dbname: "postgres".into(),
            secret: ServerSecret::None,
            tls: plain(),
            limit: LIMIT,
        };
        let mut client = Client::connect(&address(), &entrance, &salter()).await.unwrap();
        assert_ne!(client.ready().process_id, 0);
        let rows = client.rows("SELECT 1, NULL UNION ALL SELECT 2, 'x' ORDER BY 1").await.unwrap();
        assert_eq!(
            rows,
            [vec![Some("1".to_owned()), None], vec![Some("2".to_owned()), Some("x".to_owned())]]
        );
        let error = client.rows("SELECT 1/0").await.unwrap_err();
        assert!(error.is_of_statement() && error.to_string().contains("division by zero"), "{error:?}");
        let bound = client.bound("SELECT $1 || '!'", &["it's \"; DROP"]).await.unwrap();
        assert_eq!(bound, [[Some("it's \"; DROP!".to_owned())]]);
        assert!(client.bound("SELECT $1::int", &["x"]).await.unwrap_err().is_of_statement());
        // One that comes with a query's answer is kept, one that comes later is waited for.
        client.rows("LISTEN a; NOTIFY a, 'first'").await.unwrap();
        client.rows("SELECT 1").await.unwrap();
        let message = client.notification().await.unwrap();
        assert!(message.ends_with(b"a\0first\0"), "{message:?}");
        client.rows("NOTIFY a, 'second'").await.unwrap();
        assert!(client.notification().await.unwrap().ends_with(b"a\0second\0"));
        let fatal = client.rows("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
        assert!(!fatal.is_of_statement(), "{fatal:?}");
    });
}

#[test]
fn unix_sockets_are_never_encrypted() {
    let server = guarded().cluster.primary();
    let Some(folder) = server.socket_folder() else { return };
    let at = Endpoint::Unix(folder.join(format!(".s.PGSQL.{}", server.port())));
    let address = Address { host: 0, name: "socket".into(), at };
    let entrance = Entrance {
        user: "postgres".into(),
        dbname: "postgres".into(),
        secret: ServerSecret::None,
        tls: tls(TlsMode::VerifyFull, &guarded().authority, None),
        limit: LIMIT,
    };
    block(async {
        let mut client = Client::connect(&address, &entrance, &salter()).await.unwrap();
        let rows = client.rows("SELECT inet_client_addr() IS NULL").await.unwrap();
        assert_eq!(rows, [[Some("t".to_owned())]]);
    });
}
