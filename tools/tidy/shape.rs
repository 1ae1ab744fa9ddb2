//! Sizes: files, functions, lines. A file that outgrows a screenful of screens has two subjects.

use crate::Finding;
use crate::repo::File;
use crate::source::{Class, Source};

/// Lines of a source file. What is longer is split along a seam, not at a line count.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from `fn` to the closing brace: what one screen shows.
const FUNCTION_LINES_MAX: usize = 70;
/// Columns of a line of code or comment, as in rustfmt.toml.
pub(crate) const LINE_COLUMNS_MAX: usize = 100;

/// Sizes of one file.
pub(crate) fn check(file: &File) -> Vec<Finding> {
    if file.path.starts_with("tests/fuzz/") || !(file.rust.is_some() || file.is_script()) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, at most {FILE_LINES_MAX}");
        findings.push(Finding::new(&file.path, 1, what, "split it along a seam"));
    }
    findings.extend(file.rust.iter().flat_map(|source| long_functions(&file.path, source)));
    findings.extend(long_lines(file));
    findings
}

fn long_functions(path: &str, source: &Source) -> Vec<Finding> {
    let long = source.functions().into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
    long.map(|function| {
        let what = format!("fn {} has {} lines", function.name, function.lines);
        Finding::new(
            path,
            function.line,
            what,
            format!("at most {FUNCTION_LINES_MAX}: push steps into callees"),
        )
    })
    .collect()
}

fn long_lines(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut offset = 0;
    for (line, text) in file.lines() {
        let columns = text.chars().count();
        if columns > LINE_COLUMNS_MAX && !is_tolerated(file, text, offset) {
            let what = format!("{columns} columns, at most {LINE_COLUMNS_MAX}");
            findings.push(Finding::new(
                &file.path,
                line,
                what,
                "wrap it; comments: ringway-tidy --write PATH",
            ));
        }
        offset += text.len() + 1;
    }
    findings
}

/// A string is not broken up for the sake of its line, and an address cannot be.
fn is_tolerated(file: &File, line: &str, offset: usize) -> bool {
    let edge = line.char_indices().nth(LINE_COLUMNS_MAX).map_or(line.len(), |(at, _)| at);
    // The string may end just before the edge, with a bracket and a comma behind it.
    let near = edge.saturating_sub(3)..=edge;
    let in_text =
        |source: &Source| near.clone().any(|at| source.class_at(offset + at) == Class::Text);
    let word_at_edge =
        line.get(..edge).and_then(|head| head.rsplit(' ').next()).unwrap_or_default();
    file.rust.as_ref().is_some_and(in_text) || word_at_edge.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&File::new(path, text)).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_long_file_is_found_unless_it_is_a_fuzz_target_or_prose() {
        let text = "//\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(whats("flow/a.rs", &text), ["601 lines, at most 600"]);
        assert!(whats("tests/fuzz/a.rs", &text).is_empty());
        assert!(whats("README.md", &text).is_empty());
    }

    #[test]
    fn a_long_function_is_found_at_its_first_line() {
        let text = format!("\nfn long() {{\n{}}}\n", "    step();\n".repeat(FUNCTION_LINES_MAX));
        let findings = check(&File::new("flow/a.rs", &text));
        assert!(
            matches!(findings.as_slice(), [one] if one.line == 2 && one.what.contains("72 lines"))
        );
    }

    #[test]
    fn a_line_may_be_long_only_for_a_string_or_an_address() {
        let code = format!("let {} = 1;", "a".repeat(100));
        let comment = format!("// {}", "a ".repeat(60));
        let string = format!("let a = \"{}\";", "a ".repeat(60));
        let address = format!("// see https://example.org/{}", "a".repeat(90));
        assert_eq!(whats("a.rs", &code).len(), 1);
        assert_eq!(whats("a.rs", &comment).len(), 1);
        assert!(whats("a.rs", &string).is_empty());
        assert!(whats("a.rs", &address).is_empty());
    }
}
