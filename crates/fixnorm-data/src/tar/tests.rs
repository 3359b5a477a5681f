//! Members as writers of shards leave them: with masks, two labels, dots, links, and cut short.

use std::fs::{self, File};

use super::*;
use crate::DataSet;

fn shard(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = ::tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.finish().unwrap();
}

fn load_dir(dir: &Path) -> Result<DataSet, DataError> {
    load_with(dir, "")
}

/// With columns as they stand behind a pattern.
fn load_with(dir: &Path, columns: &str) -> Result<DataSet, DataError> {
    let spec = format!("tar:{}{columns}", dir.display()).parse()?;
    let crate::DataSpec::Tar { pattern, columns } = spec else { panic!("{spec}") };
    let options = LoadOptions { cache: None, ..LoadOptions::default() };
    load(&pattern, &columns, "tar".to_owned(), Purpose::Training, &options)?.data_set()
}

fn contents(source: &Arc<dyn Source>) -> Vec<(String, u32)> {
    let text = |index| match source.sample(index).unwrap() {
        Sample::Encoded(encoded) => String::from_utf8(encoded.bytes).unwrap(),
        Sample::Pixels(_) => panic!("a file"),
    };
    (0..source.len()).map(|index| (text(index), source.label(index))).collect()
}

fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|&(text, label)| (text.to_owned(), label)).collect()
}

