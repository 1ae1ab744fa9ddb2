//! `ringway config import`: the configuration of another program as ours.
//!
//! Three kinds are read: the YAML of a gateway (`vpn_gateway`), the TOML of a proxy server, and the
//! flags of a dispatching proxy. Each becomes a flat list of settings with their lines; [`rules`]
//! says what becomes of each. Nothing is dropped: what has no option here stands in the result as a
//! comment that says why. Files come from anywhere, so everything about them is bounded.

mod flags;
mod rules;
mod toml_file;
mod yaml;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use self::rules::Becomes;
use crate::config::{Config, Overrides, options};
use crate::failure::{Failure, Status};

/// Largest file that is read. The samples have one kilobyte.
pub const BYTES_MAX: usize = 1 << 20;

/// Most settings of a file.
const SETTINGS_MAX: usize = 10_000;

/// Deepest nesting of a file; the samples have five.
const DEPTH_MAX: usize = 32;

/// Characters of a value in a comment.
const SHOWN_CHARS_MAX: usize = 120;

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The YAML of a gateway.
    Gateway,
    /// The TOML of a proxy server.
    Proxy,
    /// The flags of a dispatching proxy.
    Dispatch,
}

/// One setting of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// Where it stands: keys from the outermost to its own.
    path: Vec<String>,
    /// Its line, from 1.
    line: usize,
    /// Its value; several for a list.
    values: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// A configuration, with a comment for each setting that was read.
    pub text: String,
    /// Settings that became options, or that are always so here.
    pub carried: usize,
    /// Settings that somebody has to look at.
    pub left: usize,
}

/// Which kind a file is: by its name, else by what is in it.
#[must_use]
pub fn kind_of(path: &Path, text: &str) -> Kind {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "yaml" | "yml" => return Kind::Gateway,
        "toml" => return Kind::Proxy,
        _ => {}
    }
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    if first.starts_with('-') && !first.starts_with("- ") && first != "---"
        || first.split_whitespace().nth(1).is_some_and(|word| word.starts_with('-'))
        || first.contains('@')
    {
        Kind::Dispatch
    } else if first.starts_with('[') || first.contains('=') {
        Kind::Proxy
    } else {
        Kind::Gateway
    }
}

/// Reads a file of another program and writes ours. `name` is what errors call it.
///
/// # Errors
/// [`Status::Config`]: it cannot be read, or is larger or deeper than is taken.
pub fn import(kind: Kind, name: &str, text: &str) -> Result<Imported, Failure> {
    let refused = |why: String| Failure::new(Status::Config, format!("{name}: {why}"));
    if text.len() > BYTES_MAX {
        return Err(refused(format!("is larger than {BYTES_MAX} bytes; nothing was imported")));
    }
    let settings = match kind {
        Kind::Gateway => yaml::read(text),
        Kind::Proxy => toml_file::read(text),
        Kind::Dispatch => flags::read(text),
    };
    let settings = settings.map_err(refused)?;
    if settings.is_empty() {
        return Err(refused("holds no setting that could be imported".to_owned()));
    }
    let mut result = Outcome::default();
    settings.iter().for_each(|setting| result.take(kind, setting));
    let imported = result.write(name);
    // What was checked option by option may still contradict itself.
    let checked = Config::parse(&imported.text, name, Path::new("/"), &Overrides::default());
    checked.map_err(|failure| {
        refused(format!("what it says does not fit together here: {}", failure))
    })?;
    Ok(imported)
}

/// What was decided so far.
#[derive(Default)]
struct Outcome {
    /// By section and key: the value, and where it comes from.
    options: BTreeMap<(&'static str, &'static str), (String, String)>,
    always: Vec<(String, String)>,
    left: Vec<(String, String)>,
}

impl Outcome {
    fn take(&mut self, kind: Kind, setting: &Setting) {
        let source = shown(setting);
        match rules::becomes(kind, setting) {
            Becomes::Always(why) => self.always.push((source, why)),
            Becomes::Left(why) => self.left.push((source, why)),
            Becomes::Option { section, key, value } => self.option(source, section, key, value),
        }
    }

    fn option(
        &mut self,
        source: String,
        section: &'static str,
        key: &'static str,
        value: Result<String, String>,
    ) {
        let value = match value {
            Ok(value) => value,
            Err(why) => return self.left.push((source, format!("it {why}"))),
        };
        if options::find(section, key).is_none() {
            let why = format!("[{section}] {key} = {value} is no option of this version yet");
            return self.left.push((source, why));
        }
        // Alone, so that one bad value does not spoil the others.
        let alone = format!("[{section}]\n{key} = {value}\n");
        if let Err(failure) = Config::parse(&alone, "it", Path::new("/"), &Overrides::default()) {
            let why: Vec<&str> = failure.list.iter().map(|problem| &*problem.message).collect();
            return self.left.push((source, one_line(&why.join("; "))));
        }
        if let Some((_, earlier)) = self.options.get(&(section, key)) {
            let why = format!("[{section}] {key} was set by {earlier} already");
            return self.left.push((source, why));
        }
        self.options.insert((section, key), (value, source));
    }

    fn write(&self, name: &str) -> Imported {
        let mut text = format!("# Imported from {}\n", one_line(name));
        for (section, _) in options::SECTIONS {
            let own = self.options.iter().filter(|((of, _), _)| of == section);
            for (at, ((_, key), (value, source))) in own.enumerate() {
                if at == 0 {
                    let _ = write!(text, "\n[{section}]");
                }
                let _ = write!(text, "\n# {source}\n{key} = {value}\n");
            }
        }
        list(&mut text, "Always so here:", &self.always);
        list(&mut text, "Not carried over:", &self.left);
        let carried = self.options.len() + self.always.len();
        Imported { text, carried, left: self.left.len() }
    }
}

fn list(text: &mut String, title: &str, entries: &[(String, String)]) {
    if entries.is_empty() {
        return;
    }
    let _ = write!(text, "\n# {title}\n");
    for (source, why) in entries {
        let _ = writeln!(text, "# - {source}\n#     {why}");
    }
}

/// A setting as a comment shows it: `vpn_gateway.server.listen = 0.0.0.0:1194 (line 4)`.
fn shown(setting: &Setting) -> String {
    let path = setting.path.join(".");
    let value = setting.values.join(", ");
    let text = if value.is_empty() { path } else { format!("{path} = {value}") };
    let text: String = one_line(&text).chars().take(SHOWN_CHARS_MAX).collect();
    format!("{text} (line {})", setting.line)
}

/// Somebody's text in a comment: a line break would end the comment.
fn one_line(text: &str) -> String {
    let safe = |c: char| if c.is_control() || "\u{2028}\u{2029}".contains(c) { ' ' } else { c };
    text.trim().chars().map(safe).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
