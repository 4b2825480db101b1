//! What the admin server answers, once [`guard`](super::guard) has let a request in.
//!
//! Reading never changes anything and never waits. A reload answers when it is done: 200 with the warnings, or 422 with
//! every mistake, as text for the terminal and as objects for programs. Numbers in `/api/v1/status` are counters since
//! the start; who wants rates asks twice.

use std::rc::Rc;

use serde_json::{Value, json};

use super::guard::Endpoint;
use super::{Request, Response};
use crate::explaining::Question;
use crate::live::{Live, Purging, Reloaded};

/// The answer.
pub async fn answer(endpoint: Endpoint, request: &Request, live: &Rc<Live>) -> Response {
    match endpoint {
        Endpoint::Health => Response::text(200, "ok\n"),
        Endpoint::Ready if live.is_ready() => Response::text(200, "ready\n"),
        Endpoint::Ready => Response::text(503, "not ready\n"),
        Endpoint::Metrics => Response {
            content_type: tenfold_service::metrics::CONTENT_TYPE,
            ..Response::text(200, &live.metrics())
        },
        Endpoint::Status => Response::json(200, &live.status()),
        Endpoint::Config => Response::json(200, &live.config()),
        Endpoint::Reload => reload(live).await,
        Endpoint::Purge => match order(&request.body) {
            Ok(order) => Response::json(200, &live.purge(&order).await),
            Err(detail) => Response::problem(400, "bad_purge", &detail),
        },
        Endpoint::Explain => match Question::parse(&request.body).and_then(|asked| live.explain(&asked)) {
            Ok(answer) => Response::json(200, &answer),
            Err(detail) => Response::problem(400, "bad_question", &detail),
        },
    }
}

async fn reload(live: &Rc<Live>) -> Response {
    let Reloaded { applied, report } = live.reload().await;
    let (problems, text) = (report.to_json(), report.render(false));
    if applied {
        return Response::json(200, &json!({ "reloaded": true, "problems": problems, "report": text }));
    }
    let detail = "the file was not applied; what runs is unchanged";
    let body = json!({
        "title": "Unprocessable Content", "status": 422, "reason": "bad_configuration", "detail": detail,
        "problems": problems, "report": text,
    });
    Response {
        content_type: "application/problem+json",
        reason: Some("bad_configuration"),
        ..Response::json(422, &body)
    }
}

/// `{"url": "http://host/path?query"}`, `{"tag": "product:7"}`, `{"prefix": "http://host/path/"}` or `{"all": true}`, each with an optional `"soft"`. Anything else is refused: a
/// misspelt order must not purge something else.
fn order(body: &[u8]) -> Result<Purging, String> {
    const EXPECTED: &str = "send {\"url\": \"http://shop.example/path\"}, {\"tag\": \"product:7\"}, {\"prefix\": \"http://shop.example/api/\"} or {\"all\": true}, optionally with \"soft\": true";
    let value: Value = serde_json::from_slice(body).map_err(|_| format!("not JSON; {EXPECTED}"))?;
    let fields = value.as_object().ok_or(EXPECTED)?;
    let is_unknown = |key: &&String| !matches!(key.as_str(), "url" | "tag" | "prefix" | "all" | "soft");
    if let Some(unknown) = fields.keys().find(is_unknown) {
        return Err(format!("unknown field {unknown:?}; {EXPECTED}"));
    }
    let soft = match fields.get("soft") {
        None => false,
        Some(Value::Bool(soft)) => *soft,
        Some(_) => return Err(format!("\"soft\" is true or false; {EXPECTED}")),
    };
    match ["url", "tag", "prefix", "all"].map(|key| fields.get(key)) {
        [Some(Value::String(url)), None, None, None] => Purging::of_url(url, soft),
        [None, Some(Value::String(tag)), None, None] if !tag.is_empty() => {
            Ok(Purging::Tag { tag: tag.clone(), soft })
        }
        [None, None, Some(Value::String(prefix)), None] => Purging::of_prefix(prefix, soft),
        [None, None, None, Some(Value::Bool(true))] => Ok(Purging::All { soft }),
        _ => Err(EXPECTED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_url_tag_or_prefix_or_everything() {
        let url = |soft| Purging::Url {
            authority: "shop.example".into(),
            path: "/a".into(),
            query: Some("b=1".into()),
            soft,
        };
        let check =
            |body: &str, expected: Purging| assert_eq!(order(body.as_bytes()), Ok(expected), "{body}");
        check(r#"{"url":"http://shop.example/a?b=1"}"#, url(false));
        check(r#"{"url":"https://shop.example/a?b=1","soft":true}"#, url(true));
        check(r#"{"tag":"product:7"}"#, Purging::Tag { tag: "product:7".into(), soft: false });
        let prefix = Purging::Prefix { authority: "shop.example".into(), path: "/a/".into(), soft: false };
        check(r#"{"prefix":"http://shop.example/a/"}"#, prefix);
        check(r#"{"all":true}"#, Purging::All { soft: false });
        check(r#"{"all":true,"soft":true}"#, Purging::All { soft: true });
    }

    #[test]
    fn a_misspelt_order_purges_nothing() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"all":false}"#,
            r#"{"al":true}"#,
            r#"{"all":true,"url":"http://a/"}"#,
            r#"{"tag":""}"#,
            r#"{"tag":7}"#,
            r#"{"tag":"a","all":true}"#,
            r#"{"url":7}"#,
            r#"{"all":true,"soft":1}"#,
            r#"{"url":"shop.example/a"}"#,
            r#"{"url":"http:///a"}"#,
            r#"{"url":"http://a b/"}"#,
            r#"{"tags":"x"}"#,
            r#"{"prefix":"http://a/b"}"#,
            r#"{"prefix":"http://a/","tag":"x"}"#,
        ] {
            assert!(order(body.as_bytes()).is_err(), "{body}");
        }
    }
}
