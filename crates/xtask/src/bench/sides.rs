//! Who is compared: Tenfold and its peers, with the settings that are tried for each.
//!
//! A peer runs with its best settings. Where it is not known which setting is best on this machine (nginx with or
//! without sendfile), both run, and the better one counts. The configurations are files in bench/peers/, so that anyone
//! can read what was measured; the words between `@` in them are filled in here and in `server`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Bench;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Tenfold,
    Nginx,
    Haproxy,
    Varnish,
    /// The least that answers: [`super::floor`].
    Floor,
    Pgbouncer,
}

/// One program with one set of settings.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) program: Program,
    pub(crate) version: String,
    /// In bench/peers/; the floor has none.
    pub(crate) template: String,
    /// `@VARIANT@` in the template; names its files too.
    pub(crate) variant: &'static str,
    /// `@OPTION@` in the template.
    pub(crate) option: &'static str,
    /// What the variant means, for people; empty if there is one only.
    pub(crate) note: &'static str,
}

impl Side {
    /// Tenfold first, then every peer and variant.
    pub(crate) fn all(bench: Bench) -> Result<Vec<Self>> {
        let name = bench.name();
        let side = |program: Program, extension: &str, variant, option, note| {
            let version = program.version()?;
            anyhow::Ok(Self {
                program,
                version,
                template: format!("{name}.{extension}"),
                variant,
                option,
                note,
            })
        };
        let nginx = |variant, option, note| side(Program::Nginx, "nginx.conf", variant, option, note);
        let haproxy = |variant, option, note| side(Program::Haproxy, "haproxy.cfg", variant, option, note);
        let us = side(Program::Tenfold, "tenfold.toml", "64MiB", "1", "")?;
        let peers = match bench {
            Bench::CacheHit => vec![
                nginx("on", "sendfile on; tcp_nopush on;", "sendfile on")?,
                nginx("push", "sendfile on; tcp_nopush off;", "sendfile on, tcp_nopush off")?,
                nginx("off", "sendfile off;", "sendfile off")?,
                haproxy("cache", "", "")?,
                side(Program::Varnish, "varnish.vcl", "", "", "")?,
                side(Program::Floor, "", "write", "", "write")?,
                side(Program::Floor, "", "sendfile", "", "sendfile")?,
            ],
            Bench::Proxy => vec![
                nginx("on", "", "buffering on")?,
                nginx("off", "", "buffering off")?,
                haproxy("copy", "", "")?,
                haproxy("splice", "option splice-auto", "splice")?,
            ],
        };
        Ok([vec![us], peers].concat())
    }

    /// nginx in another part than that of a peer.
    pub(crate) fn nginx() -> Self {
        Self {
            program: Program::Nginx,
            version: String::new(),
            template: String::new(),
            variant: "",
            option: "",
            note: "",
        }
    }

    /// Tenfold as a cache with so much memory and so many workers.
    pub(crate) fn ours(memory: &'static str, workers: &'static str, note: &'static str) -> Result<Self> {
        let program = Program::Tenfold;
        let template = format!("{}.tenfold.toml", Bench::CacheHit.name());
        Ok(Self { program, version: program.version()?, template, variant: memory, option: workers, note })
    }

    /// The least that answers, for keys of its own.
    pub(crate) fn floor_of_keys(note: &'static str) -> Self {
        Self {
            program: Program::Floor,
            version: "–".to_owned(),
            template: String::new(),
            variant: "keys",
            option: "",
            note,
        }
    }

    /// The program and what was set.
    pub(crate) fn label(&self) -> String {
        let name = match self.program {
            Program::Tenfold => "Tenfold",
            Program::Nginx => "nginx",
            Program::Haproxy => "HAProxy",
            Program::Varnish => "Varnish",
            Program::Floor => "bare loop (floor)",
            Program::Pgbouncer => "PgBouncer",
        };
        if self.note.is_empty() { name.to_owned() } else { format!("{name}, {}", self.note) }
    }
}

impl Program {
    pub(crate) fn path(self) -> Result<PathBuf> {
        match self {
            Self::Tenfold => {
                let ours = std::env::current_exe()?.with_file_name("tenfold");
                if !ours.exists() {
                    bail!("{} is not built: cargo build --release --package tenfold", ours.display());
                }
                Ok(ours)
            }
            Self::Nginx => installed("nginx"),
            Self::Haproxy => installed("haproxy"),
            Self::Varnish => installed("varnishd"),
            Self::Floor => Ok(std::env::current_exe()?),
            Self::Pgbouncer => installed("pgbouncer"),
        }
    }

    pub(crate) fn version(self) -> Result<String> {
        let flag = match self {
            Self::Tenfold | Self::Pgbouncer => "--version",
            Self::Nginx | Self::Haproxy => "-v",
            Self::Varnish => "-V",
            Self::Floor => return Ok("–".to_owned()),
        };
        let path = self.path()?;
        let output =
            Command::new(&path).arg(flag).output().with_context(|| format!("cannot run {path:?}"))?;
        // nginx says it on standard error.
        let text = [output.stdout, output.stderr].concat();
        version_in(&String::from_utf8_lossy(&text))
            .with_context(|| format!("{path:?} {flag} names no version"))
    }
}

/// Servers are often not on the path of an ordinary user.
fn installed(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut places = folders.map(|folder| folder.join(program));
    places
        .find(|place| place.is_file())
        .with_context(|| format!("{program} is not installed; the script of this benchmark installs it"))
}

/// The first word that looks like 1.2 or 1.2.3.
fn version_in(text: &str) -> Option<String> {
    let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, '/' | '(' | '-' | '+'));
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    words.find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", "2.6.12"),
            ("tenfold 0.1.0\n", "0.1.0"),
            ("varnishd (varnish-7.1.1 revision 7cee1c581bead20e88d101ab3d72afb29f14d87a)\n", "7.1.1"),
            ("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n", "1.18.0"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version));
        }
        assert_eq!(version_in("no version here"), None);
    }
}
