//! Patterns of files: `*`, `?`, `[a-z]`, `**`, and braces with lists and ranges as a shell has them.
//! Not here: what the files are for (`shards.rs`).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::DataError;
use crate::names::{is_junk, text_of};

/// The most files that braces may stand for.
const MOST_FILES: usize = 1 << 20;

/// Deeper than any tree that was meant; links can lead in a circle.
const DEEPEST: usize = 16;

/// The files that fit each of the patterns without braces that a pattern stands for.
///
/// # Errors
/// A pattern that is none, or a directory that cannot be read.
pub(crate) fn matching(pattern: &Path) -> Result<Vec<(String, Vec<PathBuf>)>, DataError> {
    let text = text_of(pattern.as_os_str());
    if pattern.is_file() {
        return Ok(vec![(text, vec![pattern.to_owned()])]);
    }
    let expected = format!("braces for at most {MOST_FILES} files");
    let expanded = expand(&text).ok_or_else(|| DataError::format(pattern, expected, "more"))?;
    let files = |text: String| Ok((text.clone(), fitting(pattern, &text)?));
    expanded.into_iter().map(files).collect()
}

/// The files that fit a pattern without braces, in the order of names.
fn fitting(pattern: &Path, text: &str) -> Result<Vec<PathBuf>, DataError> {
    let rest = text.trim_start_matches('/');
    let root = if rest.len() < text.len() { "/" } else { "" };
    let components: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    let mut files = vec![];
    walk(pattern, Path::new(root), &components, DEEPEST, &mut files)?;
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(
    pattern: &Path,
    dir: &Path,
    components: &[&str],
    depth: usize,
    files: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    let Some((&first, rest)) = components.split_first() else {
        if dir.is_file() {
            files.push(dir.to_owned());
        }
        return Ok(());
    };
    let literal = dir.join(first);
    // Brackets may as well be a part of a name.
    if !first.contains(['*', '?', '[']) || literal.exists() {
        return walk(pattern, &literal, rest, depth, files);
    }
    let deep = first == "**";
    if deep {
        walk(pattern, dir, rest, depth, files)?;
    }
    let fits = Pattern::new(first)
        .map_err(|error| DataError::format(pattern, "a pattern of files", error))?;
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let shown = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let entries = match fs::read_dir(shown) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(DataError::read(shown)(error)),
    };
    for entry in entries {
        let name = entry.map_err(DataError::read(shown))?.file_name();
        if (is_junk(&name) && !first.starts_with('.'))
            || !fits.matches_with(&text_of(&name), options)
        {
            continue;
        }
        let path = dir.join(name);
        if !deep {
            walk(pattern, &path, rest, depth, files)?;
        } else if depth > 0 && path.is_dir() {
            walk(pattern, &path, components, depth - 1, files)?;
        }
    }
    Ok(())
}

/// A pattern with braces as those without that it stands for: `a-{0,1}`, `a-{000..146}` with as many digits as
/// the numbers have, `{10..0..5}` with a step, `{a..d}`, and braces within each other. Braces that are neither
/// list nor range are left as they are. None for more than a million.
pub(crate) fn expand(text: &str) -> Option<Vec<String>> {
    let Some((open, close)) = first_braces(text) else { return Some(vec![text.to_owned()]) };
    let (before, within, after) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
    let list = split_list(within);
    let choices = match (list.len(), range(within)) {
        (1, Some(range)) => range,
        (1, None) => expand(within)?.into_iter().map(|inner| format!("{{{inner}}}")).collect(),
        _ => {
            let expanded: Option<Vec<Vec<String>>> = list.into_iter().map(expand).collect();
            expanded?.concat()
        }
    };
    let after = expand(after)?;
    if choices.len().checked_mul(after.len())? > MOST_FILES {
        return None;
    }
    let join = |choice: &String| -> Vec<String> {
        after.iter().map(|rest| format!("{before}{choice}{rest}")).collect()
    };
    Some(choices.iter().flat_map(join).collect())
}