#[test]
fn files_of_one_name_belong_together_whatever_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/c.jpg", "d".repeat(120));
    shard(
        &dir.path().join("a-train-0.tar"),
        &[
            ("x/b.cls", b"1\n"),
            ("x/b.JPG", b"b"),
            ("./a.seg.png", b"a"),
            ("a.cls", b"0"),
            ("a.txt", b"no image"),
        ],
    );
    shard(
        &dir.path().join("a-train-1.tar"),
        &[(&long, b"c"), (&long.replace("jpg", "json"), br#"{"label": 0, "width": 3}"#)],
    );
    shard(&dir.path().join("a-val.tar"), &[("v.webp", b"v"), ("v.json", br#"{"cls": 2}"#)]);
    let said = load_dir(dir.path()).err().unwrap().to_string();
    assert!(said.ends_with("label 2 of image 0 is out of range, there are 2 classes"), "{said}");
    fs::write(dir.path().join("classes.txt"), "cat\ndog\nfox\n").unwrap();
    let data = load_dir(dir.path()).unwrap();
    assert_eq!(contents(&data.train), pairs(&[("a", 0), ("c", 0), ("b", 1)]));
    assert_eq!(contents(&data.val), pairs(&[("v", 2)]));
    assert_eq!(data.class_names, ["cat", "dog", "fox"]);
}

#[test]
fn directories_are_classes_where_there_are_no_labels() {
    let dir = tempfile::tempdir().unwrap();
    let members: Vec<_> = (0..12)
        .map(|i| (format!("t/{}/{i:02}.png", ["b", "a"][i % 2]), [b'0' + i as u8]))
        .collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    shard(&dir.path().join("0.tar"), &members);
    let data = load_dir(dir.path()).unwrap();
    assert_eq!((data.train.len(), data.val.len()), (11, 1));
    assert_eq!(data.class_names, ["a", "b"]);
    assert_eq!(data.train.label(0), 0);
    shard(&dir.path().join("val.tar"), &[("c/0.png", b"0")]);
    let said = load_dir(dir.path()).err().unwrap().to_string();
    assert!(
        said.ends_with(
            "val.tar/c/0.png: expected a class of the training images (a, b), found `c`"
        ),
        "{said}"
    );
}

#[test]
fn shards_that_are_none_are_named() {
    let said = |members: &[(&str, &[u8])]| {
        let dir = tempfile::tempdir().unwrap();
        shard(&dir.path().join("0.tar"), members);
        load_dir(dir.path()).err().unwrap().to_string()
    };
    assert!(said(&[]).ends_with("holds no images"), "{}", said(&[]));
    let error = said(&[("a.jpg", b""), ("a.cls", b"-7")]);
    assert!(error.ends_with("0.tar/a.cls: expected a class number or name, found `-7`"), "{error}");
    let error = said(&[("a.jpg", b""), ("a.cls", b"cat"), ("b.jpg", b""), ("b.cls", b"1")]);
    assert!(
        error.ends_with("name of a class, as other images have, found the number 1"),
        "{error}"
    );
    let error = said(&[("a.jpg", b""), ("a.cls", b"0")]);
    assert!(error.contains("all training images are of one class, `0`"), "{error}");
    let error = said(&[("a.jpg", b""), ("a.json", b"{")]);
    assert!(error.contains("0.tar/a.json: expected a class number or name"), "{error}");
    let error = said(&[("a.jpg", b""), ("a.json", br#"{"label": -1}"#)]);
    assert!(error.ends_with("found -1"), "{error}");
    let error = said(&[("a.jpg", b""), ("a.cls", b"4294967295")]);
    assert!(error.ends_with("expected labels below 1048576, found 4294967295"), "{error}");
    let error = said(&[("a.jpg", b""), ("b/a.jpg", b"")]);
    assert!(error.contains("a .cls or .json with its label"), "{error}");
    let error = said(&[("a.jpg", b""), ("a.cls", b"0"), ("b/a.jpg", b"")]);
    assert!(error.contains("a .cls or .json with its label"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.tar");
    for (bytes, part) in
        [(&b"\x1f\x8b and more"[..], "a gzip file"), (&[7; 600], "expected a tar file")]
    {
        fs::write(&path, bytes).unwrap();
        let error = load_dir(dir.path()).err().unwrap().to_string();
        assert!(error.contains("0.tar") && error.contains(part), "{error}");
    }
}

#[test]
fn a_torn_shard_has_bad_images() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.tar");
    let members: Vec<_> = (0..13)
        .map(|i| (format!("{}/{i:02}.png", ["a", "b"][i / 7]), vec![i as u8; 2000]))
        .collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    shard(&path, &members);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..12 * 2560 + 1000]).unwrap();
    let data = load_dir(dir.path()).unwrap();
    let all = [&data.train, &data.val];
    assert_eq!(all.map(|source| source.len()).iter().sum::<usize>(), 13);
    let errors: Vec<_> = all
        .iter()
        .flat_map(|source| (0..source.len()).filter_map(|i| source.sample(i).err()))
        .collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("0.tar/b/12.png"), "{}", errors[0]);
}

/// Twelve samples of three classes, each with what `more` adds to its key and class.
fn samples(more: impl Fn(usize, usize) -> Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    (0..36).flat_map(|i| more(i, i % 3)).collect()
}

fn write(path: &Path, members: &[(String, Vec<u8>)]) {
    let members: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    shard(path, &members);
}

fn member(name: String, bytes: &str) -> (String, Vec<u8>) {
    (name, bytes.as_bytes().to_vec())
}

/// A data set of one shard.
fn set(more: impl Fn(usize, usize) -> Vec<(String, Vec<u8>)>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("x.tar"), &samples(more));
    dir
}

fn count(data: &DataSet) -> usize {
    data.train.len() + data.val.len()
}

#[test]
fn masks_are_no_images_of_their_samples() {
    let masked = |labelled: bool| {
        set(move |i, class| {
            let key = if labelled { format!("{i:02}") } else { format!("{class}/{i:02}") };
            let mut all = vec![
                member(format!("{key}.mask.png"), "mask"),
                member(format!("{key}.JPG"), "image"),
                member(format!("{key}.seg.png"), "seg"),
            ];
            if labelled {
                all.push(member(format!("{key}.cls"), &class.to_string()));
            }
            // A sample without its image is none.
            if i == 7 {
                all.remove(1);
            }
            all
        })
    };
    for labelled in [true, false] {
        let dir = masked(labelled);
        let data = load_dir(dir.path()).unwrap();
        assert_eq!(count(&data), 35);
        assert!(contents(&data.train).iter().all(|(text, _)| text == "image"));
        let warning = &data.summary.warnings[0];
        assert!(warning.contains("36 .mask.png") && warning.contains("36 .seg.png"), "{warning}");
    }
    // Views are a question.
    let views = set(|i, class| {
        let view = |side: &str| member(format!("{i:02}.{side}.png"), side);
        vec![view("left"), view("right"), member(format!("{i:02}.cls"), &class.to_string())]
    });
    let said = load_dir(views.path()).err().unwrap();
    assert!(said.is_usage(), "{said}");
    let said = said.to_string();
    assert!(
        said.contains("may be left.png, right.png") && said.contains("?image=left.png"),
        "{said}"
    );
    let data = load_with(views.path(), "?image=right.png").unwrap();
    assert!(count(&data) == 36 && contents(&data.train)[0].0 == "right");
    let said = load_with(views.path(), "?image=top.png").err().unwrap().to_string();
    assert!(said.contains("names end with .top.png"), "{said}");
    let formats = set(|i, class| {
        let format = |ending: &str| member(format!("{i:02}.{ending}"), ending);
        vec![format("jpg"), format("png"), member(format!("{i:02}.cls"), &class.to_string())]
    });
    assert!(load_dir(formats.path()).err().unwrap().to_string().contains("may be jpg, png"));
    assert_eq!(contents(&load_with(formats.path(), "?image=png").unwrap().val)[0].0, "png");
}

#[test]
fn keys_may_have_dots_where_labels_have_them_too() {
    let data = load_dir(
        set(|i, class| {
            let key = format!("a/photo.2021.{i:02}.v1");
            vec![
                member(format!("{key}.jpg"), "i"),
                member(format!("{key}.cls"), &class.to_string()),
            ]
        })
        .path(),
    );
    let data = data.unwrap();
    assert_eq!((count(&data), data.class_names.len()), (36, 3));
    // Where directories are classes, a key is nothing.
    let data = load_dir(set(|i, class| vec![member(format!("{class}/p.{i:02}.jpg"), "i")]).path());
    assert_eq!(count(&data.unwrap()), 36);
}

#[test]
fn the_label_file_counts_before_the_document_in_any_order() {
    for swapped in [false, true] {
        let dir = set(|i, class| {
            let mut all = vec![
                member(format!("{i}.cls"), &class.to_string()),
                member(format!("{i}.json"), r#"{"label": 0, "name": "n", "deep": {"id": 4}}"#),
                member(format!("{i}.txt"), ["cat", "dog", "fox"][class]),
            ];
            if swapped {
                all.swap(0, 1);
            }
            all.push(member(format!("{i}.jpg"), "i"));
            all
        });
        let data = load_dir(dir.path()).unwrap();
        assert_eq!(data.class_names, ["0", "1", "2"]);
        assert_eq!(data.summary.warnings.len(), 1);
        assert!(data.summary.warnings[0].starts_with("24 samples with another label"));
        assert_eq!(load_with(dir.path(), "?label=txt").unwrap().class_names, ["cat", "dog", "fox"]);
        for (key, class) in [("json", "`0`"), ("name", "`n`"), ("deep.id", "`4`")] {
            let said = load_with(dir.path(), &format!("?label={key}")).err().unwrap().to_string();
            assert!(said.contains("one class") && said.contains(class), "{key}: {said}");
        }
    }
    let text = set(|i, class| {
        let json = format!(r#"{{"label": "{}"}}"#, ["dog", "cat", "fox"][class]);
        vec![member(format!("{i}.jpg"), "i"), member(format!("{i}.json"), &json)]
    });
    assert_eq!(load_dir(text.path()).unwrap().class_names, ["cat", "dog", "fox"]);
    // Their order may be given.
    fs::write(text.path().join("classes.txt"), "\u{feff}fox\r\n\r\ncat\r\ndog\r\n").unwrap();
    assert_eq!(load_dir(text.path()).unwrap().class_names, ["fox", "cat", "dog"]);
}

#[test]
fn class_lists_that_differ_are_matched_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (part, list) in [("train", "cat\ndog\nfox"), ("val", "fox\ncat\ndog")] {
        let own = dir.path().join(part);
        fs::create_dir(&own).unwrap();
        fs::write(own.join("classes.txt"), list).unwrap();
        let all = samples(|i, class| {
            let name = list.lines().nth(class).unwrap();
            vec![member(format!("{i}.jpg"), name), member(format!("{i}.cls"), &class.to_string())]
        });
        write(&own.join("0.tar"), &all);
    }
    let data = load_dir(dir.path()).unwrap();
    assert_eq!(data.class_names, ["cat", "dog", "fox"]);
    for source in [&data.train, &data.val] {
        for (name, label) in contents(source) {
            assert_eq!(name, data.class_names[label as usize]);
        }
    }
    assert!(data.summary.warnings[0].contains("matched by name"), "{:?}", data.summary);
    fs::write(dir.path().join("val/classes.txt"), "fox\nwolf\ndog").unwrap();
    let said = load_dir(dir.path()).err().unwrap().to_string();
    assert!(said.contains("found `wolf`"), "{said}");
}

#[test]
fn what_macos_and_links_leave_in_shards_is_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    let mut builder = ::tar::Builder::new(File::create(&path).unwrap());
    let mut add = |name: &str, kind: ::tar::EntryType, link: &str, bytes: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    use ::tar::EntryType::{Link, Regular, Symlink};
    for i in 0..24 {
        let class = ["a", "b"][i % 2];
        add(&format!("t/{class}/._{i}.jpg"), Regular, "", b"\0\x05\x16\x07");
        add(&format!("t/{class}/{i}.jpg"), Regular, "", &[i as u8]);
    }
    add("__MACOSX/t/a/x.jpg", Regular, "", b"x");
    add("t/.ipynb_checkpoints/x.jpg", Regular, "", b"x");
    add("t/a/0.jpg", Regular, "", b"\x32");
    add("t/a/hard.jpg", Link, "t/a/0.jpg", b"");
    add("t/a/soft.jpg", Symlink, "0.jpg", b"");
    add("t/a/0.heic", Regular, "", b"BM");
    builder.finish().unwrap();
    drop(builder);
    let data = load_dir(dir.path()).unwrap();
    assert_eq!((count(&data), &data.class_names[..]), (25, &["a".to_owned(), "b".to_owned()][..]));
    let all = [contents(&data.train), contents(&data.val)].concat();
    assert_eq!(all.iter().filter(|(text, _)| text == "\x32").count(), 2);
    let warning = &data.summary.warnings[0];
    for part in ["26 hidden", "1 .heic", "1 links (t/a/soft.jpg)", "1 replaced"] {
        assert!(warning.contains(part), "{warning}");
    }
}

#[test]
fn directories_within_a_shard_may_be_splits() {
    let whole = |labelled: bool| {
        set(move |i, class| {
            let part = ["train", "Val", "testing"][i / 12];
            let name = if labelled {
                format!("d/{part}/{i:02}")
            } else {
                format!("d/{part}/{class}/x/{i:02}")
            };
            let mut all = vec![member(format!("{name}.jpg"), part)];
            if labelled {
                all.push(member(format!("{name}.cls"), &class.to_string()));
            }
            all
        })
    };
    for labelled in [true, false] {
        let dir = whole(labelled);
        let data = load_dir(dir.path()).unwrap();
        assert_eq!(data.class_names, ["0", "1", "2"]);
        let test = data.test.unwrap();
        for (source, part) in [(&data.train, "train"), (&data.val, "Val"), (&test, "testing")] {
            assert_eq!(source.len(), 12);
            assert!(contents(source).iter().all(|(text, _)| text == part));
        }
    }
    // A shard of training images with others in it.
    let dir = whole(true);
    fs::rename(dir.path().join("x.tar"), dir.path().join("x-train.tar")).unwrap();
    let said = load_dir(dir.path()).err().unwrap().to_string();
    assert!(said.contains("found a directory for validation images"), "{said}");
}

#[test]
fn a_shard_cut_between_members_is_a_warning_and_several_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |number: usize| dir.path().join(format!("{number}.tar"));
    let cut = |number: usize| {
        let whole = fs::read(at(number)).unwrap();
        fs::write(at(number), &whole[..whole.len() - 1024]).unwrap();
    };
    for number in 0..4 {
        let all = samples(|i, class| {
            let key = format!("{number}-{i}");
            vec![
                member(format!("{key}.jpg"), "i"),
                member(format!("{key}.cls"), &class.to_string()),
            ]
        });
        write(&at(number), &all);
    }
    assert!(load_dir(dir.path()).unwrap().summary.warnings.is_empty());
    cut(1);
    let data = load_dir(dir.path()).unwrap();
    assert!(data.summary.warnings[0].contains("1 shard without an end-of-archive mark"));
    assert!(data.summary.warnings[0].ends_with("missing: 1.tar"), "{:?}", data.summary);
    cut(3);
    let said = load_dir(dir.path()).err().unwrap().to_string();
    assert!(said.contains("2 of 4 shards end without") && said.contains("1.tar, 3.tar"), "{said}");
    // A writer that never writes it.
    cut(0);
    cut(2);
    assert!(load_dir(dir.path()).unwrap().summary.warnings[0].contains("4 shards without"));
}
