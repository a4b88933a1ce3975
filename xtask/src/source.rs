//! Rust source text, seen well enough to count lines and find words: comments and literals
//! masked out, test code marked.
//!
//! Not a parser. It knows comments (nested ones too), string, raw string, byte string and
//! character literals, lifetimes, and matching brackets, and nothing of macros or types.
//!
//! Invariant: each view of a [`Source`] has as many lines as the file.

use std::ops::Range;

/// A Rust source file and the views on it that the checks need.
pub struct Source {
    /// The text as it is.
    pub text: String,
    /// Comments and the contents of literals replaced by blanks.
    pub code: String,
    /// Only the contents of string literals removed: what the column limit counts.
    pub unquoted: String,
    /// `code` without the items that are compiled for tests only.
    pub shipped: String,
    /// Names of modules that are declared `#[cfg(test)] mod name;`.
    pub test_modules: Vec<String>,
    test_lines: Vec<Range<usize>>,
}

/// What a character of a source file belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Looks at `text`.
    pub fn new(text: &str) -> Source {
        let chars: Vec<char> = text.chars().collect();
        let kinds = classify(&chars);
        let blank = |hide: &[Kind]| -> String {
            let keep = chars.iter().zip(&kinds);
            keep.map(|(c, kind)| if *c != '\n' && hide.contains(kind) { ' ' } else { *c }).collect()
        };
        let code = blank(&[Kind::Comment, Kind::Literal]);
        let unquoted = chars
            .iter()
            .zip(&kinds)
            .filter(|(c, kind)| **c == '\n' || **kind != Kind::Literal)
            .map(|(c, _)| *c)
            .collect();
        let (shipped, test_modules, test_lines) = strip_tests(&code);
        Source { text: text.to_owned(), code, unquoted, shipped, test_modules, test_lines }
    }

    /// Lines of the file that are not part of a test-only item.
    pub fn shipped_lines(&self) -> usize {
        let total = self.text.lines().count();
        total - self.test_lines.iter().map(Range::len).sum::<usize>()
    }

    /// Whether the whole file is compiled for tests only.
    pub fn is_test_only(&self) -> bool {
        self.code.contains("#![cfg(test)]")
    }
}

fn classify(chars: &[char]) -> Vec<Kind> {
    let mut kinds = vec![Kind::Code; chars.len()];
    let mut at = 0;
    while at < chars.len() {
        let (kind, end) = token_at(chars, at);
        kinds[at..end].fill(kind);
        if kind == Kind::Literal {
            // The quotes stay visible, so that masked code still shows where a literal was.
            kinds[at] = Kind::Code;
            kinds[end - 1] = Kind::Code;
        }
        at = end;
    }
    kinds
}

/// The kind and the end of what starts at `at`. Plain code comes one character, identifiers one
/// word at a time.
fn token_at(chars: &[char], at: usize) -> (Kind, usize) {
    let next = chars.get(at + 1).copied().unwrap_or('\0');
    match chars[at] {
        '/' if next == '/' => (Kind::Comment, find(chars, at, '\n')),
        '/' if next == '*' => (Kind::Comment, block_comment_end(chars, at)),
        '"' => (Kind::Literal, quoted_end(chars, at + 1, '"')),
        '\'' if next == '\\' => (Kind::Literal, quoted_end(chars, at + 1, '\'')),
        '\'' if chars.get(at + 2) == Some(&'\'') => (Kind::Literal, at + 3),
        c if is_word(c) => {
            let end = (at..chars.len()).find(|i| !is_word(chars[*i])).unwrap_or(chars.len());
            let prefix: String = chars[at..end].iter().collect();
            if matches!(prefix.as_str(), "r" | "br" | "cr")
                && let Some(end) = raw_string_end(chars, end)
            {
                return (Kind::Literal, end);
            }
            (Kind::Code, end)
        }
        _ => (Kind::Code, at + 1),
    }
}

fn find(chars: &[char], from: usize, wanted: char) -> usize {
    (from..chars.len()).find(|i| chars[*i] == wanted).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (1, at + 2);
    while depth > 0 && i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    i.min(chars.len())
}

fn quoted_end(chars: &[char], mut i: usize, quote: char) -> usize {
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of a raw string whose hashes start at `at`; none when there is no raw string there.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let mut i = at + hashes + 1;
    while i < chars.len() {
        if chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(chars.len())
}

/// Whether `c` can be part of an identifier or a number.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

const CFG_TEST: &str = "#[cfg(test)]";

/// Blanks out test-only items. Also says which modules are test-only files, and which lines.
fn strip_tests(code: &str) -> (String, Vec<String>, Vec<Range<usize>>) {
    let mut shipped = String::with_capacity(code.len());
    let (mut modules, mut lines) = (vec![], vec![]);
    let mut rest = 0;
    while let Some(found) = code[rest..].find(CFG_TEST) {
        let start = rest + found;
        let end = item_end(code, start + CFG_TEST.len());
        shipped.push_str(&code[rest..start]);
        shipped.extend(code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        lines.push(line_of(code, start) - 1..line_of(code, end - 1));
        let item = code[start + CFG_TEST.len()..end].trim();
        if let Some(name) = item.strip_suffix(';').and_then(|item| item.split("mod ").nth(1)) {
            modules.push(name.trim().to_owned());
        }
        rest = end;
    }
    shipped.push_str(&code[rest..]);
    (shipped, modules, lines)
}

/// The end of the item that starts at `from` in masked code: behind its block or its semicolon,
/// or before the end of what it is a part of.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (i, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return from + i + 1,
            '{' if depth == 0 => return block_end(code, from + i),
            '}' if depth == 0 => return from + i, // A field: the struct ends here.
            _ => {}
        }
    }
    code.len()
}

