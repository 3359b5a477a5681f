//! Trees as people have them: splits in other words, hidden files, levels too high and too low.

use super::*;
use crate::DataSet;

fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::new(4, 3).save_with_format(path, image::ImageFormat::Png).unwrap();
    }
    dir
}

fn names(source: &Arc<dyn Source>) -> Vec<(String, u32)> {
    let name = |index| match source.sample(index).unwrap() {
        Sample::Encoded(encoded) => encoded.name.file_name().unwrap().to_str().unwrap().to_owned(),
        Sample::Pixels(_) => panic!("a file"),
    };
    (0..source.len()).map(|index| (name(index), source.label(index))).collect()
}

fn load_dir(dir: &tempfile::TempDir) -> Result<DataSet, DataError> {
    load(dir.path(), "folder".to_owned(), Purpose::Training)?.data_set()
}

/// The error message for a tree of these images and these empty directories.
fn error(files: &[&str], empty: &[&str]) -> String {
    let dir = tree(files);
    empty.iter().for_each(|name| fs::create_dir_all(dir.path().join(name)).unwrap());
    load_dir(&dir).err().unwrap().to_string()
}

/// The same files in each of these directories.
fn in_each(roots: &[&str], files: &[&str]) -> Vec<String> {
    roots.iter().flat_map(|root| files.iter().map(move |file| format!("{root}/{file}"))).collect()
}

