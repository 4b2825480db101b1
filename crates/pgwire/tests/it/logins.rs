//! Logins to a real PostgreSQL: by SCRAM, by md5, in clear, and with keys that only passed through us.

use tenfold_pgwire::backend::{NegotiateProtocolVersion, ParameterStatus};
use tenfold_pgwire::frame::backend as tag;
use tenfold_pgwire::md5::Md5Secret;
use tenfold_pgwire::scram::{
    Client, ClientBinding, NONCE_BYTES, SALT_BYTES, SHA_256, SaltedPassword, Server, ServerBinding, Verifier,
};
use tenfold_testkit::postgres::{Auth, Cluster, Options};

use crate::connection::{Connection, Message, Proof, trusting};

const PASSWORD: &str = "superuser";

/// A cluster whose every user comes in by the method its stored secret allows, but `clear` in clear.
fn cluster() -> Cluster {
    let auth = Auth::Scram { password: PASSWORD.into() };
    let cluster = Cluster::start(&Options { auth, ..Options::default() }).expect("PostgreSQL starts");
    let rules = "host all clear 127.0.0.1/32 password\nhost all all 127.0.0.1/32 md5";
    let file = cluster.psql("SHOW hba_file").expect("it says");
    let write = format!("COPY (SELECT unnest(string_to_array('{rules}', E'\\n'))) TO '{file}'");
    cluster.psql(&write).expect("a superuser may");
    cluster.psql("SELECT pg_reload_conf()").expect("a superuser may");
    cluster
}

fn login(cluster: &Cluster, user: &str, proof: Proof<'_>) -> Result<Connection, Message> {
    let params: [(&[u8], &[u8]); 2] = [(b"user", user.as_bytes()), (b"database", b"postgres")];
    Connection::login(cluster.primary().port(), 0, &params, proof)
}

/// The user comes in with this password by this method, and not with another.
fn check(cluster: &Cluster, user: &str, password: &str, method: &str) {
    let mut connection =
        login(cluster, user, Proof::Password(password)).unwrap_or_else(|error| panic!("{user} {error:?}"));
    assert_eq!(connection.asked, [method], "{user}");
    assert_eq!(connection.query("SELECT current_user")[1].first_column(), user);
    let refused = login(cluster, user, Proof::Password("wrong")).err().expect("refused");
    assert_eq!(refused.code(), "28P01", "{user}");
}

#[test]
fn every_method_and_every_stored_form_agrees_with_postgresql() {
    let cluster = cluster();
    let salt = [9; SALT_BYTES];
    let german = "Stra\u{df}e \u{2168}\u{ad}";
    cluster
        .psql(&format!(
            "CREATE ROLE theirs LOGIN PASSWORD 'pencil';
             CREATE ROLE ours LOGIN PASSWORD '{}';
             CREATE ROLE prepared LOGIN PASSWORD '{german}';
             CREATE ROLE hashed LOGIN PASSWORD '{}';
             CREATE ROLE clear LOGIN PASSWORD 'in clear';
             SET password_encryption = md5;
             CREATE ROLE old LOGIN PASSWORD 'older'",
            Verifier::derive(b"stapler", &salt, 1000),
            Md5Secret::derive(b"hashed", b"salted"),
        ))
        .expect("roles");
    check(&cluster, "theirs", "pencil", "scram");
    check(&cluster, "ours", "stapler", "scram");
    check(&cluster, "prepared", german, "scram");
    check(&cluster, "prepared", "Stra\u{df}e IX", "scram");
    check(&cluster, "hashed", "salted", "md5");
    check(&cluster, "old", "older", "md5");
    check(&cluster, "clear", "in clear", "password");

    let stored = |user: &str| {
        cluster
            .psql(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'"))
            .expect("a secret")
    };
    let theirs = Verifier::parse(stored("theirs").as_bytes()).expect("PostgreSQL's own");
    assert_eq!(theirs, Verifier::derive(b"pencil", theirs.salt(), theirs.iterations()));
    assert_eq!(stored("old"), Md5Secret::derive(b"old", b"older").to_string());
    keys_pass_through(&cluster, &theirs);
}

/// A client proves itself to us; with what that reveals we log in to the server, without ever knowing the password.
fn keys_pass_through(cluster: &Cluster, verifier: &Verifier) {
    let client = Client::start(ClientBinding::Unsupported, &[1; NONCE_BYTES]);
    let offered = ServerBinding::None;
    let server = Server::start(verifier, offered, SHA_256.as_bytes(), client.message(), &[2; NONCE_BYTES]);
    let server = server.expect("a good message");
    let challenge = client.challenge(server.challenge()).expect("a good challenge");
    let salted = SaltedPassword::derive(b"pencil", challenge.salt(), challenge.iterations());
    let response = challenge.respond(&salted.keys());
    let accepted = server.finish(response.message()).expect("a good proof");
    let mut passed = login(cluster, "theirs", Proof::Keys(&accepted.keys)).expect("the same verifier");
    assert_eq!(passed.query("SELECT current_user")[1].first_column(), "theirs");
    let elsewhere = login(cluster, "ours", Proof::Keys(&accepted.keys)).err().expect("another salt");
    assert_eq!(elsewhere.code(), "28P01");
}

#[test]
fn startup_parameters_reach_the_server_as_they_were_meant() {
    let cluster = trusting();
    let mut options = Vec::new();
    tenfold_pgwire::startup::options::append(&mut options, b"search_path", br#""a b", \c"#);
    tenfold_pgwire::startup::options::append(&mut options, b"work-mem", b"1MB");
    let params: [(&[u8], &[u8]); 5] = [
        (b"user", b"postgres"),
        (b"options", &options),
        (b"application_name", b"it"),
        (b"_pq_.unknown", b"1"),
        (b"DateStyle", b"German"),
    ];
    let mut connection =
        Connection::login(cluster.primary().port(), 9999, &params, Proof::Password("")).expect("trusted");
    assert_eq!(connection.query("SHOW search_path")[1].first_column(), r#""a b", \c"#);
    assert_eq!(connection.query("SHOW work_mem")[1].first_column(), "1MB");
    let negotiation =
        connection.greetings.iter().find(|message| message.tag == tag::NEGOTIATE_PROTOCOL_VERSION);
    let negotiation =
        NegotiateProtocolVersion::parse(&negotiation.expect("9999 is too new").body).expect("good");
    assert_eq!(negotiation.options().collect::<Vec<_>>(), [b"_pq_.unknown"]);
    let statuses: Vec<_> = connection
        .greetings
        .iter()
        .filter(|message| message.tag == tag::PARAMETER_STATUS)
        .map(|message| ParameterStatus::parse(&message.body).expect("good"))
        .collect();
    let status = |name: &[u8]| statuses.iter().find(|status| status.name == name).map(|status| status.value);
    assert_eq!(status(b"application_name"), Some(&b"it"[..]));
    assert_eq!(status(b"DateStyle"), Some(&b"German, DMY"[..]));
    assert_eq!((connection.key.len(), connection.process_id > 0), (4, true));

    let refused = |params: &[(&[u8], &[u8])]| {
        Connection::login(cluster.primary().port(), 0, params, Proof::Password("")).err().expect("refused")
    };
    assert_eq!(refused(&[(b"user", b"")]).code(), "28000");
    assert_eq!(refused(&[(b"user", b"postgres"), (b"replication", b"maybe")]).code(), "22023");
    assert_eq!(refused(&[(b"user", b"postgres"), (b"database", b"nowhere")]).code(), "3D000");
}
