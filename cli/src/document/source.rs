//! Files, directories and standard input as texts, each of a bounded size.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Largest file of documents, bytes.
const LARGEST: u64 = 4 << 20;
/// Endings that a directory is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A text and what it is called.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// Returns the name of a path: `-` is standard input.
pub(super) fn name(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() }
}

/// Reads everything that is named; of directories, the files that end in yaml, yml or json, by name.
pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = vec![];
    for path in paths {
        if path.as_os_str() != "-" && path.is_dir() {
            let files = list(path).map_err(|error| unreadable(path, &error))?;
            if files.is_empty() {
                return Err(Failure::new(format!(
                    "no documents in {}: no file ends in .yaml, .yml or .json",
                    path.display()
                )));
            }
            for file in files {
                sources.push(text(&file)?);
            }
        } else {
            sources.push(text(path)?);
        }
    }
    Ok(sources)
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ENDINGS.contains(&ending) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<Source, Failure> {
    let name = name(path);
    let bytes = bytes(path).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > LARGEST {
        let limit = LARGEST >> 20;
        return Err(
            Failure::new(format!("{name} is larger than {limit} MiB")).hint("split it into several files")
        );
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(format!("{name} is no text: byte {at} is not UTF-8"))
            .hint("documents are YAML or JSON in UTF-8")
    })?;
    if let Some(at) = text.bytes().position(|byte| byte == 0) {
        return Err(Failure::new(format!("{name} is no text: byte {at} is zero"))
            .hint("documents are YAML or JSON in UTF-8"));
    }
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(Source { name, text })
}

/// Reads one byte more than allowed at most.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    if path.as_os_str() == "-" {
        io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let name = name(path);
    let known = [
        (io::ErrorKind::NotFound, "there is no such file or directory"),
        (io::ErrorKind::PermissionDenied, "permission denied"),
    ];
    let why = known.iter().find(|(kind, _)| *kind == error.kind()).map(|&(_, why)| why.to_owned());
    Failure::new(format!("cannot read {name}: {}", why.unwrap_or_else(|| error.to_string())))
}
