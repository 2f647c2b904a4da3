//! As much of Rust as the rules need: what is code, comment or literal, and where blocks end.
//! Counts braces and compares words; a parser would see more and cost more.

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where `word` stands and no longer name ends with it.
pub fn words(text: &str, word: &str) -> Vec<usize> {
    let starts = |at: usize| !text[..at].ends_with(is_word);
    text.match_indices(word).map(|(at, _)| at).filter(|at| starts(*at)).collect()
}

pub fn lines_with(code: &str, start: &str) -> Vec<usize> {
    words(code, start).into_iter().map(|at| line_of(code, at)).collect()
}

/// The places of a whole word.
pub fn found(path: &str, code: &str, word: &str) -> Vec<String> {
    let whole = |at: &usize| !code[at + word.len()..].starts_with(is_word);
    let places = words(code, word).into_iter().filter(whole);
    places.map(|at| format!("{path}:{}: {word}", line_of(code, at))).collect()
}

/// Modules at the top that code at this depth names, with their lines.
pub fn uses(code: &str, depth: usize) -> Vec<(usize, String)> {
    let climb = "super::".repeat(depth);
    let mut all = Vec::new();
    for start in ["crate::", "tollgate::", climb.as_str()].iter().filter(|start| !start.is_empty())
    {
        for at in words(code, start) {
            let rest = &code[at + start.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => top_level_names(group),
                None => vec![first_word(rest)],
            };
            all.extend(names.into_iter().map(|name| (line_of(code, at), name)));
        }
    }
    all
}

pub fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| is_word(*c)).collect()
}

/// The first word of each item of an import group, whose opening brace is cut off.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0_usize, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(first_word(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

/// Every function with a body: its line, name and number of lines.
pub fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let bodies = words(code, "fn ").into_iter().filter_map(|at| {
        let end = at + block_end(&code[at..])?;
        Some((line_of(code, at), first_word(&code[at + 3..]), code[at..end].lines().count()))
    });
    bodies.collect()
}

/// Where the block ends that an item opens; `None` if it has none.
fn block_end(item: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, c) in item.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The code with its test modules blanked out.
pub fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    for (at, test) in code.clone().match_indices("#[cfg(test)]") {
        let item = at + test.len();
        if let Some(end) = block_end(&code[item..]) {
            let blank = blank(&code[item..item + end]);
            code.replace_range(item..item + end, &blank);
        }
    }
    code
}

/// Spaces in place of everything but line ends.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Blanks out comments and literals, and gathers the string literals.
pub fn blanked(text: &str) -> (String, Vec<(usize, String)>) {
    let (mut code, mut literals, mut at) = (String::new(), Vec::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, is_string) = opaque(rest, code.ends_with(is_word));
        if is_string {
            let literal =
                rest[..length].trim_start_matches(['b', 'c', 'r', '#']).trim_matches(['#', '"']);
            literals.push((line_of(text, at), literal.to_owned()));
        }
        if length == 0 {
            code.push(c);
            at += c.len_utf8();
        } else {
            code.push_str(&blank(&rest[..length]));
            at += length;
        }
    }
    (code, literals)
}

/// Length of the comment or literal that `rest` begins with, 0 for none; and whether it is a string.
fn opaque(rest: &str, in_word: bool) -> (usize, bool) {
    let until = |end: &str, from: usize| {
        rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (until("*/", 2), false);
    }
    if let Some(inner) = rest.strip_prefix('\'') {
        // Otherwise a lifetime.
        let escaped = inner.starts_with('\\');
        let second = inner.char_indices().nth(1).filter(|(_, c)| *c == '\'');
        return (if escaped { until("'", 3) } else { second.map_or(0, |(at, _)| at + 2) }, false);
    }
    let open = rest.find(|c| !"bcr#".contains(c)).filter(|open| rest[*open..].starts_with('"'));
    let Some(open) = open.filter(|open| *open == 0 || !in_word) else {
        return (0, false);
    };
    if rest[..open].contains('r') {
        let end = format!("\"{}", "#".repeat(rest[..open].matches('#').count()));
        return (until(&end, open + 1), true);
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(open + 1) {
        match c {
            '"' if !escaped => return (at + 1, true),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    (rest.len(), true)
}

#[test]
fn comments_literals_and_lifetimes_are_told_apart() {
    let text =
        "fn a<'x>(c: char) { b('{', '\\'', r#\"}\"{\"#, b\"\\\"{\"); } // }\n/* { */ fn r#b() {}\n";
    let (code, literals) = blanked(text);
    assert_eq!(
        literals.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
        ["}\"{", "\\\"{"]
    );
    assert_eq!(code.matches(['{', '}']).count(), 4);
    assert_eq!(code.len(), text.len());
}

#[test]
fn functions_are_measured_from_their_first_line_to_their_last() {
    let code =
        "trait T { fn declared(x: [u8; 4]); }\nfn long(\n) -> u8 {\n    fn inner() {}\n    1\n}\n";
    let expected = [(2, "long".to_owned(), 5), (4, "inner".to_owned(), 1)];
    assert_eq!(functions(code), expected);
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::{a, b::{c, d}};\nuse super::super::e::f;\npub(super) use super::g;\nlet x = crate::h::i();";
    let used: Vec<_> = uses(code, 2).into_iter().map(|(_, name)| name).collect();
    assert_eq!(used, ["a", "b", "h", "e"]);
}
