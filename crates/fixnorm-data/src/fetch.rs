//! Data sets from where their authors keep them: downloaded, checked, unpacked.
//!
//! A file is written under another name, from where an interrupted download resumes, and gets its own name
//! when its SHA-256 is right; an archive is unpacked only then, into a directory that gets its name when it
//! is whole. Not here: unpacking (`unpack.rs`), where the sets are looked for (`places.rs`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::{StatusCode, header};

use crate::{places, unpack};

pub(crate) mod error;

pub use error::FetchError;

/// A data set that can be fetched, by its name among those of [`DataSpec`](crate::DataSpec).
#[derive(Clone, Debug)]
pub struct Remote {
    /// As `fixnorm data fetch` takes it.
    pub name: &'static str,
    base: &'static str,
    files: &'static [RemoteFile],
}

/// A file to download.
#[derive(Clone, Debug)]
struct RemoteFile {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
    /// The directory that an archive unpacks to.
    unpacks_to: Option<&'static str>,
}

const fn gzip(name: &'static str, bytes: u64, sha256: &'static str) -> RemoteFile {
    RemoteFile { name, bytes, sha256, unpacks_to: None }
}

/// The data sets that can be fetched.
///
/// Fashion-MNIST: the files in the project's repository, <https://github.com/zalandoresearch/fashion-mnist>,
/// whose README gives their MD5 sums. CIFAR-10: the binary version of
/// <https://www.cs.toronto.edu/~kriz/cifar.html>, which gives the MD5 sum c32a1d4ab5d03f1284b67883e8d87530.
/// Neither gives SHA-256 sums: these are what several independent public download scripts check files of
/// those MD5 sums with.
pub const REMOTES: [Remote; 2] = [
    Remote {
        name: "fashion-mnist",
        base: "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        files: &[
            gzip(
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            gzip(
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            gzip(
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            gzip(
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ],
    },
    Remote {
        name: "cifar10",
        base: "https://www.cs.toronto.edu/~kriz",
        files: &[RemoteFile {
            name: "cifar-10-binary.tar.gz",
            bytes: 170_052_171,
            sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            unpacks_to: Some("cifar-10-batches-bin"),
        }],
    },
];

/// Called with a file's name, the bytes that are there, and those that there will be.
pub type OnBytes<'a> = &'a mut dyn FnMut(&str, u64, u64);

impl Remote {
    /// The data set of this name.
    pub fn find(name: &str) -> Option<&'static Remote> {
        REMOTES.iter().find(|remote| remote.name == name)
    }

    /// Where the set is put if nothing else is said, and where the spec of the same name finds it:
    /// `$FIXNORM_DATA/NAME`, or `data/NAME`.
    pub fn own_place(&self) -> PathBuf {
        places::own(self.name)
    }

    /// Fetches what is not yet there into `out`; `base` is another address of the same files.
    ///
    /// # Errors
    /// A server that cannot be reached, files that are not those expected, or a disk that is full.
    pub fn fetch(
        &self,
        out: &Path,
        base: Option<&str>,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), FetchError> {
        fs::create_dir_all(out).map_err(FetchError::io("create", out))?;
        let base = base.unwrap_or(self.base).trim_end_matches('/');
        for file in self.files {
            file.fetch(out, base, on_bytes)?;
        }
        Ok(())
    }
}

/// Attempts in a row that may bring nothing.
const MOST_ATTEMPTS: u32 = 5;

impl RemoteFile {
    fn fetch(&self, out: &Path, base: &str, on_bytes: OnBytes<'_>) -> Result<(), FetchError> {
        let target = out.join(self.unpacks_to.unwrap_or(self.name));
        // An unpacked directory is whole if it has its name; a file may be another one.
        let there = match self.unpacks_to {
            Some(_) => target.is_dir(),
            None => target.is_file() && sha256(&target)? == self.sha256,
        };
        if there {
            return Ok(());
        }
        let url = format!("{base}/{}", self.name);
        let part = out.join(format!("{}.part", self.name));
        self.download(&url, &part, on_bytes)?;
        let found = sha256(&part)?;
        if found != self.sha256 {
            let _ = fs::remove_file(&part);
            let expected = format!("SHA-256 {}", self.sha256);
            return Err(FetchError::Content { url, expected, found });
        }
        match self.unpacks_to {
            Some(directory) => {
                unpack::tar_gz(&part, out, directory)?;
                fs::remove_file(&part).map_err(FetchError::io("remove", &part))
            }
            None => fs::rename(&part, &target).map_err(FetchError::io("write", &target)),
        }
    }

    /// All bytes of the file into `part`, after those that are there.
    fn download(&self, url: &str, part: &Path, on_bytes: OnBytes<'_>) -> Result<(), FetchError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("fixnorm/", env!("CARGO_PKG_VERSION")));
        let agent: Agent = config.build().into();
        let mut attempts = 0;
        loop {
            let before = length(part)?;
            if before == self.bytes {
                return Ok(());
            }
            let message = match self.try_once(&agent, url, part, before, on_bytes) {
                Ok(()) => "it ended early".to_owned(),
                Err(Attempt::Broken(message)) => message,
                Err(Attempt::Final(error)) => return Err(error),
            };
            let after = length(part)?;
            attempts = if after > before { 1 } else { attempts + 1 };
            if after == self.bytes {
                return Ok(());
            }
            if attempts >= MOST_ATTEMPTS {
                return Err(FetchError::Download { url: url.to_owned(), message });
            }
            std::thread::sleep(Duration::from_millis(200) * attempts * attempts);
        }
    }

    fn try_once(
        &self,
        agent: &Agent,
        url: &str,
        part: &Path,
        before: u64,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), Attempt> {
        let broken = |error: ureq::Error| Attempt::Broken(error.to_string());
        let disk = |error| Attempt::Final(FetchError::io("write", part)(error));
        let mut request = agent.get(url);
        if before > 0 {
            request = request.header(header::RANGE, format!("bytes={before}-"));
        }
        let mut response = request.call().map_err(broken)?;
        let status = response.status();
        // A server may send the whole file instead of the rest.
        let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let goes_on = status == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| range.starts_with(&format!("bytes {before}-")));
        if !goes_on && status != StatusCode::OK {
            if status == StatusCode::RANGE_NOT_SATISFIABLE || status.is_success() {
                // What is there is no beginning of what the server has.
                File::create(part).map_err(disk)?;
            }
            let message = format!("the server answered {status}");
            let hopeless = status.is_client_error() && status != StatusCode::RANGE_NOT_SATISFIABLE;
            return Err(if hopeless {
                Attempt::Final(FetchError::Download { url: url.to_owned(), message })
            } else {
                Attempt::Broken(message)
            });
        }
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(disk)?;
        let mut there = before;
        if !goes_on {
            file.set_len(0).map_err(disk)?;
            there = 0;
        }
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read =
                body.read(&mut buffer).map_err(|error| Attempt::Broken(error.to_string()))?;
            if read == 0 {
                return file.sync_all().map_err(disk);
            }
            there += read as u64;
            if there > self.bytes {
                let _ = fs::remove_file(part);
                return Err(Attempt::Final(FetchError::Content {
                    url: url.to_owned(),
                    expected: format!("{} bytes", self.bytes),
                    found: "more".to_owned(),
                }));
            }
            file.write_all(&buffer[..read]).map_err(disk)?;
            on_bytes(self.name, there, self.bytes);
        }
    }
}

/// Why an attempt ended.
enum Attempt {
    /// Another may help.
    Broken(String),
    /// Nothing will.
    Final(FetchError),
}

fn length(path: &Path) -> Result<u64, FetchError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(FetchError::io("read", path)(error)),
    }
}

fn sha256(path: &Path) -> Result<String, FetchError> {
    let mut file = File::open(path).map_err(FetchError::io("read", path))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer).map_err(FetchError::io("read", path))?;
        if read == 0 {
            return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        digest.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests;
