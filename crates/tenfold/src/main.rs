//! One binary between your users and your backend.
//!
//! The only crate that knows files, flags and the environment: it reads `tenfold.toml` ([`config`]), builds the tiers from
//! it and runs them ([`run`]), and answers whoever asks the running process ([`admin`], [`live`]). The commands that ask
//! are in [`commands`].

#![expect(unreachable_pub, reason = "a binary has no outside; `pub` marks what a module offers the others")]

mod admin;
mod cli;
mod client;
mod commands;
mod config;
mod explaining;
mod listeners;
mod live;
mod log;
mod pooler_files;
mod pooling;
mod purging;
mod restart;
mod run;
mod scrape;
mod sharing;
mod status;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::Cli::parse().execute().into()
}
