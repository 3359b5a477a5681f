//! Which images of a set of tar files are images of its samples, and of which split: one a sample, masks and
//! other views left out.
//! Not here: members and labels of one tar file (`tar/scan.rs`), labels to classes (`tar/labels.rs`).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::Placed;
use super::scan::{Contents, Member, key_and_kind, stem};
use crate::left_out::{LeftOut, Reason};
use crate::shard_file::ShardFile;
use crate::shards::{Scanned, Shards};
use crate::split_names::{SPLITS, of_directory};
use crate::{Columns, DataError, Split};

/// What an image's name says of one that is no photograph, where its sample has no label file.
const SIDES: [&str; 10] = [
    "mask",
    "masks",
    "seg",
    "segmentation",
    "label",
    "labels",
    "gt",
    "groundtruth",
    "depth",
    "annotation",
];

/// The images of each split.
pub(super) struct Chosen {
    /// Their labels are yet to be found.
    pub(super) parts: [Vec<Placed>; 3],
    /// Whether directories within the tar files say the splits.
    pub(super) within: bool,
}

/// Chooses them. The shards are those that the images are numbered by.
///
/// # Errors
/// Samples with several images, or directories of one split in a shard of another.
pub(super) fn choose(
    pattern: &Path,
    columns: &Columns,
    shards: &Shards,
    mut scanned: [Scanned<Contents>; 3],
    left_out: &mut LeftOut,
) -> Result<(Arc<Vec<ShardFile>>, Chosen), DataError> {
    drop_sides(columns, &mut scanned, left_out);
    if let Some(wanted) = &columns.image {
        check_wanted(pattern, wanted, &scanned)?;
    } else {
        scanned.iter().flatten().try_for_each(|(path, own)| one_a_sample(pattern, path, own))?;
    }
    let within =
        scanned.iter().flatten().any(|(_, own)| own.members.iter().any(|m| split_of(m).is_some()));
    let within = within && shards.unsplit;
    let (mut files, mut parts) = (vec![], [vec![], vec![], vec![]]);
    for (split, own) in SPLITS.into_iter().zip(scanned) {
        for (path, contents) in own {
            let shard = files.len() as u32;
            for member in contents.members {
                let split = match (split_of(&member), within) {
                    (None, false) => split,
                    (Some(inner), true) => inner,
                    (Some(inner), false) if inner == split => split,
                    (inner, _) => return Err(misplaced(&path, &member, split, inner)),
                };
                parts[split as usize].push(Placed { shard, member, label: 0 });
            }
            files.push(path);
        }
    }
    Ok((Arc::new(files), Chosen { parts, within }))
}

/// The split that a directory of a member means; the one that is its class means none.
fn split_of(member: &Member) -> Option<Split> {
    let mut directories: Vec<&str> = member.name.split('/').collect();
    directories.pop();
    if member.label.is_none() {
        directories.pop();
    }
    directories.into_iter().find_map(|name| Some(of_directory(name.as_ref())?.split))
}

fn misplaced(shard: &Path, member: &Member, split: Split, inner: Option<Split>) -> DataError {
    match inner {
        Some(inner) => DataError::format(
            &shard.join(&member.name),
            format!("{} images in this shard", split.adjective()),
            format!("a directory for {} images", inner.adjective()),
        ),
        None => DataError::format(
            &shard.join(&member.name),
            "a directory of a split, as others in the shards have",
            "none",
        ),
    }
}

/// The key of an image's sample, and what follows it, in lower case.
fn sample_of(member: &Member) -> (&str, String) {
    let (key, kind) = key_and_kind(&member.name);
    if member.own_label {
        let stem = stem(&member.name);
        return (stem, member.name[stem.len() + 1..].to_ascii_lowercase());
    }
    (key, kind.to_ascii_lowercase())
}

/// Leaves out what is not the image that the user named; or else images beside another one of their sample that
/// has nothing but its format behind the key, and all of the same ending.
fn drop_sides(columns: &Columns, scanned: &mut [Scanned<Contents>; 3], left_out: &mut LeftOut) {
    let wanted: Option<Vec<String>> = columns.image.as_ref().map(|wanted| {
        wanted
            .split([',', ';'])
            .map(|ending| ending.trim_start_matches('.').to_ascii_lowercase())
            .collect()
    });
    let sides = if wanted.is_none() { side_endings(scanned) } else { HashSet::new() };
    for (path, contents) in scanned.iter_mut().flatten() {
        contents.members.retain(|member| {
            let kind = sample_of(member).1;
            let kept = match &wanted {
                Some(wanted) => wanted.contains(&kind),
                None => !sides.contains(&kind),
            };
            if !kept {
                left_out.add(Reason::Side(kind), || path.join(&member.name).display().to_string());
            }
            kept
        });
    }
}

/// Endings with more than a format, as `seg.png`, of images beside one with less.
fn side_endings(scanned: &[Scanned<Contents>; 3]) -> HashSet<String> {
    let mut sides = HashSet::new();
    for (_, contents) in scanned.iter().flatten() {
        let samples =
            contents.members.iter().map(|member| (sample_of(member), member.label.is_some()));
        let (plain, more): (Vec<_>, Vec<_>) =
            samples.partition(|((_, kind), _)| !kind.contains('.'));
        if more.is_empty() {
            continue;
        }
        let plain: HashSet<&str> = plain.into_iter().map(|((key, _), _)| key).collect();
        let known = |kind: &str| kind.split(['.', '_']).any(|word| SIDES.contains(&word));
        let beside = more
            .into_iter()
            .filter(|((key, kind), labelled)| plain.contains(key) && (*labelled || known(kind)));
        sides.extend(beside.map(|((_, kind), _)| kind));
    }
    sides
}

/// Where images have label files, a sample must have one image.
fn one_a_sample(pattern: &Path, shard: &Path, contents: &Contents) -> Result<(), DataError> {
    let mut seen: HashMap<&str, String> = HashMap::new();
    for member in contents.members.iter().filter(|member| member.label.is_some()) {
        let (key, kind) = sample_of(member);
        if let Some(other) = seen.insert(key, kind.clone()) {
            let name = pattern.display();
            return Err(DataError::Ambiguous {
                path: shard.join(key),
                what: "the image of this sample".to_owned(),
                answer: format!("tar:{name}?image={other}"),
                candidates: vec![other, kind],
            });
        }
    }
    Ok(())
}

/// The user's ending must fit something.
fn check_wanted(
    pattern: &Path,
    wanted: &str,
    scanned: &[Scanned<Contents>; 3],
) -> Result<(), DataError> {
    if scanned.iter().flatten().all(|(_, contents)| contents.members.is_empty()) {
        let expected = format!("images whose names end with .{wanted} behind their key");
        return Err(DataError::format(pattern, expected, "none"));
    }
    Ok(())
}