/// The end of the block whose `{` is at `open` in masked code.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + i + 1;
        }
    }
    code.len()
}

/// The line, from 1, of byte `at`.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where `word` stands in `code` with no identifier character around it.
pub fn words(code: &str, word: &str) -> Vec<usize> {
    let edge = |c: Option<char>| c.is_none_or(|c| !is_word(c));
    code.match_indices(word)
        .filter(|(at, _)| {
            edge(code[..*at].chars().next_back()) && edge(code[at + word.len()..].chars().next())
        })
        .map(|(at, _)| at)
        .collect()
}

/// A function or a struct with its size.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// The line it starts in, from 1.
    pub line: usize,
    /// Lines of a function, fields of a struct.
    pub size: usize,
}

/// The functions with a body in masked code, each with its length in lines from `fn` to `}`.
pub fn functions(code: &str) -> Vec<Item> {
    let mut found = vec![];
    for at in words(code, "fn") {
        let name: String =
            code[at + 2..].trim_start().chars().take_while(|c| is_word(*c)).collect();
        let end = item_end(code, at);
        if name.is_empty() || !code[..end].ends_with('}') {
            continue; // A function pointer type, or a signature without a body.
        }
        let line = line_of(code, at);
        found.push(Item { name, line, size: line_of(code, end - 1) - line + 1 });
    }
    found
}

/// The structs with named fields in masked code, each with the number of its fields.
pub fn structs(code: &str) -> Vec<Item> {
    let mut found = vec![];
    for at in words(code, "struct") {
        let name: String =
            code[at + 6..].trim_start().chars().take_while(|c| is_word(*c)).collect();
        let end = item_end(code, at);
        let Some(open) = code[at..end].find('{').filter(|_| code[..end].ends_with('}')) else {
            continue;
        };
        let size = count_fields(&code[at + open + 1..end - 1]);
        found.push(Item { name, line: line_of(code, at), size });
    }
    found
}

fn count_fields(body: &str) -> usize {
    let (mut depth, mut fields, mut previous, mut open) = (0i32, 0, ' ', false);
    for c in body.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if previous != '-' && previous != '=' => depth -= 1,
            ':' if depth == 0 => open = true,
            ',' if depth == 0 => {
                fields += usize::from(open);
                open = false;
            }
            _ => {}
        }
        previous = c;
    }
    fields + usize::from(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_masked_and_lines_stay() {
        let text = concat!(
            "let a = \"fn x() { // no comment\"; // fn y() {\n",
            "let b = r#\"quote \" brace {\"#; /* { /* nested { */ */ let c = '{';\n",
            "let d: &'static str = \"a\\\"{\"; let e = '\\''; let f = b'{';\n",
            "let g = \"two\nlines {\"; end\n",
        );
        let source = Source::new(text);
        assert!(!source.code.contains('{'), "{}", source.code);
        assert!(!source.code.contains("fn"), "{}", source.code);
        assert!(source.code.contains("&'static str") && source.code.contains("end"));
        assert_eq!(source.code.lines().count(), text.lines().count());
        assert_eq!(source.unquoted.lines().count(), text.lines().count());
        assert!(source.unquoted.contains("// fn y() {"), "comments count as columns");
        assert!(!source.unquoted.contains("no comment"));
    }

    #[test]
    fn words_in_identifiers_do_not_count() {
        assert_eq!(words("unsafe_code unsafe { my_unsafe }", "unsafe"), [12]);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let code = concat!(
            "fn one() { 1 }\n",
            "fn array(a: [u8; 4]) -> fn(u8) -> u8\nwhere\n    u8: Copy,\n{\n    if a { b }\n}\n",
            "trait T { fn declared(&self); fn given(&self) {\n} }\n",
        );
        let found: Vec<(String, usize, usize)> =
            functions(code).into_iter().map(|f| (f.name, f.line, f.size)).collect();
        let expected = [("one", 1, 1), ("array", 2, 6), ("given", 8, 2)];
        assert_eq!(found, expected.map(|(name, line, size)| (name.to_owned(), line, size)));
    }

    #[test]
    fn fields_are_counted_through_generics_and_closures() {
        let code = "struct A<T: Copy> { a: u8, pub b: Map<u8, T>, c: Box<dyn Fn(u8, u8) -> u8> }\n\
                    struct B(u8, u8); struct C; struct D { x: [u8; 3], }";
        let found: Vec<(String, usize)> =
            structs(code).into_iter().map(|s| (s.name, s.size)).collect();
        assert_eq!(found, [("A".to_owned(), 3), ("D".to_owned(), 1)]);
    }

    #[test]
    fn test_only_items_are_not_shipped() {
        let text = concat!(
            "fn a() {}\n#[cfg(test)]\nextern crate std;\n#[cfg(test)]\nmod twin;\n",
            "fn b() {}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\nfn d() {}\n",
        );
        let source = Source::new(text);
        let names: Vec<String> = functions(&source.shipped).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "b", "d"]);
        assert_eq!(source.test_modules, ["twin"]);
        assert_eq!(source.shipped_lines(), 3);
        assert_eq!(source.shipped.lines().count(), text.lines().count());
        assert_eq!(functions(&source.shipped)[2].line, 11);
    }
}
