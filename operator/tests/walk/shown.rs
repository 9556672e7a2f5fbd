//! What a page shows against what was printed.

/// Whether the lines that are shown were printed one after the other. A line `...` stands for any lines. Columns may be as wide
/// as they like, and times are not compared.
pub(crate) fn is_in(shown: &str, printed: &str) -> bool {
    let printed: Vec<String> = printed.lines().map(alike).collect();
    let mut from = 0;
    for part in shown.split("\n...\n") {
        let part: Vec<String> = part.lines().filter(|l| *l != "...").map(alike).collect();
        let Some(at) = printed[from..]
            .windows(part.len().max(1))
            .position(|lines| lines == part.as_slice())
        else {
            return false;
        };
        from += at + part.len();
    }
    true
}

/// A line without what differs from run to run.
fn alike(line: &str) -> String {
    let words = line
        .split_whitespace()
        .map(|word| if is_time(word) { "TIME" } else { word });
    words.collect::<Vec<&str>>().join(" ")
}

/// An age as kubectl prints it (`1s`, `2m3s`), or a date and time.
fn is_time(word: &str) -> bool {
    let begins = word.starts_with(|c: char| c.is_ascii_digit());
    let age = begins
        && word.ends_with(['s', 'm', 'h', 'd'])
        && word
            .chars()
            .all(|c| c.is_ascii_digit() || "smhd".contains(c));
    let date = begins && word.len() >= 20 && word.as_bytes().get(10) == Some(&b'T');
    age || date
}

#[test]
fn lines_are_compared_without_widths_and_times() {
    let printed = "first\nNAME   AGE\na      12s\nlast\n";
    assert!(is_in("NAME AGE\na 1s", printed));
    assert!(is_in("first\n...\nlast", printed));
    assert!(!is_in("first\nlast", printed));
    assert!(!is_in("b 1s", printed));
    assert!(!is_in("last\n...\nfirst", printed));
}
