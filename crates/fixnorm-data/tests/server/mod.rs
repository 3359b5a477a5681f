//! A server of files on loopback, for tests: plain HTTP, and what S3-compatible stores answer to the same requests.
//!
//! HEAD and GET with ranges over connections that stay open. It can fail at random, cut connections, change a file and refuse
//! an access key; signatures are not verified.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A server that runs until the test ends.
pub(crate) struct Server {
    address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
}

/// A file's content and version.
type Versioned = (Arc<Vec<u8>>, usize);

/// What it serves, and how well.
#[derive(Default)]
pub(crate) struct Shared {
    /// Content and version by path, as `/bucket/train-0.tar`.
    files: Mutex<HashMap<String, Versioned>>,
    /// Of a hundred requests, those that are answered by 500.
    pub(crate) failing: AtomicU64,
    /// Of a hundred answers, those that end in the middle.
    pub(crate) cut: AtomicU64,
    /// The only access key that may read, if there is one.
    key: Mutex<Option<String>>,
    /// Whether ranges are ignored.
    pub(crate) without_ranges: AtomicU64,
    /// Requests so far, and bytes of bodies sent.
    pub(crate) requests: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
    chance: AtomicU64,
}

impl Shared {
    /// Whether something happens that does so in `percent` of a hundred cases.
    fn happens(&self, percent: &AtomicU64) -> bool {
        let percent = percent.load(Relaxed);
        let mixed = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) % 100 < percent
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        let mut files = self.files.lock().unwrap();
        let version = files.get(path).map_or(0, |(_, version)| version + 1);
        files.insert(path.to_owned(), (Arc::new(bytes), version));
    }

    pub(crate) fn remove(&self, path: &str) {
        self.files.lock().unwrap().remove(path).unwrap();
    }

    pub(crate) fn only_key(&self, key: &str) {
        *self.key.lock().unwrap() = Some(key.to_owned());
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || serve(&stream, &own));
            }
        });
        Self { address, shared }
    }

    /// All files of a directory, below `/bucket/`.
    pub(crate) fn with_files_of(dir: &Path) -> Self {
        let server = Self::start();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            server.shared.put(&format!("/bucket/{name}"), fs::read(&path).unwrap());
        }
        server
    }

    /// The URL of the directory of the files.
    pub(crate) fn http(&self) -> String {
        format!("http://{}/bucket", self.address)
    }

    /// The settings with which `s3://bucket/` is this server.
    pub(crate) fn settings(&self, key: &str) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address).as_str()),
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "nowhere-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Relaxed)
    }
}

/// Answers the requests of a connection.
fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
        let (method, rest) = line.split_once(' ')?;
        let path = rest.split([' ', '?']).next()?.to_owned();
        let head = method == "HEAD";
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        shared.requests.fetch_add(1, Relaxed);
        answer(stream, shared, &path, head, &headers)?;
    }
}

fn answer(
    mut stream: &TcpStream,
    shared: &Shared,
    path: &str,
    head: bool,
    headers: &HashMap<String, String>,
) -> Option<()> {
    let mut error = |status: &str, code: &str| {
        let body =
            format!("<Error><Code>{code}</Code><AWSAccessKeyId>KEY</AWSAccessKeyId></Error>");
        let sent = if head { "" } else { &body };
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{sent}").ok()
    };
    if shared.happens(&shared.failing) {
        return error("500 Internal Server Error", "InternalError");
    }
    if let Some(key) = &*shared.key.lock().unwrap() {
        let given = headers.get("authorization").map_or("", String::as_str);
        if !given.contains(&format!("Credential={key}/")) {
            return error("403 Forbidden", "InvalidAccessKeyId");
        }
    }
    let Some((bytes, version)) = shared.files.lock().unwrap().get(path).cloned() else {
        return error("404 Not Found", "NoSuchKey");
    };
    let range = headers.get("range").filter(|_| shared.without_ranges.load(Relaxed) == 0);
    let (status, range, more) = match range {
        None => ("200 OK", 0..bytes.len(), String::new()),
        Some(range) => {
            let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let start: usize = start.parse().ok()?;
            let end = last.parse::<usize>().map_or(bytes.len(), |last| last + 1).min(bytes.len());
            if start >= end {
                return error("416 Range Not Satisfiable", "InvalidRange");
            }
            let content = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
            ("206 Partial Content", start..end, content)
        }
    };
    let body = &bytes[range];
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"v{version}\"\r\n\
         Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n{more}\r\n"
    )
    .ok()?;
    if head {
        return Some(());
    }
    if shared.happens(&shared.cut) {
        let _ = stream.write_all(&body[..length / 2]);
        return None;
    }
    shared.bytes.fetch_add(length, Relaxed);
    stream.write_all(body).ok()
}
