//! Reads Rust text as a reader would: what is code, what is a comment, what is a literal, what is a test.

use std::ops::Range;

/// One Rust file, seen three ways. All views have the length and the lines of the original.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text without comments and without the insides of literals.
    pub(crate) code: String,
    /// The text without comments; literals are there.
    pub(crate) uncommented: String,
    /// The insides of the string literals, each with the offset where it begins.
    pub(crate) literals: Vec<(usize, String)>,
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Reads `text`; never fails, an unfinished literal or comment ends with the file.
    pub(crate) fn read(text: &str) -> Self {
        let mut lexer = Lexer::new(text);
        while lexer.at < lexer.bytes.len() {
            lexer.step();
        }
        let code = lossy(&lexer.code);
        let tests = test_items(code.as_bytes());
        Self {
            uncommented: lossy(&lexer.uncommented),
            literals: lexer.literals,
            tests,
            code,
        }
    }

    /// Tells whether the byte at `offset` belongs to an item that only tests have.
    pub(crate) fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Gives the line of the byte at `offset`, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        line_of(&self.code, offset)
    }

    /// Finds `needle` in the code where no longer word contains it.
    pub(crate) fn words(&self, needle: &str) -> Vec<usize> {
        words(&self.code, needle)
    }
}

/// Gives the line of the byte at `offset` of `text`, counted from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    let until = text.as_bytes().iter().take(offset);
    1 + until.filter(|byte| **byte == b'\n').count()
}

/// Finds `needle` in `text` where no longer word contains it.
pub(crate) fn words(text: &str, needle: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let starts_word = needle.bytes().next().is_some_and(is_word);
    let ends_word = needle.bytes().last().is_some_and(is_word);
    text.match_indices(needle)
        .map(|(at, _)| at)
        .filter(|at| !starts_word || *at == 0 || !is_word(bytes[at - 1]))
        .filter(|at| !ends_word || !bytes.get(at + needle.len()).copied().is_some_and(is_word))
        .collect()
}

/// Finds the brace that closes the one at `open`; the end of the text if there is none.
pub(crate) fn closing_brace(code: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Tells whether a byte can be part of an identifier.
pub(crate) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Finds the items behind `#[cfg(test)]` and `#[cfg(all(test, …))]`.
fn test_items(code: &[u8]) -> Vec<Range<usize>> {
    let text = String::from_utf8_lossy(code);
    let mut found = Vec::new();
    for needle in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (at, _) in text.match_indices(needle) {
            let end = item_end(code, at + needle.len());
            found.push(at..end);
        }
    }
    found
}

/// Finds where the item that begins at `from` ends: at its `;`, or at the brace that closes it.
fn item_end(code: &[u8], from: usize) -> usize {
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b';' => return at,
            b'{' => return closing_brace(code, at) + 1,
            _ => {}
        }
    }
    code.len()
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    code: Vec<u8>,
    uncommented: Vec<u8>,
    literals: Vec<(usize, String)>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
            code: text.as_bytes().to_vec(),
            uncommented: text.as_bytes().to_vec(),
            literals: Vec::new(),
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (b'/', b'/') => self.line_comment(),
            (b'/', b'*') => self.block_comment(),
            (b'"', _) => self.literal(1, 0, true),
            (b'\'', _) => self.quote(),
            (byte, _) if is_word(byte) => self.word(),
            _ => self.at += 1,
        }
    }

    fn line_comment(&mut self) {
        let from = self.at;
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            self.at += 1;
        }
        self.blank(from..self.at, true);
    }

    fn block_comment(&mut self) {
        let from = self.at;
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.at = self.at.min(self.bytes.len());
        self.blank(from..self.at, true);
    }

    /// Passes a word, and the literal behind it where the word is a prefix such as `br`.
    fn word(&mut self) {
        let from = self.at;
        while is_word(self.peek(0)) {
            self.at += 1;
        }
        let word = &self.bytes[from..self.at];
        let raw = matches!(word, b"r" | b"br" | b"cr");
        if raw {
            let mut hashes = 0;
            while self.peek(hashes) == b'#' {
                hashes += 1;
            }
            if self.peek(hashes) == b'"' {
                self.literal(hashes + 1, hashes, false);
            }
        } else if matches!(word, b"b" | b"c") && self.peek(0) == b'"' {
            self.literal(1, 0, true);
        }
    }

    /// Passes a literal whose inside begins `skip` bytes on and which ends in a quote and `hashes`.
    fn literal(&mut self, skip: usize, hashes: usize, escapes: bool) {
        let from = self.at + skip;
        self.at = from;
        while self.at < self.bytes.len() {
            if escapes && self.peek(0) == b'\\' {
                self.at += 2;
            } else if self.peek(0) == b'"' && (1..=hashes).all(|ahead| self.peek(ahead) == b'#') {
                break;
            } else {
                self.at += 1;
            }
        }
        let end = self.at.min(self.bytes.len());
        self.literals
            .push((from, lossy(&self.bytes[from.min(end)..end])));
        self.blank(from.min(end)..end, false);
        self.at = (end + 1 + hashes).min(self.bytes.len());
    }

    /// Passes a character literal, or the quote of a lifetime.
    fn quote(&mut self) {
        let from = self.at + 1;
        if self.peek(1) == b'\\' {
            self.at += 3;
            while self.at < self.bytes.len() && self.peek(0) != b'\'' {
                self.at += 1;
            }
            self.blank(from..self.at.min(self.bytes.len()), false);
            self.at += 1;
            return;
        }
        let width = match self.peek(1) {
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        };
        if self.peek(1 + width) == b'\'' {
            self.blank(from..(from + width).min(self.bytes.len()), false);
            self.at += width + 2;
        } else {
            self.at += 1;
        }
    }

    fn blank(&mut self, range: Range<usize>, comment: bool) {
        for at in range {
            if self.bytes[at] != b'\n' {
                self.code[at] = b' ';
                if comment {
                    self.uncommented[at] = b' ';
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_remains_without_comments_and_literals() {
        for (text, code) in [
            ("let a = 1; // b", "let a = 1;     "),
            ("/* a /* b */ c */d", "                 d"),
            (r#"f("x // \" y") // z"#, r#"f("         ")     "#),
            (r##"f(r#"a"b"#, 1)"##, r##"f(r#"   "#, 1)"##),
            ("f('\"', 'a', '\\'', b'x')", "f(' ', ' ', '  ', b' ')"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("r#fn(b\"q\")", "r#fn(b\" \")"),
        ] {
            assert_eq!(Source::read(text).code, code);
        }
    }

    #[test]
    fn an_unfinished_text_ends_with_the_file() {
        for text in ["\"abc", "/* abc", "'\\", "r##\"x\"#", "\"\\", "'"] {
            assert_eq!(Source::read(text).code.len(), text.len());
        }
    }

    #[test]
    fn literals_keep_their_place_and_text() {
        let source = Source::read("a(\"one\", r#\"two\"#)");
        assert_eq!(source.literals, [(3, "one".into()), (12, "two".into())]);
    }

    #[test]
    fn a_test_item_reaches_to_its_closing_brace() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x() } }\nfn c() {}\n";
        let source = Source::read(text);
        for (word, is_test) in [("a()", false), ("x()", true), ("c()", false)] {
            let at = text.find(word).expect("it is in the text");
            assert_eq!(source.is_test(at), is_test, "{word}");
        }
    }

    #[test]
    fn words_do_not_match_inside_longer_words() {
        assert_eq!(words("decide(a); undecide(b)", "decide("), [0]);
        assert_eq!(words("select! biased_select!", "select!"), [0]);
    }
}
