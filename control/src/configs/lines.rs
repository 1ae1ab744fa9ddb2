//! What changed between two texts, line by line, as `diff -u` writes it. Pure.

use std::fmt::Write as _;

/// Unchanged lines that are shown around a change.
const AROUND: usize = 3;

/// Cells of the table of the exact comparison. Beyond it (some 2,000 changed lines on both sides)
/// everything between the common beginning and end is shown as replaced.
const CELLS_MAX: usize = 4 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The difference; empty if there is none.
#[must_use]
pub fn diff(before: &str, after: &str) -> String {
    let script = script(&before.lines().collect::<Vec<_>>(), &after.lines().collect::<Vec<_>>());
    let mut out = String::new();
    let (mut old, mut new) = (1, 1);
    let mut at = 0;
    while at < script.len() {
        let Some(ahead) = script[at..].iter().position(|line| !same(line)) else { break };
        let start = (at + ahead).saturating_sub(AROUND).max(at);
        old += start - at;
        new += start - at;
        let end = hunk_end(&script, at + ahead);
        let hunk = &script[start..end];
        let (olds, news) = (count(hunk, true), count(hunk, false));
        let _ = writeln!(out, "@@ -{old},{olds} +{new},{news} @@");
        for line in hunk {
            let (sign, text) = match line {
                Line::Same(text) => (' ', text),
                Line::Gone(text) => ('-', text),
                Line::New(text) => ('+', text),
            };
            let _ = writeln!(out, "{sign}{text}");
        }
        old += olds;
        new += news;
        at = end;
    }
    out
}

const fn same(line: &Line<'_>) -> bool {
    matches!(line, Line::Same(_))
}

fn count(hunk: &[Line<'_>], before: bool) -> usize {
    let other = |line: &&Line<'_>| match line {
        Line::Same(_) => true,
        Line::Gone(_) => before,
        Line::New(_) => !before,
    };
    hunk.iter().filter(other).count()
}

/// Where the hunk ends whose first change is at `first`: after so many unchanged lines.
fn hunk_end(script: &[Line<'_>], first: usize) -> usize {
    let mut last = first;
    for (at, line) in script.iter().enumerate().skip(first) {
        if at > last + 2 * AROUND {
            break;
        }
        if !same(line) {
            last = at;
        }
    }
    (last + 1 + AROUND).min(script.len())
}

fn script<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (b, a) = (&before[head..], &after[head..]);
    let tail = b.iter().rev().zip(a.iter().rev()).take_while(|(a, b)| a == b).count();
    let (b, a) = (&b[..b.len() - tail], &a[..a.len() - tail]);
    let mut out: Vec<Line<'a>> = before[..head].iter().map(|line| Line::Same(line)).collect();
    middle(b, a, &mut out);
    out.extend(before[before.len() - tail..].iter().map(|line| Line::Same(line)));
    out
}

/// By the longest common subsequence.
fn middle<'a>(b: &[&'a str], a: &[&'a str], out: &mut Vec<Line<'a>>) {
    let width = a.len() + 1;
    if (b.len() + 1).saturating_mul(width) > CELLS_MAX {
        out.extend(b.iter().map(|line| Line::Gone(line)));
        out.extend(a.iter().map(|line| Line::New(line)));
        return;
    }
    let mut longest = vec![0u32; (b.len() + 1) * width];
    for i in (0..b.len()).rev() {
        for j in (0..a.len()).rev() {
            longest[i * width + j] = if b[i] == a[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < b.len() || j < a.len() {
        let (can_go, can_come) = (i < b.len(), j < a.len());
        if can_go && can_come && b[i] == a[j] {
            out.push(Line::Same(b[i]));
            (i, j) = (i + 1, j + 1);
        } else if can_go
            && (!can_come || longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            out.push(Line::Gone(b[i]));
            i += 1;
        } else {
            out.push(Line::New(a[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_is_shown_with_what_stands_around_it() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let after = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n";
        assert_eq!(diff(before, after), "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
        assert_eq!(diff(before, before), "");
        assert_eq!(diff("", "a\n"), "@@ -1,0 +1,1 @@\n+a\n");
    }

    #[test]
    fn texts_without_anything_in_common_are_compared_in_bounded_memory() {
        let (before, after) = ("a\n".repeat(9_000), "b\n".repeat(9_000));
        assert_eq!(diff(&before, &after).lines().count(), 18_001);
    }

    /// Applies a script to `before`.
    fn apply(before: &str, diff: &str) -> String {
        let before: Vec<&str> = before.lines().collect();
        let (mut out, mut at) = (Vec::new(), 0);
        for line in diff.lines() {
            if let Some(head) = line.strip_prefix("@@ -") {
                let start: usize = head.split(',').next().unwrap().parse().unwrap();
                while at + 1 < start {
                    out.push(before[at]);
                    at += 1;
                }
                continue;
            }
            let (sign, text) = line.split_at(1);
            match sign {
                " " => {
                    assert_eq!(before[at], text);
                    out.push(text);
                    at += 1;
                }
                "-" => {
                    assert_eq!(before[at], text);
                    at += 1;
                }
                _ => out.push(text),
            }
        }
        out.extend(&before[at..]);
        out.iter().map(|line| format!("{line}\n")).collect()
    }

    proptest! {
        #[test]
        fn a_difference_applied_to_the_old_text_gives_the_new_one(
            before in prop::collection::vec("[ab]{0,2}", 0..40),
            after in prop::collection::vec("[ab]{0,2}", 0..40),
        ) {
            let text = |lines: &[String]| -> String {
                lines.iter().map(|line| format!("{line}\n")).collect()
            };
            let (before, after) = (text(&before), text(&after));
            prop_assert_eq!(apply(&before, &diff(&before, &after)), after);
        }
    }
}
