//! A private PostgreSQL server for a test, and a proxy that breaks connections to it.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the server's only user has to say.
pub(crate) const PASSWORD: &str = "pass:w0rd";

/// A server in a temporary directory, on a loopback port of its own; it ends when this is dropped.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts a server; none where PostgreSQL is not installed, which is said on stderr. With FIXNORM_TEST_POSTGRES=1
    /// that fails instead.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(
                std::env::var("FIXNORM_TEST_POSTGRES").as_deref() != Ok("1"),
                "FIXNORM_TEST_POSTGRES=1, but no initdb in PATH or /usr/lib/postgresql/*/bin"
            );
            // Not by the macro: tests capture what it prints.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED, no PostgreSQL (initdb) found: {}",
                std::thread::current().name().unwrap_or_default()
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
        for name in ["", "password"] {
            give_away(&dir.path().join(name));
        }
        let made = unprivileged(&programs.join("initdb"))
            .args(["--auth=scram-sha-256", "--username=ann", "--encoding=UTF8", "--locale=C"])
            .arg("--pwfile")
            .arg(dir.path().join("password"))
            .arg("-D")
            .arg(dir.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        for name in ["server.crt", "server.key"] {
            // Where the fixtures are not, TLS is not tested.
            if let Ok(bytes) = std::fs::read(fixtures.join(name)) {
                let copy = dir.path().join("data").join(name);
                std::fs::write(&copy, bytes).unwrap();
                restrict(&copy);
                give_away(&copy);
            }
        }
        let child = spawn(&programs, dir.path(), port);
        let server = Self { dir, programs, port, child };
        server.wait();
        Some(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a study, with the password in it.
    pub(crate) fn url(&self, study: &str) -> String {
        url(self.port, study)
    }

    /// Ends every process of the server at once, as a crash does, and starts it again after `pause`.
    pub(crate) fn crash(&mut self, pause: Duration) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
        std::thread::sleep(pause);
        self.child = spawn(&self.programs, self.dir.path(), self.port);
        self.wait();
    }

    fn wait(&self) {
        let since = Instant::now();
        let client = self.programs.join("pg_isready");
        let is_ready = || {
            let mut asked = Command::new(&client);
            asked.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            asked.status().is_ok_and(|status| status.success())
        };
        while !is_ready() {
            let log = || std::fs::read_to_string(self.dir.path().join("log"));
            assert!(since.elapsed() < Duration::from_secs(60), "{:?}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.child.wait();
    }
}

/// The URL of a study behind this port.
pub(crate) fn url(port: u16, study: &str) -> String {
    format!("postgres://ann:pass%3Aw0rd@127.0.0.1:{port}/postgres/{study}")
}

/// Where PostgreSQL's programs are; Debian has them in no PATH.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(versions.map(|version| version.path().join("bin")))
        .find(|dir| ["initdb", "postgres", "pg_isready"].iter().all(|name| dir.join(name).exists()))
}

fn spawn(programs: &Path, dir: &Path, port: u16) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut server = unprivileged(&programs.join("postgres"));
    server.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string()]);
    // What a crash of the machine would lose is not tested.
    let mut settings = vec!["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"];
    if dir.join("data/server.key").exists() {
        settings.push("ssl=on");
    }
    for setting in settings {
        server.args(["-c", setting]);
    }
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// PostgreSQL refuses to run as root: then it runs as nobody.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=QUIT"]);
    command.arg(program).current_dir("/");
    command
}

#[cfg(unix)]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

#[cfg(unix)]
fn give_away(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
}

#[cfg(unix)]
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

#[cfg(not(unix))]
fn give_away(_path: &Path) {}

#[cfg(not(unix))]
fn restrict(_path: &Path) {}

/// A port in front of a server. Armed, it passes the next COMMIT on and cuts the connection before the answer.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    armed: AtomicBool,
    /// How often clients sent something.
    requests: AtomicUsize,
}

impl Proxy {
    pub(crate) fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_proxy = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (back, client_again) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (shared, answers) = (shared.clone(), Arc::new(AtomicBool::new(true)));
                let answered = answers.clone();
                std::thread::spawn(move || to_server(client, server, &shared, &answers));
                std::thread::spawn(move || to_client(back, client_again, &answered));
            }
        });
        Self { port: own, shared: of_proxy }
    }

    pub(crate) fn arm(&self) {
        self.shared.armed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_cut(&self) -> bool {
        !self.shared.armed.load(Ordering::SeqCst)
    }

    /// How often clients sent something and waited for the answer, at most.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

fn to_server(mut client: TcpStream, mut server: TcpStream, shared: &Shared, answers: &AtomicBool) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let is_commit = buffer[..count].windows(6).any(|word| word == b"COMMIT");
        let cut = is_commit && shared.armed.swap(false, Ordering::SeqCst);
        if cut {
            answers.store(false, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
        if cut {
            // Time for the commit.
            std::thread::sleep(Duration::from_millis(300));
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn to_client(mut server: TcpStream, mut client: TcpStream, answers: &AtomicBool) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        if !answers.load(Ordering::SeqCst) || client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}
