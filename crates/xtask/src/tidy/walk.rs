//! Which files of the repository the rules read.
//!
//! Everything a person wrote: the tree is walked from the root, leaving out what is built, fetched or not text
//! (`target`, `node_modules`, traces, corpora). It works in an unpacked archive as well as in a clone, so it does not
//! ask git. Bounded: a file above `FILE_BYTES_MAX` is data, whatever its name, and is not read.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Lock files are the largest things people commit here.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

const FOLDERS_SKIPPED: [&str; 7] =
    ["target", "node_modules", ".git", "corpus", "artifacts", "coverage", "seeds"];

/// A file with its path relative to the root, with `/`.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All text files below `root`, by path.
pub(crate) fn text_files(root: &Path) -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            if kind.is_dir() {
                if !FOLDERS_SKIPPED.iter().any(|skipped| name == *skipped) {
                    folders.push(entry.path());
                }
            } else if kind.is_file() {
                files.extend(read(root, &entry.path())?);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read(root: &Path, path: &Path) -> Result<Option<TextFile>> {
    let context = || format!("cannot read {}", path.display());
    if path.metadata().with_context(context)?.len() > FILE_BYTES_MAX {
        return Ok(None);
    }
    let bytes = std::fs::read(path).with_context(context)?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    let relative = path.strip_prefix(root).expect("found below the root");
    let path = relative.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
    Ok(Some(TextFile { path, text }))
}
