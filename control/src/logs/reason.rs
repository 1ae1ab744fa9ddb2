//! The codes of refusals that control itself writes to its log: a closed list.
//!
//! Other lists have their own places: why packets are dropped (`ringway_proto::DropReason`), why a
//! device may not connect (`access::people::Out`), why somebody may not sign in, why the API
//! refuses a request, and why a door of it is closed (`api::doors::Fault`). Every code of each list
//! has its line in the manual; a test compares.

macro_rules! refusals {
    ($($variant:ident $code:literal $doc:literal,)*) => {
        /// What was refused, other than by the lists of their own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $doc] $variant,)* }

        impl Code {
            /// All of them, in the order of the manual.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code in the log.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

refusals! {
    ConfigReadOnly "config_read_only" "A client of the configuration socket wanted to change what the file decides.",
    ConfigMalformed "config_malformed" "A request on the configuration socket cannot be read.",
    ConfigRefused "config_refused" "A request on the configuration socket does not fit the gateway.",
    ReloadRefused "reload_refused" "The configuration was read again and cannot take effect; nothing was changed.",
    UpgradeRefused "upgrade_refused" "Another process wanted to take over and cannot; the gateway goes on.",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::people::Out;
    use crate::api::doors::Fault;
    use crate::logs::connections::Ending;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    const MANUAL: &str = include_str!("../../manual/log_reasons.md");

    #[test]
    fn every_refusal_of_the_log_has_its_line_in_the_manual() {
        for refusal in Code::ALL {
            let line = format!("| `{}` | {} |", refusal.code(), refusal.meaning());
            assert!(MANUAL.contains(&line), "control/manual/log_reasons.md lacks: {line}");
        }
    }

    #[test]
    fn every_end_of_access_has_its_line_in_the_manual() {
        for out in Out::ALL {
            let line = format!("| `{}` | ", out.code());
            assert!(MANUAL.contains(&line), "control/manual/log_reasons.md lacks: {line}");
        }
    }

    #[test]
    fn every_end_that_comes_with_the_gateways_own_has_its_line_in_the_manual() {
        for ending in Ending::OF_GATEWAY {
            let line = format!("| `{}` | ", ending.code().unwrap());
            assert!(MANUAL.contains(&line), "control/manual/log_reasons.md lacks: {line}");
        }
    }

    #[test]
    fn the_manual_names_no_reason_that_does_not_exist_and_none_twice() {
        let known: BTreeSet<&str> = Code::ALL
            .iter()
            .map(|refusal| refusal.code())
            .chain(Out::ALL.iter().map(|out| out.code()))
            .chain(Fault::ALL.iter().map(|fault| fault.code()))
            .chain(Ending::OF_GATEWAY.iter().filter_map(|ending| ending.code()))
            .collect();
        let told: Vec<&str> =
            MANUAL.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(told.len(), known.len());
        assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), known);
    }

    /// Log statements of a file: from the macro to its closing parenthesis.
    fn statements(text: &str) -> Vec<&str> {
        let starts = ["warn!(", "error!(", "info!("].into_iter().flat_map(|macro_name| {
            text.match_indices(macro_name).map(|(at, _)| at).collect::<Vec<_>>()
        });
        starts.filter_map(|at| Some(&text[at..at + text[at..].find(");")?])).collect()
    }

    #[test]
    fn every_line_that_says_refused_gives_its_reason() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if entry.extension().is_some_and(|name| name == "rs")
                    && !entry.ends_with("logs/reason.rs")
                    && !entry.to_string_lossy().ends_with("tests.rs")
                {
                    let text = fs::read_to_string(&entry).unwrap();
                    for statement in statements(&text) {
                        if statement.contains("refused") || statement.contains("Refused") {
                            seen += 1;
                            assert!(statement.contains("reason"), "{entry:?}: {statement}");
                        }
                    }
                }
            }
        }
        assert!(seen >= 4, "{seen}: the search finds nothing any more");
    }
}
