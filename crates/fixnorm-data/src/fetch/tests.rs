//! Fetching from a server in this process, which cuts connections, ignores ranges or sends something else.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// How the server responds, request by request; the last response repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// With what was asked for.
    Well,
    /// With a part of it, and a closed connection.
    Cut(usize),
    /// With the whole file, whatever range was asked for.
    Whole,
    /// With this status.
    Status(&'static str),
}

/// A server of one file; it notes the range of each request.
struct Server {
    base: String,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    fn of(content: &[u8], ways: &[Way]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/files", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(vec![]));
        let (content, ways, noted) = (content.to_vec(), ways.to_vec(), ranges.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let way = ways[number.min(ways.len() - 1)];
                // The client may have gone: its test says whether that is right.
                let _ = answer(stream.unwrap(), &content, way, &noted);
            }
        });
        Self { base, ranges }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    way: Way,
    noted: &Mutex<Vec<Option<String>>>,
) -> io::Result<()> {
    let mut range = None;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("range: ") {
            range = Some(value.to_owned());
        }
        if line.is_empty() {
            break;
        }
    }
    noted.lock().unwrap().push(range.clone());
    if let Way::Status(status) = way {
        return write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let start = range.filter(|_| way != Way::Whole).map_or(0, |range| {
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
    });
    let body = &content[start..];
    match start {
        0 => write!(stream, "HTTP/1.1 200 OK\r\n")?,
        start => write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
            content.len() - 1,
            content.len()
        )?,
    }
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    let sent = match way {
        Way::Cut(sent) => &body[..sent.min(body.len())],
        _ => body,
    };
    stream.write_all(sent)?;
    stream.flush()
}

fn digest(content: &[u8]) -> &'static str {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    Box::leak(digest.into_boxed_str())
}

fn remote(content: &[u8], unpacks_to: Option<&'static str>) -> Remote {
    let (bytes, sha256) = (content.len() as u64, digest(content));
    let file = RemoteFile { name: "file.gz", bytes, sha256, unpacks_to };
    Remote { name: "set", base: "http://127.0.0.1:1/nowhere", files: Box::leak(Box::new([file])) }
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_cut_connection_is_taken_up_where_it_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let content = content();
    let server = Server::of(&content, &[Way::Cut(100_000), Way::Well]);
    let mut seen = vec![];
    let mut on_bytes = |name: &str, done, of| seen.push((name.to_owned(), done, of));
    let set = remote(&content, None);
    set.fetch(dir.path(), Some(&server.base), &mut on_bytes).unwrap();
    assert_eq!(fs::read(dir.path().join("file.gz")).unwrap(), content);
    assert_eq!(names(dir.path()), ["file.gz"]);
    assert_eq!(server.ranges(), [None, Some("bytes=100000-".to_owned())]);
    assert!(seen.is_sorted_by_key(|(_, done, _)| *done));
    assert_eq!(seen.last(), Some(&("file.gz".to_owned(), 300_000, 300_000)));
    // What is there is checked and not fetched again.
    set.fetch(dir.path(), Some(&server.base), &mut |_, _, _| panic!("fetched")).unwrap();
    assert_eq!(server.ranges().len(), 2);
}

#[test]
fn an_earlier_process_is_gone_on_from_and_a_server_without_ranges_is_no_trouble() {
    for (way, status) in [(Way::Well, "the rest"), (Way::Whole, "all of it")] {
        let dir = tempfile::tempdir().unwrap();
        let content = content();
        fs::write(dir.path().join("file.gz.part"), &content[..1234]).unwrap();
        let server = Server::of(&content, &[way]);
        let set = remote(&content, None);
        set.fetch(dir.path(), Some(&server.base), &mut |_, _, _| {}).unwrap();
        assert_eq!(fs::read(dir.path().join("file.gz")).unwrap(), content, "{status}");
        assert_eq!(server.ranges(), [Some("bytes=1234-".to_owned())]);
    }
}

#[test]
fn other_content_is_refused_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let expected = content();
    let mut other = expected.clone();
    other[7] ^= 1;
    let fetch = |content: &[u8]| {
        let server = Server::of(content, &[Way::Well]);
        remote(&expected, None)
            .fetch(dir.path(), Some(&server.base), &mut |_, _, _| {})
            .unwrap_err()
    };
    let error = fetch(&other).to_string();
    assert!(error.contains(digest(&expected)) && error.contains(digest(&other)), "{error}");
    assert!(names(dir.path()).is_empty());
    let longer = [&expected[..], b"more"].concat();
    let error = fetch(&longer).to_string();
    assert!(error.contains("expected 300000 bytes, found more"), "{error}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_server_that_has_nothing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let content = content();
    let server = Server::of(&content, &[Way::Status("404 Not Found")]);
    let set = remote(&content, None);
    let error = set.fetch(dir.path(), Some(&server.base), &mut |_, _, _| {}).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("/files/file.gz") && said.contains("404 Not Found"), "{said}");
    assert_eq!(server.ranges().len(), 1);
    // One that is busy is asked again.
    let server = Server::of(&content, &[Way::Status("503 Service Unavailable"), Way::Well]);
    set.fetch(dir.path(), Some(&server.base), &mut |_, _, _| {}).unwrap();
    assert_eq!(server.ranges().len(), 2);
}

#[test]
fn an_archive_is_checked_before_it_is_unpacked() {
    let mut builder = ::tar::Builder::new(GzEncoder::new(vec![], Compression::fast()));
    let mut header = ::tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder.append_data(&mut header, "inner/a.bin", &b"abc"[..]).unwrap();
    let archive = builder.into_inner().unwrap().finish().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::of(&archive, &[Way::Cut(50), Way::Well]);
    let set = remote(&archive, Some("inner"));
    set.fetch(dir.path(), Some(&server.base), &mut |_, _, _| {}).unwrap();
    assert_eq!(names(dir.path()), ["inner"]);
    assert_eq!(fs::read(dir.path().join("inner/a.bin")).unwrap(), b"abc");
    set.fetch(dir.path(), Some(&server.base), &mut |_, _, _| panic!("fetched")).unwrap();

    let other = [&archive[..archive.len() - 1], b"x"].concat();
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::of(&other, &[Way::Well]));
    assert!(set.fetch(dir.path(), Some(&server.base), &mut |_, _, _| {}).is_err());
    assert!(names(dir.path()).is_empty());
}
