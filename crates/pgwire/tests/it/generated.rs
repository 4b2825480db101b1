//! Properties: what is built reads back, and no bytes panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tenfold_pgwire::backend::{Column, DataRow, RowDescription};
use tenfold_pgwire::frame::{Frames, HEADER_BYTES};
use tenfold_pgwire::frontend::{Bind, Format, Parse};
use tenfold_pgwire::scram::{
    Client, ClientBinding, NONCE_BYTES, SaltedPassword, Server, ServerBinding, Verifier,
};
use tenfold_pgwire::write;

use crate::{properties, scram_properties};

/// Bytes of a string: anything but NUL.
fn string() -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8.., 0..20)
}

fn format() -> impl Strategy<Value = Format> {
    any::<i16>().prop_map(Format::from).boxed().prop_union(Just(Format::Binary).boxed())
}

fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    vec(option::of(vec(any::<u8>(), 0..20)), 0..9)
}

fn borrowed(values: &[Option<Vec<u8>>]) -> Vec<Option<&[u8]>> {
    values.iter().map(|value| value.as_deref()).collect()
}

proptest! {
    #[test]
    fn a_parse_reads_back(name in string(), sql in string(), types: Vec<u32>) {
        let mut out = Vec::new();
        write::parse(&mut out, &name, &sql, types.iter().copied());
        let parse = Parse::parse(&out[HEADER_BYTES..]).expect("it was built");
        prop_assert_eq!((parse.name, parse.sql), (&name[..], &sql[..]));
        prop_assert!(parse.param_types().eq(types));
        properties::from_client(&out);
    }

    #[test]
    fn a_bind_reads_back(portal in string(), statement in string(), params in values(), formats in (format(), format())) {
        let mut out = Vec::new();
        write::bind(&mut out, &portal, &statement, formats.0, borrowed(&params), formats.1);
        let bind = Bind::parse(&out[HEADER_BYTES..]).expect("it was built");
        prop_assert_eq!((bind.portal, bind.statement), (&portal[..], &statement[..]));
        prop_assert_eq!(bind.params().collect::<Vec<_>>(), borrowed(&params));
        prop_assert_eq!(bind.param_format(3), formats.0);
        prop_assert_eq!(bind.result_formats().collect::<Vec<_>>(), [formats.1]);
        properties::from_client(&out);
        properties::from_client(&out[HEADER_BYTES..]);
    }

    #[test]
    fn rows_read_back(names in vec(string(), 0..9), row in values(), oid: u32, format in format()) {
        let columns: Vec<_> = names.iter().map(|name| Column {
            name, table_oid: 7, attribute: -1, type_oid: oid, type_len: -2, type_modifier: -1, format,
        }).collect();
        let mut out = Vec::new();
        write::row_description(&mut out, columns.iter().copied());
        let described = RowDescription::parse(&out[HEADER_BYTES..]).expect("it was built");
        prop_assert!(described.columns().eq(columns.iter().copied()));
        let at = out.len();
        write::data_row(&mut out, borrowed(&row));
        let found = DataRow::parse(&out[at + HEADER_BYTES..]).expect("it was built");
        prop_assert_eq!(found.columns().collect::<Vec<_>>(), borrowed(&row));
        prop_assert_eq!(Frames::new(&out).count(), 2);
        properties::from_server(&out);
    }

    #[test]
    fn any_bytes_keep_the_laws(input in vec(any::<u8>(), 0..300), tag: u8, minor in 0..4_u16) {
        properties::startup(&input);
        properties::from_client(&input);
        properties::from_server(&input);
        scram_properties::server(&input);
        scram_properties::client(&input);
        // And with a header that lets them further in.
        let mut message = Vec::new();
        write::message::build(&mut message, tag, |out| out.extend_from_slice(&input));
        properties::from_client(&message);
        properties::from_server(&message);
        let len = u32::try_from(input.len() + 8).expect("short");
        let packet = [&len.to_be_bytes()[..], &3_u16.to_be_bytes(), &minor.to_be_bytes(), &input].concat();
        properties::startup(&packet);
    }

    #[test]
    fn the_right_password_gets_in_and_no_other(
        password in ".{0,12}", other in ".{0,12}", salt in vec(any::<u8>(), 1..40), iterations in 1..20_u32,
        nonces: ([u8; NONCE_BYTES], [u8; NONCE_BYTES]), hash in option::of(vec(any::<u8>(), 0..64)),
    ) {
        let verifier = Verifier::derive(password.as_bytes(), &salt, iterations);
        let (client_binding, server_binding) = match &hash {
            Some(hash) => (ClientBinding::EndPoint(hash), ServerBinding::EndPoint(hash)),
            None => (ClientBinding::Unsupported, ServerBinding::None),
        };
        let login = |password: &str| {
            let client = Client::start(client_binding, &nonces.0);
            let mechanism = client.mechanism().as_bytes();
            let server = Server::start(&verifier, server_binding, mechanism, client.message(), &nonces.1)?;
            let challenge = client.challenge(server.challenge())?;
            let salted = SaltedPassword::derive(password.as_bytes(), challenge.salt(), challenge.iterations());
            let response = challenge.respond(&salted.keys());
            let accepted = server.finish(response.message())?;
            assert_eq!(accepted.keys, salted.keys());
            response.finish(&accepted.message)
        };
        prop_assert_eq!(login(&password), Ok(()));
        let is_same = verifier.check(&SaltedPassword::derive(other.as_bytes(), &salt, iterations));
        prop_assert_eq!(login(&other).is_ok(), is_same);
    }
}
