//! Set-up requests: log-ins before the run, whose tokens the run's requests carry.

use tokio::runtime::LocalOptions;

use crate::error::Error;
use crate::mix::RoutePlan;
use crate::plan::Plan;
use crate::scenario::Setup;
use crate::target::Target;
use crate::template::Fill;
use crate::wire::{Body, Wire};

/// The longest answer of a set-up request.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The longest token: what fits a header of most servers.
const TOKEN_BYTES_MAX: usize = 4096;

/// Sends the scenario's set-up requests, one after another, to the first target, and returns the tokens they brought
/// home. Without set-up requests there are none.
///
/// # Errors
/// [`Error::Setup`] when one isn't answered as it should be; and as [`crate::run()`].
pub fn log_in(plan: &Plan) -> Result<Vec<String>, Error> {
    plan.client.validate()?;
    plan.scenario.validate()?;
    let targets = Target::resolve_all(&plan.targets, plan.own_host)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let mut tokens = Vec::new();
        let mut wire = Wire::new();
        for setup in &plan.scenario.setup {
            let route = RoutePlan::new(&setup.as_route(), &targets[..1])?;
            for number in 0..u64::from(setup.repeat) {
                let fill = Fill { key: 0, number, token: "", seed: plan.seed };
                let sending = send(&mut wire, &route, &fill, &targets[0], setup);
                let limited = tokio::time::timeout(plan.client.timeout(), sending).await;
                let kept =
                    limited.unwrap_or_else(|_| Err(format!("no answer in {:?}", plan.client.timeout())));
                let kept = kept.map_err(|why| Error::Setup { name: setup.name.clone(), why })?;
                tokens.extend(kept);
            }
        }
        Ok(tokens)
    })
}

/// One set-up request; its token, if it keeps one.
async fn send(
    wire: &mut Wire,
    route: &RoutePlan,
    fill: &Fill<'_>,
    target: &Target,
    setup: &Setup,
) -> Result<Option<String>, String> {
    if wire.stream.is_none() {
        wire.connect(target.address).await.map_err(|failure| failure.label())?;
    }
    wire.request.clear();
    route.templates[0].render(fill, &mut wire.request, &mut wire.scratch);
    let mut kept = Vec::new();
    let body = Body::Keep(&mut kept, ANSWER_BYTES_MAX);
    let answer = wire.exchange(route.method, body, |_| {}).await.map_err(|broken| broken.failure.label())?;
    if !route.expects(answer.status) {
        return Err(format!("status {}", answer.status));
    }
    setup.keep.as_deref().map(|pointer| token(&kept, pointer)).transpose()
}

/// The token at a JSON pointer of an answer.
fn token(json: &[u8], pointer: &str) -> Result<String, String> {
    let answer: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| format!("the answer is not JSON: {error}"))?;
    let token = match answer.pointer(pointer) {
        Some(serde_json::Value::String(token)) => token.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => return Err(format!("the answer has no text or number at {pointer:?}")),
    };
    // It will stand in headers, paths and JSON strings: nothing in it may end one of them.
    let is_safe = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(is_safe) {
        return Err(format!("the token at {pointer:?} is not plain text of 1 to {TOKEN_BYTES_MAX} bytes"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, pointer: &str, expected: Option<&str>) {
        assert_eq!(token(json.as_bytes(), pointer).ok().as_deref(), expected, "{json} {pointer}");
    }

    #[test]
    fn a_token_is_found_by_its_pointer() {
        check(r#"{"token": "a.b-c"}"#, "/token", Some("a.b-c"));
        check(r#"{"user": {"ids": [7, 8]}}"#, "/user/ids/1", Some("8"));
        check(r#"{"token": "a"}"#, "/tokn", None);
        check(r#"{"token": null}"#, "/token", None);
        check("<html>", "/token", None);
    }

    #[test]
    fn a_token_that_could_split_a_message_is_refused() {
        for bad in ["", "a b", r"a\r\nX: y", r#"a\"b"#, r"a\\b", "ü"] {
            check(&format!(r#"{{"token": "{bad}"}}"#), "/token", None);
        }
    }
}
