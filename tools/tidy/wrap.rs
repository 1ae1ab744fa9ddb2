//! Flows prose comments into the column limit, which rustfmt leaves alone.
//!
//! A paragraph is touched only if one of its lines is too long. Tables, code fences, pictures
//! and lines indented on purpose stay as they are: whoever drew them knows why.

/// `text` with its comment paragraphs flowed into `columns_max`.
pub(crate) fn comments(text: &str, columns_max: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut paragraph = Paragraph::default();
    let mut in_fence = false;
    for line in text.lines() {
        let comment = Comment::of(line);
        if comment.is_some_and(|comment| comment.text.trim_start().starts_with("```")) {
            in_fence = !in_fence;
        }
        match comment.filter(|comment| !in_fence && comment.is_prose()) {
            Some(comment) if paragraph.continues(comment) => paragraph.lines.push(line),
            Some(comment) => {
                paragraph.flush(columns_max, &mut out);
                paragraph = Paragraph { head: Some(comment), lines: vec![line] };
            }
            None => {
                paragraph.flush(columns_max, &mut out);
                paragraph = Paragraph::default();
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    paragraph.flush(columns_max, &mut out);
    out
}

/// A line that is nothing but a comment.
#[derive(Clone, Copy)]
struct Comment<'a> {
    indent: &'a str,
    marker: &'a str,
    /// Behind the marker and one space.
    text: &'a str,
}

impl<'a> Comment<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let start = line.len() - line.trim_start().len();
        let (indent, rest) = line.split_at(start);
        let marker = ["//!", "///", "//"].into_iter().find(|marker| rest.starts_with(marker))?;
        let text = rest.strip_prefix(marker)?;
        let text = text.strip_prefix(' ').or_else(|| text.is_empty().then_some(text))?;
        Some(Self { indent, marker, text })
    }

    /// What may be flowed: words with single spaces between them.
    fn is_prose(self) -> bool {
        let drawn = self.text.starts_with(['|', '#', '+']) || self.text.contains("  ");
        let indented = self.text.starts_with(' ') && self.item_indent() == 0;
        !self.text.is_empty() && !drawn && !indented
    }

    /// Columns by which the lines of a list item hang: `- ` 2, `1. ` 3. Zero for other text.
    fn item_indent(self) -> usize {
        let digits = self.text.bytes().take_while(u8::is_ascii_digit).count();
        let rest = self.text.get(digits..).unwrap_or_default();
        match digits {
            0 if rest.starts_with("- ") || rest.starts_with("* ") => 2,
            1.. if rest.starts_with(". ") => digits + 2,
            _ => 0,
        }
    }
}

/// Lines that belong together.
#[derive(Default)]
struct Paragraph<'a> {
    head: Option<Comment<'a>>,
    lines: Vec<&'a str>,
}

impl<'a> Paragraph<'a> {
    fn continues(&self, next: Comment<'a>) -> bool {
        self.head.is_some_and(|head| {
            head.indent == next.indent && head.marker == next.marker && next.item_indent() == 0
        })
    }

    fn flush(&self, columns_max: usize, out: &mut String) {
        let Some(head) = self.head else { return };
        if self.lines.iter().all(|line| line.chars().count() <= columns_max) {
            self.lines.iter().for_each(|line| {
                out.push_str(line);
                out.push('\n');
            });
            return;
        }
        let start = format!("{}{} ", head.indent, head.marker);
        let hang = " ".repeat(head.item_indent());
        let texts = self.lines.iter().filter_map(|line| Comment::of(line));
        let mut line = start.clone();
        for word in texts.flat_map(|comment| comment.text.split(' ')).filter(|w| !w.is_empty()) {
            let is_first = line.trim_end().len() <= start.trim_end().len();
            let gap = usize::from(!is_first && !line.ends_with(' '));
            if !is_first && line.chars().count() + gap + word.chars().count() > columns_max {
                out.push_str(line.trim_end());
                out.push('\n');
                line = format!("{start}{hang}");
            } else if gap == 1 {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_paragraph_is_flowed_and_its_neighbours_are_not() {
        let text =
            "//! Head.\n//!\n//! one two three four\n//! five\n\nfn f() {} // a b c d e f g h i\n";
        let wanted = "//! Head.\n//!\n//! one two\n//! three\n//! four five\n\nfn f() {} // a b c d e f g h i\n";
        assert_eq!(comments(text, 13), wanted);
    }

    #[test]
    fn list_items_hang_and_do_not_run_together() {
        let text = "    // - one two three\n    // - four\n";
        assert_eq!(comments(text, 16), "    // - one two\n    //   three\n    // - four\n");
    }

    #[test]
    fn what_was_drawn_stays() {
        let text = "/// ```\n/// let a = a very long line;\n/// ```\n/// | a | b | c | d |\n/// a  ──►  b  ──►  c\n";
        assert_eq!(comments(text, 10), text);
    }

    #[test]
    fn flowing_twice_changes_nothing() {
        let text = "/// one two three four five six\n///\n/// - seven eight nine ten\n";
        let once = comments(text, 20);
        assert_eq!(comments(&once, 20), once);
    }
}
