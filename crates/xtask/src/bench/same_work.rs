//! All sides must have done the same work, or their costs can't be compared.
//!
//! Before the load, each side answers the same request twice and is held to it: status 200, the origin's body to the
//! byte, its type, validator and lifetime. The origin gives each of its answers a serial number, so two equal serials
//! prove a cache and two different ones prove a fetch.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use tenfold_testkit::raw::{self, Response};

use super::Bench;
use super::rows::Size;
use super::sides::Side;

/// Asks twice; says what is wrong.
pub(crate) fn check(bench: Bench, side: &Side, port: u16, size: Size) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let path = size.path();
    let answers = [raw::get(address, &path), raw::get(address, &path)];
    let [first, second] = answers.map(|answer| answer.with_context(|| side.label()));
    let (first, second) = (first?, second?);
    check_serials(bench, &first, &second).with_context(|| side.label())?;
    check_one(&first, size).and_then(|()| check_one(&second, size)).with_context(|| side.label())
}

fn check_serials(bench: Bench, first: &Response, second: &Response) -> Result<()> {
    let (first, second) = (first.header("x-serial"), second.header("x-serial"));
    ensure!(first.is_some() && second.is_some(), "the origin's serial number is missing");
    match bench {
        Bench::CacheHit if first != second => {
            bail!("asked the origin again instead of answering from the cache")
        }
        Bench::Proxy if first == second => bail!("answered from a cache instead of asking the origin"),
        _ => Ok(()),
    }
}

fn check_one(answer: &Response, size: Size) -> Result<()> {
    ensure!(answer.status == 200, "status {} instead of 200", answer.status);
    ensure!(
        answer.body == size.body().as_bytes(),
        "{} body bytes that are not the origin's",
        answer.body.len()
    );
    let expected = [("content-type", "text/plain"), ("cache-control", "max-age=86400"), ("etag", "\"one\"")];
    for (name, value) in expected {
        let found = answer.header(name);
        ensure!(found == Some(value), "{name} is {found:?} instead of {value:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(serial: &str) -> Response {
        let fields = [
            ("Content-Type", "text/plain"),
            ("Cache-Control", "max-age=86400"),
            ("ETag", "\"one\""),
            ("X-Serial", serial),
        ];
        Response {
            status: 200,
            reason: String::new(),
            fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: Size::SMALL.body().into_bytes(),
            interim: Vec::new(),
            raw: Vec::new(),
            closes: false,
        }
    }

    #[test]
    fn other_work_is_refused() {
        let good = answer("a");
        let check = |answer: &Response| check_one(answer, Size::SMALL).is_ok();
        assert!(check(&good));
        assert!(!check(&Response { status: 404, ..good.clone() }));
        let body = Size::SMALL.body().replace('t', "T").into_bytes();
        assert!(!check(&Response { body, ..good.clone() }));
        assert!(!check(&Response { fields: good.fields[1..].to_vec(), ..good }));
    }

    #[test]
    fn a_cache_repeats_itself_and_a_proxy_does_not() {
        let check = |bench, first, second| check_serials(bench, &answer(first), &answer(second)).is_ok();
        assert!(check(Bench::CacheHit, "a", "a") && !check(Bench::CacheHit, "a", "b"));
        assert!(check(Bench::Proxy, "a", "b") && !check(Bench::Proxy, "a", "a"));
    }
}
