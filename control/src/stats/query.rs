//! The command language of the stats socket: one line, one answer.

use ringway_proto::CoreId;

/// Bytes of a line; the longest command with its numbers is far shorter.
pub const LINE_BYTES_MAX: usize = 256;

/// Peers in one answer of `sessions` unless a number is given.
pub const PAGE_DEFAULT: u32 = 100;

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Counters for people.
    Stats,
    /// Counters as JSON.
    StatsJson,
    /// Counters as OpenMetrics text.
    Metrics,
    /// A table of peers.
    Sessions {
        /// Where to begin.
        from: Place,
        /// How many rows; `None` for all.
        rows: Option<u32>,
    },
    /// All peers as a JSON array.
    PeersJson,
    /// Read the configuration again and apply what changed.
    Reload,
    /// The commands.
    Help,
    /// Something else.
    Unknown,
}

/// A place in the peers of all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which core.
    pub core: u16,
    /// Its cursor.
    pub slot: u32,
}

impl Place {
    /// The core to be asked.
    #[must_use]
    pub const fn core(self) -> CoreId {
        CoreId(self.core)
    }
}

/// The commands, for people.
pub const HELP: &str = "\
stats                      counters, summed and per core
stats json                 the same as JSON
metrics                    the same as OpenMetrics text
sessions [PLACE] [ROWS]    table of peers; the last line says where the next page begins
sessions all               all of them
peers json                 all peers as a JSON array
reload                     read the configuration again and apply what changed
help                       this text
";

impl Query {
    /// Reads a line, without its end.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["stats"] => Self::Stats,
            ["stats", "json"] => Self::StatsJson,
            ["metrics"] => Self::Metrics,
            ["sessions", rest @ ..] => sessions(rest).unwrap_or(Self::Unknown),
            ["peers", "json"] => Self::PeersJson,
            ["reload"] => Self::Reload,
            ["help" | "?"] => Self::Help,
            _ => Self::Unknown,
        }
    }
}

fn sessions(words: &[&str]) -> Option<Query> {
    let (from, rows) = match words {
        [] => (Place::default(), Some(PAGE_DEFAULT)),
        ["all"] => (Place::default(), None),
        [from] => (place(from)?, Some(PAGE_DEFAULT)),
        [from, rows] => (place(from)?, Some(rows.parse().ok().filter(|rows| *rows > 0)?)),
        _ => return None,
    };
    Some(Query::Sessions { from, rows })
}

fn place(word: &str) -> Option<Place> {
    let (core, slot) = word.split_once(':')?;
    Some(Place { core: core.parse().ok()?, slot: slot.parse().ok()? })
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.core, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_understood() {
        let first = Place::default();
        for (line, query) in [
            ("stats", Query::Stats),
            ("  stats   json ", Query::StatsJson),
            ("metrics", Query::Metrics),
            ("sessions", Query::Sessions { from: first, rows: Some(PAGE_DEFAULT) }),
            ("sessions all", Query::Sessions { from: first, rows: None }),
            (
                "sessions 1:7",
                Query::Sessions { from: Place { core: 1, slot: 7 }, rows: Some(PAGE_DEFAULT) },
            ),
            ("sessions 1:7 5", Query::Sessions { from: Place { core: 1, slot: 7 }, rows: Some(5) }),
            ("peers json", Query::PeersJson),
            ("reload", Query::Reload),
            ("help", Query::Help),
        ] {
            assert_eq!(Query::parse(line), query, "{line}");
        }
    }

    #[test]
    fn anything_else_is_unknown() {
        for line in [
            "",
            "stat",
            "stats xml",
            "STATS",
            "sessions 1",
            "sessions 1:2 0",
            "sessions 1:2 3 4",
            "peers",
            "\0",
        ] {
            assert_eq!(Query::parse(line), Query::Unknown, "{line}");
        }
    }

    #[test]
    fn help_names_every_command() {
        for command in ["stats json", "metrics", "sessions", "peers json", "reload", "help"] {
            assert!(HELP.contains(command));
        }
    }
}
