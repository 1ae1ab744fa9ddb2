//! The feature table of README.md, made from the claims, so that it can promise nothing that no
//! test proves.

use std::path::Path;

use anyhow::{Context, Result};

use crate::Finding;
use crate::claims::{self, Claim, Tier};
use crate::repo::Repo;

const README: &str = "README.md";
const BEGIN: &str = "<!-- features: made from tests/coverage.toml by `ringway-tidy --write` -->\n";
const END: &str = "<!-- features end -->\n";

/// The table in the file is the one that the claims make.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let Some(readme) = repo.file(README) else {
        return vec![Finding::new(README, 1, "is missing", "it is the front door")];
    };
    match replaced(&readme.text, &table(&claims::read(repo).claims)) {
        Some(text) if text == readme.text => Vec::new(),
        Some(_) => {
            let line =
                1 + readme.text.split(BEGIN).next().unwrap_or_default().matches('\n').count();
            vec![Finding::new(
                README,
                line,
                "the feature table is out of date",
                "run: ringway-tidy --write",
            )]
        }
        None => {
            vec![Finding::new(README, 1, "no feature table", format!("add the lines {BEGIN}{END}"))]
        }
    }
}

/// Writes the table into the file.
pub(crate) fn write(root: &Path) -> Result<()> {
    let path = root.join(README);
    let old = std::fs::read_to_string(&path).context("README.md cannot be read")?;
    let claims = claims::read(&Repo::read(root)?).claims;
    let new = replaced(&old, &table(&claims))
        .context("README.md has no lines that mark the feature table")?;
    if new != old {
        std::fs::write(&path, new)?;
    }
    Ok(())
}

fn replaced(text: &str, table: &str) -> Option<String> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}{table}{END}{tail}"))
}

fn table(claims: &[Claim]) -> String {
    let mut table =
        String::from("| Row | What you can do | Proven | Not yet |\n| --- | --- | --- | --- |\n");
    for claim in claims {
        let proof = match claim.tier {
            Tier::Ci => format!("every change, {} tests", claim.tests.len()),
            Tier::Full => {
                let result = claim.result.as_deref().unwrap_or_default();
                format!("[by hand]({result})")
            }
        };
        let proof = proof.replace(" 1 tests", " 1 test");
        let cells = [&claim.id, &claim.sentence, &proof, &claim.remains]
            .map(|cell| cell.replace('|', "\\|"));
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
            id: "PT-1".to_owned(),
            sources: Vec::new(),
            sentence: "Stock clients connect.".to_owned(),
            claims: "c".to_owned(),
            tier: Tier::Ci,
            tests: vec!["script:a".to_owned()],
            result: None,
            remains: "a | b".to_owned(),
        }
    }

    #[test]
    fn the_table_has_a_line_per_claim() {
        let table = table(&[claim()]);
        assert!(
            table.ends_with("| PT-1 | Stock clients connect. | every change, 1 test | a \\| b |\n")
        );
    }

    #[test]
    fn writing_the_table_twice_changes_nothing() {
        let text = format!("# A\n{BEGIN}old\n{END}end\n");
        let once = replaced(&text, &table(&[claim()])).unwrap_or_default();
        assert_eq!(replaced(&once, &table(&[claim()])), Some(once.clone()));
        assert!(once.starts_with("# A\n") && once.ends_with("end\n"));
    }

    #[test]
    fn a_stale_table_is_a_finding() {
        let text = format!("{BEGIN}old\n{END}");
        let findings = check(&Repo::of(&[(README, &text)]));
        assert!(matches!(findings.as_slice(), [one] if one.what.contains("out of date")));
    }
}
