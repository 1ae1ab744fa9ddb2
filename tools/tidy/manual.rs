//! What the operator reads against what the program does: every drop reason has its line in the
//! manual, and the manual names none that does not exist.

use std::collections::BTreeMap;

use crate::Finding;
use crate::repo::{File, Repo};

const REASONS_SOURCE: &str = "dataplane/proto/src/drop_reason.rs";
const REASONS_MANUAL: &str = "control/manual/reasons.md";

/// The manual and the code say the same.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let Some(source) = repo.file(REASONS_SOURCE) else {
        return vec![Finding::new(
            REASONS_SOURCE,
            1,
            "is missing",
            "the closed list of reasons is there",
        )];
    };
    let Some(manual) = repo.file(REASONS_MANUAL) else {
        return vec![Finding::new(
            REASONS_MANUAL,
            1,
            "is missing",
            "one line per reason: | `name` | meaning |",
        )];
    };
    compare(&reasons(source), REASONS_SOURCE, &first_cells(manual), REASONS_MANUAL)
}

fn compare(
    known: &BTreeMap<String, usize>,
    source: &str,
    told: &BTreeMap<String, usize>,
    manual: &str,
) -> Vec<Finding> {
    let untold = known.iter().filter(|(name, _)| !told.contains_key(*name)).map(|(name, line)| {
        Finding::new(
            source,
            *line,
            format!("`{name}` is not in the manual"),
            format!("add its line to {manual}"),
        )
    });
    let unknown = told.iter().filter(|(name, _)| !known.contains_key(*name)).map(|(name, line)| {
        Finding::new(
            manual,
            *line,
            format!("`{name}` does not exist"),
            format!("the list is in {source}"),
        )
    });
    untold.chain(unknown).collect()
}

/// Names in the list of the `drop_reasons!` call, with their lines: `Variant "name" "meaning",`.
fn reasons(source: &File) -> BTreeMap<String, usize> {
    let listed = source.lines().skip_while(|(_, text)| !text.starts_with("drop_reasons! {"));
    let entry = |(line, text): (usize, &str)| {
        let mut parts = text.trim().split('"');
        let variant = parts.next()?.trim();
        let is_variant = variant.starts_with(char::is_uppercase) && !variant.contains(' ');
        Some((parts.next().filter(|_| is_variant)?.to_owned(), line))
    };
    listed.filter_map(entry).collect()
}

/// The backquoted name at the beginning of each table row, with its line.
fn first_cells(manual: &File) -> BTreeMap<String, usize> {
    let cell = |(line, text): (usize, &str)| {
        let name = text.strip_prefix("| `")?.split('`').next()?;
        Some((name.to_owned(), line))
    };
    manual.lines().filter_map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "macro_rules! x {\n    A \"no\" \"no\",\n}\ndrop_reasons! {\n    // Outside.\n    \
                          IndexUnknown \"index_unknown\" \"Stale.\",\n    PeerGone \"peer_gone\" \"Gone.\",\n}\n";

    fn whats(manual: &str) -> Vec<String> {
        let repo = Repo::of(&[(REASONS_SOURCE, SOURCE), (REASONS_MANUAL, manual)]);
        check(&repo).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn the_manual_names_every_reason_and_no_other() {
        assert!(whats("| `index_unknown` | x |\n| `peer_gone` | y |\n").is_empty());
        assert_eq!(whats("| `index_unknown` | x |\n"), ["`peer_gone` is not in the manual"]);
        let extra = "| `index_unknown` | x |\n| `peer_gone` | y |\n| `moon_full` | z |\n";
        assert_eq!(whats(extra), ["`moon_full` does not exist"]);
    }

    #[test]
    fn a_missing_manual_is_a_finding() {
        let findings = check(&Repo::of(&[(REASONS_SOURCE, SOURCE)]));
        assert!(matches!(findings.as_slice(), [one] if one.path == REASONS_MANUAL));
    }
}
