//! The files of the repository: what git tracks and what it would track.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::source::Source;

/// All files that are text.
pub(crate) struct Repo {
    pub(crate) files: Vec<File>,
    /// Every path, text or not.
    pub(crate) paths: BTreeSet<String>,
}

/// One file, with its path from the root of the repository.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Present for Rust.
    pub(crate) rust: Option<Source>,
}

/// The root of the repository that the current folder belongs to.
pub(crate) fn root() -> Result<PathBuf> {
    let output = Command::new("git").args(["rev-parse", "--show-toplevel"]).output()?;
    ensure!(output.status.success(), "no git repository here");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

impl Repo {
    /// Reads every file that git knows or does not ignore.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let output = Command::new("git").args(arguments).current_dir(root).output()?;
        ensure!(output.status.success(), "git ls-files failed");
        let listed = String::from_utf8(output.stdout).context("a path is not UTF-8")?;
        let exists = |path: &&str| !path.is_empty() && root.join(path).is_file();
        let paths: BTreeSet<String> =
            listed.split('\0').filter(exists).map(ToOwned::to_owned).collect();
        // What is not UTF-8 is data (corpora, pictures) and has no style.
        let read = |path: &String| {
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            (!text.contains('\0')).then(|| File::new(path, &text))
        };
        Ok(Self { files: paths.iter().filter_map(read).collect(), paths })
    }

    /// The text file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// A repository made of texts.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files.iter().map(|(path, text)| File::new(path, text)).collect(),
            paths: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
        }
    }
}

impl File {
    /// A file with its classes, if it is Rust.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let rust = path.ends_with(".rs").then(|| Source::new(text));
        Self { path: path.to_owned(), text: text.to_owned(), rust }
    }

    /// Its lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// A script: no extension, or `.sh` or `.py`, and a first line that names its interpreter.
    pub(crate) fn is_script(&self) -> bool {
        self.text.starts_with("#!/")
    }

    /// Seeds of the fuzz targets are data, whatever they look like.
    pub(crate) fn is_corpus(&self) -> bool {
        self.path.starts_with("tests/fuzz/corpus/")
    }
}
