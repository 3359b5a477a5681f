//! Short names for runs and layers that still differ where the full names differ.

/// Names of directories or files among each other: what all have in common at both ends is left out, by components.
///
/// `runs/a/seed-0` and `runs/b/seed-0` become `a` and `b`; a single one becomes its last component. Names that are
/// the same get a number.
pub(super) fn of_paths(paths: &[String]) -> Vec<String> {
    let split: Vec<Vec<&str>> = paths
        .iter()
        .map(|path| path.split('/').filter(|part| !matches!(*part, "" | ".")).collect())
        .collect();
    let shortest = split.iter().map(Vec::len).min().unwrap_or(0);
    // One component stays of every name.
    let most = shortest.saturating_sub(1);
    let common = |at: &dyn Fn(&[&'_ str], usize) -> String, most: usize| {
        (0..most)
            .take_while(|i| split.iter().all(|parts| at(parts, *i) == at(&split[0], *i)))
            .count()
    };
    let start = common(&|parts, i| parts[i].to_owned(), most);
    let end = if paths.len() > 1 {
        common(&|parts, i| parts[parts.len() - 1 - i].to_owned(), most - start)
    } else {
        0
    };
    let kept = split.iter().zip(paths).map(|(parts, path)| match &parts[..] {
        [] => path.clone(),
        parts => parts[start..parts.len() - end].join("/"),
    });
    numbered(kept.collect())
}

/// Appends a number to names that were there before.
fn numbered(names: Vec<String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let numbers = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name} ({n})")));
        unique.extend(numbers.into_iter().find(|name| !unique.contains(name)));
    }
    unique
}

/// Names of `most` characters at most, each with an ellipsis for what was left out.
///
/// What all share at the start or the end goes first, then the middle, so that different names stay different. Where
/// `most` is too few characters for that, the names are longer.
pub(super) fn shortened(names: &[&str], most: usize) -> Vec<String> {
    let names: Vec<Vec<char>> = names.iter().map(|name| name.chars().collect()).collect();
    if names.iter().all(|name| name.len() <= most) {
        return names.iter().map(|name| name.iter().collect()).collect();
    }
    let distinct = distinct(&names);
    let without = without_common_ends(&names, most);
    let longest = names.iter().map(Vec::len).max().unwrap_or(most);
    for most in most..=longest {
        // An even cut first, then with more of the end, then of the start.
        let half = most.saturating_sub(1) / 2;
        for head in (0..=half).rev().chain(half + 1..most) {
            let cut: Vec<Vec<char>> = without.iter().map(|name| cut(name, head, most)).collect();
            if self::distinct(&cut) == distinct {
                return cut.into_iter().map(String::from_iter).collect();
            }
        }
    }
    names.iter().map(|name| name.iter().collect()).collect()
}

fn distinct(names: &[Vec<char>]) -> usize {
    let mut sorted: Vec<&Vec<char>> = names.iter().collect();
    sorted.sort();
    sorted.dedup();
    sorted.len()
}

/// `head` characters of the start, an ellipsis, and the end: `most` in all.
fn cut(name: &[char], head: usize, most: usize) -> Vec<char> {
    if name.len() <= most {
        return name.to_vec();
    }
    let tail = most.saturating_sub(head + 1);
    [&name[..head], &['…'], &name[name.len() - tail..]].concat()
}

/// The names with an ellipsis for a long start, or else a long end, that all of them share.
fn without_common_ends(names: &[Vec<char>], most: usize) -> Vec<Vec<char>> {
    let mut names = names.to_vec();
    if names.len() < 2 {
        return names;
    }
    let start = word_start(&names[0], common(&names, |name, i| name.get(i)));
    // An ellipsis in the place of one or two characters gains nothing.
    if start > 2 {
        let kept = |name: &mut Vec<char>| drop(name.splice(..start, ['…']));
        names.iter_mut().for_each(kept);
    }
    if names.iter().all(|name| name.len() <= most) {
        return names;
    }
    let end = common(&names, |name, i| name.len().checked_sub(i + 1).map(|at| &name[at]));
    let shortest = names.iter().map(Vec::len).min().unwrap_or(0);
    let end = end.min(shortest.saturating_sub(2));
    if end > 2 {
        let kept = |name: &mut Vec<char>| drop(name.splice(name.len() - end.., ['…']));
        names.iter_mut().for_each(kept);
    }
    names
}

/// The start of the word or number that `at` is in: `0.1` and `0.25` do not become 1 and 25.
fn word_start(name: &[char], at: usize) -> usize {
    let is_word = |i: usize| {
        name[i].is_alphanumeric() || (name[i] == '.' && i > 0 && name[i - 1].is_ascii_digit())
    };
    (0..at).rev().take_while(|i| is_word(*i)).last().unwrap_or(at)
}

fn common(names: &[Vec<char>], at: impl Fn(&Vec<char>, usize) -> Option<&char>) -> usize {
    let shortest = names.iter().map(Vec::len).min().unwrap_or(0);
    (0..shortest).take_while(|i| names.iter().all(|n| at(n, *i) == at(&names[0], *i))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<String> {
        of_paths(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn paths_are_named_by_what_differs() {
        assert_eq!(paths(&["runs/a/seed-0", "runs/b/seed-0"]), ["a", "b"]);
        assert_eq!(paths(&["runs/a/seed-0", "runs/a/seed-1"]), ["seed-0", "seed-1"]);
        assert_eq!(paths(&["runs/a/", "./old/runs/b"]), ["runs/a", "old/runs/b"]);
        assert_eq!(paths(&["/data/runs/20261128-1"]), ["20261128-1"]);
        assert_eq!(paths(&["a", "b/a"]), ["a", "b/a"]);
        assert_eq!(paths(&["runs/a", "runs/a"]), ["a", "a (2)"]);
        assert_eq!(paths(&["/", "."]), ["/", "."]);
        assert!(paths(&[]).is_empty());
    }

    #[test]
    fn names_lose_what_they_share_and_stay_different() {
        let long = "experiments-of-november/learning-rate-";
        let names = [format!("{long}0.1"), format!("{long}0.25")];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(shortened(&names, 20), ["…0.1", "…0.25"]);
        let names =
            ["a, while the weights of the model moved", "b, while the weights of the model moved"];
        assert_eq!(shortened(&names, 20), ["a,…", "b,…"]);
        let names = ["training, while the weights moved", "validation"];
        assert_eq!(shortened(&names, 16), ["trainin…ts moved", "validation"]);
        // The middle alone differs: the cut moves.
        let names = ["stage1-weights-are-a-of-first", "stage1-weights-are-b-of-firsT", "x"];
        let short = shortened(&names, 12);
        assert!(short.iter().all(|name| name.chars().count() <= 16), "{short:?}");
        assert_eq!(short.iter().collect::<std::collections::HashSet<_>>().len(), 3);
        assert_eq!(shortened(&["short", "names"], 5), ["short", "names"]);
        assert_eq!(shortened(&["same-name", "same-name"], 4).len(), 2);
        assert!(shortened(&[], 4).is_empty());
    }
}
