//! `tenfold reload`: the running process reads its file again; its errors are printed here, to who asked.

use super::{complain, print, print_json};
use crate::cli::{Exit, Running};
use crate::client::{Answer, Client};

/// Asks for the reload, and prints what became of it.
#[must_use]
pub fn reload(running: &Running) -> Exit {
    match Client::new(running).post("/api/v1/reload", &serde_json::json!({})) {
        Ok(answer) => told(&answer, running.json),
        Err(message) => {
            complain(&format!("error: {message}"));
            Exit::Failed
        }
    }
}

fn told(answer: &Answer, json: bool) -> Exit {
    // 422: the file is at fault; anything else: the way to it.
    let exit = match answer.status {
        200..=299 => Exit::Fine,
        422 => Exit::Usage,
        _ => Exit::Failed,
    };
    if json {
        let printed = print_json(&answer.body);
        return if exit == Exit::Fine { printed } else { exit };
    }
    if let Some(report) =
        answer.body.get("report").and_then(|report| report.as_str()).filter(|text| !text.is_empty())
    {
        complain(report);
    }
    if exit == Exit::Fine {
        return print("reloaded");
    }
    complain(&format!("error: {}", answer.detail()));
    exit
}
