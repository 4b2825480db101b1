//! What compressing costs and what it saves: each coding at each level, on texts such as sites send.
//!
//! **Intuition.** A stored page is compressed once for each coding and sent often, so a level may cost some milliseconds;
//! but it is one thread that compresses, and a page that changes every few seconds is compressed every few seconds. The
//! level to take is the last before the cost runs away from the gain.
//!
//! **Mechanism.** Four texts: a list of products as JSON and a page of them as HTML, made as the example shop makes them;
//! the example shop's own scripts; and the guide. Each is compressed by the very function that the cache uses, often enough
//! to take a tenth of a second, and the processor time of this thread is counted.
//!
//! **Failure.** A benchmark never fails a build: it prints.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use tenfold_cache::{Coding, compress_at, level_of};

/// How long one figure is measured.
const MEASURED: Duration = Duration::from_millis(100);
const MIB: f64 = (1 << 20) as f64;

struct Text {
    name: &'static str,
    body: Vec<u8>,
}

/// One coding at one level.
struct Row {
    coding: Coding,
    level: u32,
    /// By text: processor time in ms for each MiB, and how many times smaller.
    figures: Vec<(f64, f64)>,
}

/// Measures and prints the table.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let texts = texts(root)?;
    let mut rows = Vec::new();
    for (coding, levels) in [(Coding::Brotli, 0..=6), (Coding::Zstd, 1..=8), (Coding::Gzip, 1..=7)] {
        for level in levels {
            let figures =
                texts.iter().map(|text| measure(coding, level, &text.body)).collect::<Result<_>>()?;
            rows.push(Row { coding, level, figures });
        }
    }
    println!("{}", table(&texts, &rows)?);
    Ok(ExitCode::SUCCESS)
}

fn texts(root: &Path) -> Result<Vec<Text>> {
    let product = |n: u32| {
        format!(
            "{{\"id\":{n},\"name\":\"Linen shirt {}\",\"category\":\"shirts-{}\",\"priceCents\":{},\"stock\":{},\"image\":\"/img/products/{n}.jpg\",\"description\":\"A shirt of washed linen, cut wide, made in batch {}.\"}}",
            n * 7919 % 1013,
            n % 17,
            1999 + n * 104_729 % 9000,
            n * 31 % 250,
            n * 48_271 % 65_521
        )
    };
    let item = |n: u32| {
        format!(
            "<li class=\"product\"><a href=\"/products/{n}\"><img src=\"/img/products/{n}.jpg\" alt=\"\" loading=\"lazy\"><span class=\"name\">Linen shirt {}</span><span class=\"price\">{}.99 EUR</span></a></li>\n",
            n * 7919 % 1013,
            19 + n * 104_729 % 90
        )
    };
    let json = format!("[{}]", (0..200).map(product).collect::<Vec<_>>().join(","));
    let html = format!("<!doctype html><ul>\n{}</ul>", (0..100).map(item).collect::<String>());
    Ok(vec![
        Text { name: "JSON", body: json.into_bytes() },
        Text { name: "HTML", body: html.into_bytes() },
        Text { name: "scripts", body: all_in(&root.join("examples/shop"), "js")? },
        Text { name: "prose", body: all_in(&root.join("docs/guide"), "md")? },
    ])
}

/// The files of a folder with an ending, one behind the other.
fn all_in(folder: &Path, ending: &str) -> Result<Vec<u8>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|other| other == ending));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        all.extend(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(all)
}

/// Processor time in ms for each MiB, and how many times smaller it gets.
#[expect(clippy::cast_precision_loss, reason = "lengths and counts far below 2^53")]
fn measure(coding: Coding, level: u32, body: &[u8]) -> Result<(f64, f64)> {
    let compressed = || compress_at(coding, level, body).context("it can't be compressed");
    let length = compressed()?.len();
    let (began, mut times) = (thread_time()?, 0_u32);
    let mut took = Duration::ZERO;
    while took < MEASURED {
        compressed()?;
        times += 1;
        took = thread_time()?.saturating_sub(began);
    }
    let ms = took.as_secs_f64() * 1000.0 / f64::from(times);
    Ok((ms * MIB / body.len() as f64, body.len() as f64 / length as f64))
}

fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn table(texts: &[Text], rows: &[Row]) -> Result<String> {
    let mut out = String::from("| coding, level |");
    for text in texts {
        write!(out, " {}, {} KiB |", text.name, text.body.len() >> 10)?;
    }
    write!(out, "\n|---|{}", "---|".repeat(texts.len()))?;
    for row in rows {
        let ours = if level_of(row.coding) == row.level { " (ours)" } else { "" };
        write!(out, "\n| {} {}{ours} |", row.coding.as_str(), row.level)?;
        for (ms, ratio) in &row.figures {
            write!(out, " {ms:.0} ms/MiB, {ratio:.2}× |")?;
        }
    }
    Ok(out)
}
