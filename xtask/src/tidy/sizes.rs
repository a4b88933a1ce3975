//! Size ratchets: lines of files, lines of functions, fields of structs.

use crate::report::Report;
use crate::source::{functions, structs};
use crate::tree::RustFile;

/// Most lines of a file, without its test-only items.
const FILE_LINES_MAX: usize = 600;
/// Most lines of a file that ships, with its test-only items: beyond it, tests move out.
const FILE_LINES_WITH_TESTS_MAX: usize = 800;
/// Most lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Most named fields of a struct.
const STRUCT_FIELDS_MAX: usize = 19;

/// Something over a limit that is tolerated. The size may only go down.
struct Exception {
    /// `path` for a file, `path name` for a function.
    what: &'static str,
    size: usize,
    reason: &'static str,
}

const FILES: &[Exception] = &[];

const FUNCTIONS: &[Exception] = &[];

/// Checks the sizes of everything that is not test code.
pub fn check(files: &[RustFile], report: &mut Report) {
    let mut file_sizes = vec![];
    let mut function_sizes = vec![];
    for file in files.iter().filter(|file| !file.test) {
        let total = file.source.text.lines().count();
        if total > FILE_LINES_WITH_TESTS_MAX {
            let advice = "move the tests into a file of their own";
            let limit = FILE_LINES_WITH_TESTS_MAX;
            report
                .about(&file.path, format!("{total} lines with tests, at most {limit}: {advice}"));
        }
        file_sizes.push((file.path.clone(), 1, file.source.shipped_lines()));
        for item in functions(&file.source.shipped) {
            function_sizes.push((format!("{} {}", file.path, item.name), item.line, item.size));
        }
        for item in structs(&file.source.shipped) {
            if item.size > STRUCT_FIELDS_MAX {
                let what = format!("struct {} has {} fields", item.name, item.size);
                let advice = "group those that change together";
                report.at(&file.path, item.line, format!("{what}, at most 19: {advice}"));
            }
        }
    }
    ratchet("lines", FILE_LINES_MAX, FILES, &file_sizes, report);
    ratchet("lines", FUNCTION_LINES_MAX, FUNCTIONS, &function_sizes, report);
}

/// Compares sizes with their limit and with the exceptions to it.
fn ratchet(
    unit: &str,
    limit: usize,
    exceptions: &[Exception],
    sizes: &[(String, usize, usize)],
    report: &mut Report,
) {
    for (what, line, size) in sizes {
        let listed = exceptions.iter().find(|exception| exception.what == what);
        let allowed = listed.map_or(limit, |exception| exception.size);
        if *size > allowed {
            report
                .about(what, format!("{size} {unit} (from line {line}), at most {allowed}: split"));
        }
    }
    for exception in exceptions {
        let size = sizes.iter().filter(|(what, ..)| what == exception.what).map(|(.., s)| *s).max();
        let advice = match size {
            None => "is gone: take it off the list".to_owned(),
            Some(size) if size <= limit => "is within the limit: take it off the list".to_owned(),
            Some(size) if size < exception.size => format!("shrank: lower its entry to {size}"),
            Some(_) if exception.reason.is_empty() => "needs a reason".to_owned(),
            Some(_) => continue,
        };
        report.about(exception.what, advice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{File, rust_files};

    fn findings(path: &str, text: &str) -> Vec<String> {
        let files = [File { path: path.into(), text: text.into() }];
        let mut report = Report::default();
        check(&rust_files(&files), &mut report);
        report.findings
    }

    #[test]
    fn limits_hold_for_shipped_code_and_not_for_tests() {
        let long = format!("fn long() {{\n{}}}\n", "    work();\n".repeat(70));
        assert_eq!(findings("src/a.rs", &long).len(), 1);
        assert!(findings("src/a.rs", &long)[0].starts_with("src/a.rs long: 72 lines"));
        assert!(findings("tests/a.rs", &long).is_empty());
        assert!(findings("src/a.rs", &format!("#[cfg(test)]\nmod tests {{ {long} }}")).is_empty());
        assert_eq!(findings("src/a.rs", &"const A: u8 = 1;\n".repeat(601)).len(), 1);
        assert!(findings("src/a.rs", &"const A: u8 = 1;\n".repeat(600)).is_empty());
        let wide = format!("struct Wide {{ {} }}", "a: u8, ".repeat(20));
        assert_eq!(findings("src/a.rs", &wide).len(), 1);
    }

    #[test]
    fn an_exception_may_only_go_down() {
        let exceptions = [
            Exception { what: "a", size: 90, reason: "one table" },
            Exception { what: "b", size: 80, reason: "one match" },
        ];
        let try_sizes = |a: usize, b: usize| {
            let mut report = Report::default();
            let sizes = [("a".to_owned(), 1, a), ("b".to_owned(), 1, b)];
            ratchet("lines", 70, &exceptions, &sizes, &mut report);
            report.findings
        };
        assert!(try_sizes(90, 80).is_empty());
        assert!(try_sizes(91, 80)[0].contains("at most 90"));
        assert!(try_sizes(90, 79)[0].contains("lower its entry to 79"));
        assert!(try_sizes(60, 80)[0].contains("take it off the list"));
    }
}
