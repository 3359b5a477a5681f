//! A fingerprint of a data set's content, which does not depend on where it lies or in which form.
//! Not here: whether an index still holds for its file (`index.rs`).

use sha2::{Digest, Sha256};

use crate::{DataSet, Sample, Source};

/// Images of each part whose bytes are looked at: reading all would take as long as an epoch.
const SAMPLED: usize = 64;

impl DataSet {
    /// 32 hexadecimal digits that are the same for copies of the data set at another place or in another form
    /// (`folder`, `tar`, `parquet`): of the class names, of the number and labels of the images of each part in
    /// their order, and of the bytes of 64 images of each part, spread evenly. An image among the others that was
    /// changed without a change of name or label goes unnoticed.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(b"fixnorm data 1\n");
        for name in &self.class_names {
            update(&mut digest, name.as_bytes());
        }
        for part in [Some(&self.train), Some(&self.val), self.test.as_ref()] {
            match part {
                Some(part) => add(&mut digest, &**part),
                None => digest.update([0]),
            }
        }
        digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn add(digest: &mut Sha256, part: &dyn Source) {
    let len = part.len();
    digest.update([1]);
    digest.update((len as u64).to_le_bytes());
    for index in 0..len {
        digest.update(part.label(index).to_le_bytes());
    }
    let step = len.div_ceil(SAMPLED).max(1);
    part.prefetch(&(0..len).step_by(step).collect::<Vec<_>>());
    for index in (0..len).step_by(step) {
        match part.sample(index) {
            Ok(Sample::Encoded(encoded)) => update(digest, &encoded.bytes),
            Ok(Sample::Pixels(image)) => {
                let sides = [image.height, image.width, image.channels];
                sides.iter().for_each(|side| digest.update((*side as u64).to_le_bytes()));
                update(digest, &image.pixels);
            }
            // Its error names the place.
            Err(_) => digest.update(b"unreadable"),
        }
    }
}

/// Adds bytes with their number, so that no two lists look alike.
fn update(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use crate::{DataSet, DataSpec};
    use std::fs;
    use std::path::Path;

    fn write(root: &Path, name: &str, value: u8) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [value; 40]).unwrap();
    }

    fn load(dir: &Path) -> DataSet {
        DataSpec::Folder { dir: dir.to_owned() }.load().unwrap()
    }

    #[test]
    fn copies_have_the_same_and_others_another() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "elsewhere/b"].map(|name| dir.path().join(name));
        for root in [&a, &b] {
            for (number, name) in (0..).zip(["x/0.png", "x/1.png", "y/0.png", "y/1.png"]) {
                write(root, &format!("train/{name}"), number);
                write(root, &format!("val/{name}"), number + 100);
            }
        }
        let first = load(&a).fingerprint();
        assert_eq!((first.len(), &load(&b).fingerprint()), (32, &first));
        write(&b, "train/x/1.png", 77);
        let changed = load(&b).fingerprint();
        assert_ne!(changed, first);
        write(&b, "train/x/1.png", 1);
        assert_eq!(load(&b).fingerprint(), first);
        write(&b, "val/y/2.png", 1);
        assert_ne!(load(&b).fingerprint(), first);
        fs::remove_file(b.join("val/y/2.png")).unwrap();
        for part in ["train", "val"] {
            fs::rename(b.join(part).join("y"), b.join(part).join("z")).unwrap();
        }
        assert_ne!(load(&b).fingerprint(), first);
    }
}
