//! A Rust file as the checks see it: which bytes are code, comment or string, and where functions
//! and inline modules begin and end.
//!
//! This is a lexer of a few dozen lines, not a parser: it knows comments, strings, characters and
//! braces. It must not know any rule.

use std::ops::Range;

/// What a byte of the source belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Tokens and the space between them.
    Code,
    /// Line and block comments, documentation included.
    Comment,
    /// Inside a string, byte string or character literal, quotes included.
    Text,
}

/// A source file with its classes.
#[derive(Debug)]
pub(crate) struct Source {
    /// The same length, with every byte of comments and literals replaced by a space; line breaks
    /// are kept.
    pub(crate) code: String,
    classes: Vec<Class>,
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Inline modules around it, outermost first.
    pub(crate) modules: Vec<String>,
    /// The line of `fn`, from 1.
    pub(crate) line: usize,
    /// From the line of `fn` to the closing brace.
    pub(crate) lines: usize,
    /// The harness runs it: `#[test]` stands before it, or it stands in a `proptest!`.
    pub(crate) is_test: bool,
}

impl Source {
    /// Classifies `text`.
    pub(crate) fn new(text: &str) -> Self {
        let classes = classify(text.as_bytes());
        let mask = |(byte, class): (u8, &Class)| match class {
            Class::Code => byte,
            Class::Comment | Class::Text if byte == b'\n' => byte,
            Class::Comment | Class::Text => b' ',
        };
        let code: Vec<u8> = text.bytes().zip(&classes).map(mask).collect();
        let code = String::from_utf8_lossy(&code).into_owned();
        Self { code, classes }
    }

    /// The class of the byte at `offset`; past the end it is code.
    pub(crate) fn class_at(&self, offset: usize) -> Class {
        self.classes.get(offset).copied().unwrap_or(Class::Code)
    }