fn tree_of(files: &[String]) -> tempfile::TempDir {
    tree(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Two of each of two classes.
const FOUR: [&str; 4] = ["a/0.png", "a/1.png", "b/0.png", "b/1.png"];

#[test]
fn classes_and_images_are_sorted_as_torchvision_sorts_them() {
    let dir = tree(&[
        "train/b/2.png",
        "train/b/1.JPEG",
        "train/a/z.jpg",
        "train/a/sub/0.webp",
        "train/a-b/0.png",
        "val/b/0.png",
        "test/a/0.png",
    ]);
    fs::write(dir.path().join("train/a/notes.txt"), "").unwrap();
    let data = load_dir(&dir).unwrap();
    assert_eq!(data.class_names, ["a", "a-b", "b"]);
    assert_eq!(data.shape, None);
    let expected = [("z.jpg", 0), ("0.webp", 0), ("0.png", 1), ("1.JPEG", 2), ("2.png", 2)];
    assert_eq!(names(&data.train), expected.map(|(name, label)| (name.to_owned(), label)));
    assert_eq!(names(&data.val), [("0.png".to_owned(), 2)]);
    assert_eq!(data.test.unwrap().len(), 1);
    // A PNG whatever its name says.
    assert_eq!(data.train.image(0).unwrap().width, 4);
}

#[test]
fn without_val_a_balanced_part_of_train_validates() {
    let files: Vec<String> = (0..48)
        .map(|i| format!("train/{}/{i:02}.png", ["n01440764", "n01443537"][i % 2]))
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let data = load_dir(&tree(&files)).unwrap();
    assert_eq!((data.train.len(), data.val.len()), (44, 4));
    assert_eq!((0..4).map(|i| data.val.label(i)).sum::<u32>(), 2);
    assert_eq!(data.class_names[0], "tench, Tinca tinca");
    let flat: Vec<&str> = files.iter().map(|file| &file["train/".len()..]).collect();
    assert_eq!(load_dir(&tree(&flat)).unwrap().train.len(), 44);
    let error = load_dir(&tree(&files[..4])).err().unwrap().to_string();
    assert!(error.contains("at least 12 for training"), "{error}");
}

#[test]
fn trees_that_are_none_are_named() {
    let said = error(&["train/a/0.png"], &["train/b"]);
    assert!(said.contains("train/b holds no"), "{said}");
    let said = error(&["train/a/0.png", "val/c/0.png"], &[]);
    assert!(
        said.contains(
            "val/c: expected a class of the training images (a), found another directory"
        ),
        "{said}"
    );
    let said = error(&[], &["train"]);
    assert!(said.contains("train: no training images"), "{said}");
    let said = error(&[], &[]);
    assert!(said.contains("expected a directory for each class, found none"), "{said}");
    let nowhere = load(Path::new("nowhere"), String::new(), Purpose::Training);
    let said = nowhere.err().unwrap().to_string();
    assert!(said.starts_with("cannot read nowhere"), "{said}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_a_circle() {
    let dir = tree(&["train/a/0.png", "shared/1.png", "val/a/0.png"]);
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(at("shared"), at("train/b")).unwrap();
    assert_eq!(load_dir(&dir).unwrap().train.len(), 2);
    std::os::unix::fs::symlink(at("train/a"), at("train/a/again")).unwrap();
    let error = load_dir(&dir).err().unwrap().to_string();
    assert!(error.contains("in a circle"), "{error}");
}

#[cfg(unix)]
#[test]
fn what_only_looks_like_an_image_is_found_when_it_is_read() {
    let dir = tree(&["train/a/0.png", "train/b/0.png", "val/a/0.png"]);
    fs::create_dir(dir.path().join("train/a/directory.jpg")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("train/a/dangling.jpg")).unwrap();
    std::os::unix::net::UnixListener::bind(dir.path().join("train/a/socket.jpg")).unwrap();
    // What a link leads to is known when it is read, and reading it does not wait.
    std::os::unix::fs::symlink("/dev/tty", dir.path().join("train/b/device.jpg")).unwrap();
    let data = load_dir(&dir).unwrap();
    assert_eq!(data.train.len(), 5);
    assert!(data.summary.warnings.iter().any(|w| w.contains("1 no regular files (a/socket.jpg)")));
    let errors: Vec<_> = (0..5).filter_map(|index| data.train.sample(index).err()).collect();
    assert_eq!(errors.len(), 3);
}

#[test]
fn splits_are_recognized_by_any_of_their_words() {
    for (train, val, test) in [
        ("Train", "Valid", "Test"),
        ("Training", "validation", "Testing"),
        ("TRAIN", "DEV", "EVAL"),
        ("train2017", "val2017", "test2017"),
        ("train_images", "val_images", "hold-out"),
    ] {
        let data = load_dir(&tree_of(&in_each(&[train, val, test], &FOUR))).unwrap();
        assert_eq!((data.train.len(), data.val.len(), data.test.unwrap().len()), (4, 4, 4));
        assert_eq!(data.class_names, ["a", "b"]);
        let froms: Vec<&str> = data.summary.parts.iter().map(|part| &part.from[..]).collect();
        assert_eq!(froms, [train, val, test]);
        assert!(data.summary.warnings.is_empty(), "{:?}", data.summary);
    }
    // Test images never validate.
    let mut files = in_each(&["Testing"], &FOUR);
    files.extend((0..24).map(|i| format!("Training/{}/{i}.png", ["a", "b"][i % 2])));
    let data = load_dir(&tree_of(&files)).unwrap();
    assert_eq!((data.train.len(), data.val.len(), data.test.unwrap().len()), (22, 2, 4));
    assert_eq!(data.summary.parts[1].from, "a twelfth of Training");
}

#[test]
fn names_of_splits_are_never_classes() {
    let said = error(&["cat/0.png", "dog/0.png", "test/0.png"], &[]);
    assert!(said.contains("`test` is a name for test images, beside directories"), "{said}");
    assert!(
        said.contains("cat, dog") && said.contains("move the classes to train/CLASS"),
        "{said}"
    );
    let said = load_dir(&tree_of(&in_each(&["Val", "dev", "train"], &FOUR))).err().unwrap();
    assert!(said.to_string().contains("`dev` and `Val` both mean validation images"), "{said}");
    let said = load_dir(&tree_of(&in_each(&["val", "Testing"], &FOUR))).err().unwrap().to_string();
    assert!(
        said.contains("no training images, only `val` (validation images) and `Testing`"),
        "{said}"
    );
    let said = load_dir(&tree_of(&in_each(&["cat", "dog"], &["train/0.png", "test/0.png"])));
    let said = said.err().unwrap().to_string();
    assert!(said.contains("cat: it would be a class, but holds a directory `t"), "{said}");
    // A class is called `train` where the others are no splits, and classes of a split are what they are.
    let files = in_each(&["bus", "train"], &["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]);
    assert_eq!(load_dir(&tree_of(&files)).unwrap().class_names, ["bus", "train"]);
    let files = in_each(&["train", "val"], &["valid/0.png", "invalid/0.png"]);
    assert_eq!(load_dir(&tree_of(&files)).unwrap().class_names, ["invalid", "valid"]);
    // What is beside the splits is left out with a word.
    let data = load_dir(&tree_of(&in_each(&["train", "val", "extra"], &FOUR))).unwrap();
    assert!(data.summary.warnings[0].contains("mean no split: extra"), "{:?}", data.summary);
}

#[test]
fn a_part_that_is_there_must_have_images() {
    let train = in_each(&["train"], &FOUR);
    let train: Vec<&str> = train.iter().map(String::as_str).collect();
    let said = error(&train, &["val"]);
    assert!(said.contains("val: no validation images; fill the part or remove it"), "{said}");
    let said = error(&train, &["val/a", "val/b"]);
    assert!(said.contains("no validation images"), "{said}");
    let with = |name: &str, bytes: &[u8]| {
        let dir = tree(&train);
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        load_dir(&dir)
    };
    let said = with("val/a/0.xcf", b"").err().unwrap().to_string();
    assert!(
        said.contains("val: no validation images that can be read, but 1 .xcf (a/0.xcf)"),
        "{said}"
    );
    let said = with("val/0.jpg", b"").err().unwrap().to_string();
    assert!(said.contains("val: expected a directory for each class, found images without them"));
    let said = with("train/c/0.xcf", b"").err().unwrap().to_string();
    assert!(said.contains("train/c: no training images that can be read, but 1 .xcf"), "{said}");
    let mut files = in_each(&["val"], &FOUR);
    files.extend(in_each(&["train"], &FOUR));
    files.push("test/0.png".to_owned());
    let data = load_dir(&tree_of(&files)).unwrap();
    assert!(data.test.is_none() && data.summary.warnings[0].contains("`test` is left out"));
}

#[cfg(unix)]
#[test]
fn a_part_that_is_a_link_to_nowhere_is_an_error() {
    let dir = tree_of(&in_each(&["train"], &FOUR));
    std::os::unix::fs::symlink("/nowhere/val", dir.path().join("val")).unwrap();
    let said = load_dir(&dir).err().unwrap().to_string();
    assert!(said.contains("val: expected a directory, found a link that leads nowhere"), "{said}");
}

#[test]
fn levels_too_high_and_too_low_are_reported() {
    let files = in_each(&["dataset/train", "dataset/val"], &FOUR);
    let said = load_dir(&tree_of(&files)).err().unwrap().to_string();
    assert!(
        said.contains("a level too high; name") || said.contains("a level too high?; name"),
        "{said}"
    );
    assert!(said.ends_with("/dataset"), "{said}");
    let said = load_dir(&tree_of(&in_each(&["images"], &FOUR))).err().unwrap().to_string();
    assert!(said.ends_with("/images"), "{said}");
    let said = load_dir(&tree_of(&in_each(&["x/y"], &FOUR))).err().unwrap().to_string();
    assert!(said.ends_with("/x/y"), "{said}");
    let said = load_dir(&tree_of(&in_each(&["x/y/train"], &FOUR))).err().unwrap().to_string();
    assert!(said.ends_with("/x/y"), "{said}");
    let said = error(&["a/0.png"], &[]);
    assert!(said.contains("all training images are of one class, `a`"), "{said}");
    let said = error(&["0.png", "1.png"], &[]);
    assert!(said.contains("a level too low"), "{said}");
    // The directory of a split itself.
    let dir = tree_of(&in_each(
        &["train", "val"],
        &[
            "a/0.png", "a/1.png", "a/2.png", "a/3.png", "b/0.png", "b/1.png", "b/2.png", "b/3.png",
            "b/4.png", "b/5.png", "b/6.png", "b/7.png",
        ],
    ));
    let warnings = |part: &str| {
        let data =
            load(&dir.path().join(part), String::new(), Purpose::Training).unwrap().data_set();
        data.unwrap().summary.warnings
    };
    assert!(warnings("train")[0].contains("not read: val; name the directory above"));
    assert!(warnings("val")[0].contains("trains on images of a directory called `val`"));
}

#[test]
fn hidden_files_are_no_images_and_hidden_directories_no_classes() {
    let mut files = in_each(&["train", "val"], &FOUR);
    for junk in
        [".ipynb_checkpoints/x.png", "__MACOSX/x.png", "a/._0.png", "a/.thumbs/x.png", ".git/x.png"]
    {
        files.push(format!("train/{junk}"));
    }
    files.extend([".ipynb_checkpoints/x.png", "__MACOSX/train/a/x.png"].map(str::to_owned));
    let dir = tree_of(&files);
    fs::write(dir.path().join("train/a/Thumbs.db"), "").unwrap();
    fs::write(dir.path().join("train/.DS_Store"), "").unwrap();
    let data = load_dir(&dir).unwrap();
    assert_eq!(
        (data.train.len(), &data.class_names[..]),
        (4, &["a".to_owned(), "b".to_owned()][..])
    );
    assert_eq!(data.summary.warnings, ["left out: 1 hidden (a/._0.png)"]);
}

#[test]
fn files_that_are_not_read_are_counted() {
    let dir = tree_of(&in_each(&["train", "val"], &FOUR));
    for name in ["train/a/0.xcf", "train/b/1.xcf", "train/a/none", "train/stray.png", "val.zip"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let warnings = load_dir(&dir).unwrap().summary.warnings.join("; ");
    for part in [
        "2 .xcf (",
        "1 without an ending (a/none)",
        "1 in no class directory (stray.png)",
        "val.zip",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
}

#[test]
fn every_class_keeps_an_image_where_some_are_taken() {
    let files: Vec<String> = (0..24).map(|class| format!("train/c{class:02}/0.png")).collect();
    let said = load_dir(&tree_of(&files)).err().unwrap().to_string();
    assert!(said.contains("two of a class"), "{said}");
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_classes_of_their_own() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tree(&["train/a/0.png", "val/a/0.png"]);
    for class in [&b"caf\xe9"[..], b"caf\xe8"] {
        let class = OsStr::from_bytes(class);
        fs::create_dir(dir.path().join("train").join(class)).unwrap();
        let image = dir.path().join("train").join(class).join(OsStr::from_bytes(b"\xff.png"));
        fs::copy(dir.path().join("train/a/0.png"), image).unwrap();
    }
    let data = load_dir(&dir).unwrap();
    assert_eq!(data.class_names, ["a", "caf\\xe8", "caf\\xe9"]);
    assert!((0..3).all(|index| data.train.image(index).is_ok()));
}