/// The places of the first brace and of the one that closes it.
fn first_braces(text: &str) -> Option<(usize, usize)> {
    let open = text.find('{')?;
    let mut depth = 0;
    for (place, letter) in text[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return Some((open, open + place)),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The entries between commas that are in no inner braces.
fn split_list(within: &str) -> Vec<&str> {
    let (mut depth, mut start, mut list) = (0, 0, vec![]);
    for (place, letter) in within.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                list.push(&within[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    list.push(&within[start..]);
    list
}

/// The numbers or letters of `first..last` or `first..last..step`.
fn range(within: &str) -> Option<Vec<String>> {
    let bounds: Vec<&str> = within.split("..").collect();
    let (first, last, step) = match bounds[..] {
        [first, last] => (first, last, 1),
        [first, last, step] => (first, last, step.parse().ok().filter(|&step| step > 0)?),
        _ => return None,
    };
    if let (Ok(from), Ok(to)) = (first.parse::<usize>(), last.parse::<usize>()) {
        if from.abs_diff(to) / step >= MOST_FILES {
            return None;
        }
        let padded = [first, last].iter().any(|bound| bound.starts_with('0') && bound.len() > 1);
        let width = if padded { first.len().max(last.len()) } else { 0 };
        let text = |n: usize| format!("{n:0width$}");
        return Some(stepped(from, to, step).map(text).collect());
    }
    let letter = |bound: &str| match bound.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(usize::from(*letter)),
        _ => None,
    };
    let text = |letter: usize| char::from(letter as u8).to_string();
    Some(stepped(letter(first)?, letter(last)?, step).map(text).collect())
}

fn stepped(from: usize, to: usize, step: usize) -> impl Iterator<Item = usize> {
    let count = from.abs_diff(to) / step + 1;
    (0..count).map(move |n| if from <= to { from + n * step } else { from - n * step })
}

/// A pattern whose ranges of numbers stand for any number.
pub(crate) fn without_ranges(text: &str) -> String {
    let Some((open, close)) = first_braces(text) else { return text.to_owned() };
    let within = &text[open + 1..close];
    let numbers = range(within).is_some() && within.starts_with(|c: char| c.is_ascii_digit());
    let middle = if numbers { "[0-9]*" } else { &text[open..=close] };
    format!("{}{middle}{}", &text[..open], without_ranges(&text[close + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_lists_and_ranges() {
        let of = |text: &str| expand(text).unwrap();
        assert_eq!(of("a{08..10}-{x,y}"), ["a08-x", "a08-y", "a09-x", "a09-y", "a10-x", "a10-y"]);
        assert_eq!(of("{8..10}"), ["8", "9", "10"]);
        assert_eq!(of("{3..1}{b..a}"), ["3b", "3a", "2b", "2a", "1b", "1a"]);
        assert_eq!(of("{00..10..5}"), ["00", "05", "10"]);
        assert_eq!(of("{t-{0..1},v}-x"), ["t-0-x", "t-1-x", "v-x"]);
        for plain in ["plain", "open{a", "{a}", "{1..}", "{0..9999999}"] {
            assert_eq!(of(plain), [plain]);
        }
        assert_eq!(of("{a,}"), ["a", ""]);
        assert!(expand("{0..99999}{0..99999}").is_none());
        assert_eq!(without_ranges("a/{x,y}-{00..99}.tar"), "a/{x,y}-[0-9]*.tar");
    }

    #[test]
    fn wildcards_leave_hidden_files_out_and_brackets_may_be_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a/0.tar", "a/._0.tar", "b/c/1.tar", ".git/2.tar", "v[1]/3.tar", "4.tar"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at("directory.tar")).unwrap();
        let found = |text: &str| {
            let all = matching(&at(text)).unwrap().into_iter().flat_map(|(_, files)| files);
            let names = all.map(|file| file.strip_prefix(dir.path()).unwrap().to_owned());
            names.map(|name| name.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("*/*.tar"), ["a/0.tar", "v[1]/3.tar"]);
        assert_eq!(found("**/*.tar"), ["4.tar", "a/0.tar", "b/c/1.tar", "v[1]/3.tar"]);
        assert_eq!(found("v[1]/*.tar"), ["v[1]/3.tar"]);
        assert_eq!(found("?.tar"), ["4.tar"]);
        assert_eq!(found("{a/0,4}.tar"), ["a/0.tar", "4.tar"]);
        assert_eq!(found("none/*.tar"), [""; 0]);
        assert_eq!(found("4.tar/*"), [""; 0]);
        assert!(matching(&at("a***.tar")).unwrap_err().to_string().contains("a pattern of files"));
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_fit_too() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9.tar");
        fs::write(dir.path().join(name), "").unwrap();
        let found = matching(&dir.path().join("*.tar")).unwrap();
        assert_eq!(found[0].1, [dir.path().join(name)]);
    }
}