    /// The line of the byte at `offset`, from 1.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        1 + self.code.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    /// Offsets at which `word` stands in the code as a whole word.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let bytes = self.code.as_bytes();
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            let after = bytes.get(at + word.len());
            let free = |byte: Option<&u8>| !byte.is_some_and(|byte| is_word(*byte));
            free(before) && free(after)
        })
    }

    /// The first line that belongs to tests (`#[cfg(test)]` before a module), if there is one.
    pub(crate) fn tests_from_line(&self) -> usize {
        let starts = self.code.match_indices("#[cfg(test)]").chain(
            self.code
                .match_indices("#[cfg(all(test")
                .chain(self.code.match_indices("#![cfg(test)]")),
        );
        starts.map(|(at, _)| self.line_of(at)).min().unwrap_or(usize::MAX)
    }

    /// Every function that has a body, in the order of the file.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let modules = self.inline_modules();
        let proptests: Vec<Range<usize>> =
            self.words("proptest").filter_map(|at| self.braces_after(at)).collect();
        self.words("fn").filter_map(|at| self.function_at(at, &modules, &proptests)).collect()
    }

    fn function_at(
        &self,
        at: usize,
        modules: &[(String, Range<usize>)],
        proptests: &[Range<usize>],
    ) -> Option<Function> {
        let name = self.word_after(at + "fn".len())?;
        let body = self.braces_after(at)?;
        let line = self.line_of(at);
        let within = |range: &Range<usize>| range.contains(&at);
        let modules = modules.iter().filter(|(_, range)| within(range));
        Some(Function {
            name,
            modules: modules.map(|(name, _)| name.clone()).collect(),
            line,
            lines: self.line_of(body.end) - line + 1,
            is_test: self.has_test_attribute(at) || proptests.iter().any(within),
        })
    }

    /// Names of tests that a macro makes: where a test function is called `$name`, the first word
    /// of each row (`name: …;`) of a macro call of this file; and the rows (`name,`) of
    /// `on_each_driver!`, which the tests of the drivers share.
    pub(crate) fn tests_made_by_macros(&self) -> Vec<String> {
        let calls = self.code.split("\non_each_driver! {\n").skip(1);
        let rows = |call: &'_ str| -> Vec<String> {
            let row = |line: &str| Some(line.strip_prefix("    ")?.strip_suffix(',')?.to_owned());
            call.lines().map_while(row).collect()
        };
        calls.flat_map(rows).chain(self.rows_of_own_macros()).collect()
    }

    fn rows_of_own_macros(&self) -> Vec<String> {
        let makes = |(at, _): (usize, &str)| self.has_test_attribute(at);
        if !self.code.match_indices("fn $name").any(makes) {
            return Vec::new();
        }
        let rows = self.code.lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("    ")?.split_once(':')?;
            let is_name = !name.is_empty() && name.bytes().all(is_word);
            is_name.then(|| name.to_owned())
        });
        rows.collect()
    }

    fn inline_modules(&self) -> Vec<(String, Range<usize>)> {
        let module = |at: usize| {
            let name = self.word_after(at + "mod".len())?;
            Some((name, self.braces_after(at)?))
        };
        self.words("mod").filter_map(module).collect()
    }

    /// Whether an attribute directly before the function at `at` makes it a test.
    fn has_test_attribute(&self, at: usize) -> bool {
        let before = self.code.get(..at).unwrap_or_default();
        let start = before.rfind(['{', '}', ';']).map_or(0, |found| found + 1);
        let attributes = before.get(start..).unwrap_or_default();
        ["#[test]", "::test]", "::test("].iter().any(|mark| attributes.contains(mark))
    }

    fn word_after(&self, at: usize) -> Option<String> {
        let rest = self.code.get(at..)?.trim_start();
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        (!word.is_empty()).then_some(word)
    }

    /// The block that belongs to the item at `at`: from its first brace to the matching one. None
    /// if a semicolon outside of brackets comes first (a declaration).
    fn braces_after(&self, at: usize) -> Option<Range<usize>> {
        let (mut depth, mut brackets, mut start) = (0_u32, 0_i32, None);
        for (offset, byte) in self.code.bytes().enumerate().skip(at) {
            match byte {
                b'(' | b'[' => brackets += 1,
                b')' | b']' => brackets -= 1,
                b';' if start.is_none() && brackets == 0 => return None,
                b'{' => {
                    depth += 1;
                    start.get_or_insert(offset);
                }
                b'}' if depth == 0 => return None,
                b'}' => depth -= 1,
                _ => {}
            }
            if let (Some(start), b'}', 0) = (start, byte, depth) {
                return Some(start..offset);
            }
        }
        None
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn classify(bytes: &[u8]) -> Vec<Class> {
    let mut classes = Vec::with_capacity(bytes.len());
    while let Some(rest) = bytes.get(classes.len()..).filter(|rest| !rest.is_empty()) {
        let follows_word = classes
            .len()
            .checked_sub(1)
            .and_then(|before| bytes.get(before))
            .is_some_and(|byte| is_word(*byte));
        let (class, len) = token(rest, follows_word);
        classes.resize(classes.len() + len.clamp(1, rest.len()), class);
    }
    classes
}

/// The class and length of what stands at the beginning of `rest`.
fn token(rest: &[u8], follows_word: bool) -> (Class, usize) {
    if rest.starts_with(b"//") {
        let end = rest.iter().position(|byte| *byte == b'\n');
        return (Class::Comment, end.unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return (Class::Comment, block_comment_len(rest));
    }
    if rest.starts_with(b"\"") {
        return (Class::Text, quoted_len(rest, b'"'));
    }
    if let Some(len) = raw_string_len(rest).filter(|_| !follows_word) {
        return (Class::Text, len);
    }
    if let Some(len) = character_len(rest) {
        return (Class::Text, len);
    }
    (Class::Code, 1)
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(pair) = rest.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.iter().enumerate().skip(1) {
        match *byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`; a raw identifier is none.
fn raw_string_len(rest: &[u8]) -> Option<usize> {
    let prefix = [&b"r"[..], b"br", b"cr"].into_iter().find(|prefix| rest.starts_with(prefix))?;
    let after = rest.get(prefix.len()..)?;
    let hashes = after.iter().take_while(|byte| **byte == b'#').count();
    (after.get(hashes) == Some(&b'"')).then_some(())?;
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = prefix.len() + hashes + 1;
    let found = rest.get(body..)?.windows(end.len()).position(|window| window == end.as_slice());
    Some(found.map_or(rest.len(), |found| body + found + end.len()))
}

/// A character literal; a lifetime is none.
fn character_len(rest: &[u8]) -> Option<usize> {
    rest.starts_with(b"'").then_some(())?;
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted_len(rest, b'\''));
    }
    // The quote closes after one character, which may be up to four bytes long.
    let close = rest.iter().skip(2).take(4).position(|byte| *byte == b'\'')? + 2;
    let inner = rest.get(1..close)?;
    (std::str::from_utf8(inner).ok()?.chars().count() == 1).then_some(close + 1)
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
