//! What the operator reads against what the program does: every drop reason, option and counter has
//! its line in the manual, and the manual names none that does not exist.

use std::collections::BTreeMap;

use crate::Finding;
use crate::repo::{File, Repo};

/// Names with their lines.
type Names = BTreeMap<String, usize>;

/// A list in the code and the page that explains it.
struct Page {
    source: &'static str,
    listed: fn(&File) -> Names,
    manual: &'static str,
    told: fn(&File) -> Names,
}

const PAGES: &[Page] = &[
    Page {
        source: "dataplane/proto/src/drop_reason.rs",
        listed: reasons,
        manual: "control/manual/reasons.md",
        told: first_cells,
    },
    Page {
        source: "dataplane/src/counters.rs",
        listed: counters,
        manual: "control/manual/metrics.md",
        told: first_cells,
    },
    Page {
        source: "dataplane/src/page.rs",
        listed: ring_counters,
        manual: "control/manual/metrics.md",
        told: bullets,
    },
    Page {
        source: "control/src/config/options.rs",
        listed: options,
        manual: "control/manual/options.md",
        told: cells_by_section,
    },
];

/// The manual and the code say the same.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    PAGES.iter().flat_map(|page| compare(page, repo)).collect()
}

fn compare(page: &Page, repo: &Repo) -> Vec<Finding> {
    let missing =
        |path| vec![Finding::new(path, 1, "is missing", "the manual is checked against it")];
    let Some(source) = repo.file(page.source) else { return missing(page.source) };
    let Some(manual) = repo.file(page.manual) else { return missing(page.manual) };
    let (listed, told) = ((page.listed)(source), (page.told)(manual));
    if listed.is_empty() {
        let fix = "its form changed: change tools/tidy/manual.rs with it";
        return vec![Finding::new(page.source, 1, "no list is found", fix)];
    }
    let untold = listed.iter().filter(|(name, _)| !told.contains_key(*name));
    let unknown = told.iter().filter(|(name, _)| !listed.contains_key(*name));
    let untold = untold.map(|(name, line)| {
        let what = format!("`{name}` is not in the manual");
        Finding::new(page.source, *line, what, format!("add its line to {}", page.manual))
    });
    let unknown = unknown.map(|(name, line)| {
        let what = format!("`{name}` does not exist");
        Finding::new(page.manual, *line, what, format!("the list is in {}", page.source))
    });
    untold.chain(unknown).collect()
}

/// Lines of a macro call, without its first and last.
fn call<'a>(file: &'a File, name: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let opening = format!("{name}! {{");
    let from = file.lines().skip_while(move |(_, text)| *text != opening).skip(1);
    from.take_while(|(_, text)| *text != "}")
}

/// `Variant "name" "meaning",`
fn reasons(source: &File) -> Names {
    let entry = |(line, text): (usize, &str)| {
        let mut parts = text.trim().split('"');
        let variant = parts.next()?.trim();
        let is_variant = variant.starts_with(char::is_uppercase) && !variant.contains(' ');
        Some((parts.next().filter(|_| is_variant)?.to_owned(), line))
    };
    call(source, "drop_reasons").filter_map(entry).collect()
}

/// `name: type, Kind, "help";`
fn counters(source: &File) -> Names {
    let entry = |(line, text): (usize, &str)| {
        let (name, rest) = text.trim().split_once(": ")?;
        rest.ends_with("\";").then(|| (name.to_owned(), line))
    };
    call(source, "counters").filter_map(entry).collect()
}

/// `"name" Kind field, "help";`, in one line or two.
fn ring_counters(source: &File) -> Names {
    let entry = |(line, text): (usize, &str)| {
        let (name, rest) = text.strip_prefix("    \"")?.split_once("\" ")?;
        rest.starts_with(char::is_uppercase).then(|| (name.to_owned(), line))
    };
    source.lines().filter_map(entry).collect()
}

/// `section.key = "default",` at the head of an entry of three lines.
fn options(source: &File) -> Names {
    let entry = |(line, text): (usize, &str)| {
        let (name, _) = text.trim().split_once(" = ")?;
        let is_name =
            name.contains('.') && name.chars().all(|c| c.is_alphanumeric() || "._".contains(c));
        is_name.then(|| (name.to_owned(), line))
    };
    call(source, "options").filter_map(entry).collect()
}

/// The backquoted name at the beginning of a table row.
fn cell(text: &str) -> Option<&str> {
    text.strip_prefix("| `")?.split('`').next()
}

fn first_cells(manual: &File) -> Names {
    manual.lines().filter_map(|(line, text)| Some((cell(text)?.to_owned(), line))).collect()
}

/// The backquoted name at the beginning of a list item.
fn bullets(manual: &File) -> Names {
    let name = |text: &str| Some(text.strip_prefix("- `")?.split('`').next()?.to_owned());
    manual.lines().filter_map(|(line, text)| Some((name(text)?, line))).collect()
}

/// As `section.key`, the section from the heading above: ``## `[section]` ``.
fn cells_by_section(manual: &File) -> Names {
    let mut section = String::new();
    let mut names = Names::new();
    for (line, text) in manual.lines() {
        if let Some(heading) = text.strip_prefix("## `[") {
            section = heading.trim_matches(['[', ']', '`']).to_owned();
        } else if let Some(key) = cell(text) {
            names.insert(format!("{section}.{key}"), line);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: &str = "macro_rules! x {\n    A \"no\" \"no\",\n}\ndrop_reasons! {\n    // Outside.\n    \
                           IndexUnknown \"index_unknown\" \"Stale.\",\n    PeerGone \"peer_gone\" \"Gone.\",\n}\n";

    fn whats(page: usize, source: &str, manual: &str) -> Vec<String> {
        let page = &PAGES[page];
        let repo = Repo::of(&[(page.source, source), (page.manual, manual)]);
        compare(page, &repo).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn the_manual_names_every_reason_and_no_other() {
        let both = "| `index_unknown` | x |\n| `peer_gone` | y |\n";
        assert!(whats(0, REASONS, both).is_empty());
        let one = "| `index_unknown` | x |\n";
        assert_eq!(whats(0, REASONS, one), ["`peer_gone` is not in the manual"]);
        let three = format!("{both}| `moon_full` | z |\n");
        assert_eq!(whats(0, REASONS, &three), ["`moon_full` does not exist"]);
    }

    #[test]
    fn the_manual_names_every_counter() {
        let source = "counters! {\n    turns: u64, Counter, \"Turns.\";\n}\n";
        assert!(whats(1, source, "| `turns` | x |\n").is_empty());
        assert_eq!(whats(1, source, ""), ["`turns` is not in the manual"]);
    }

    #[test]
    fn the_manual_names_every_option_in_its_section() {
        let source =
            "options! {\n    peer.name = \"none\",\n        \"a name\",\n        \"Help.\";\n}\n";
        assert!(whats(3, source, "## `[[peer]]`\n| `name` | x |\n").is_empty());
        assert_eq!(whats(3, source, "## `[log]`\n| `name` | x |\n").len(), 2);
    }

    #[test]
    fn a_missing_page_and_a_list_of_another_form_are_findings() {
        assert_eq!(compare(&PAGES[0], &Repo::of(&[(PAGES[0].source, REASONS)])).len(), 1);
        assert_eq!(whats(0, "reasons! {\n}\n", ""), ["no list is found"]);
    }
}
