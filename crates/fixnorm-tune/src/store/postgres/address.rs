//! The URL of a study in a database: what it names, its password, and how it is shown without it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::super::StoreError;

/// Name of a study whose URL names none.
const DEFAULT_STUDY: &str = "default";

/// How much of TLS a URL asks for, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// `disable`, `prefer` (the default) or `require`: without a check of the server's certificate.
    Unverified,
    /// `verify-full`: the certificate must be signed by a known authority and be the host's.
    Verified,
}

/// A study in a database: `postgres://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[/STUDY][?sslmode=…]`.
///
/// The password may also be in `PGPASSWORD` or in the file that `PGPASSFILE` names (`~/.pgpass`). `Display` and `Debug`
/// leave it out.
#[derive(Clone)]
pub struct Address {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    tls: Tls,
    root_certificates: Option<PathBuf>,
    study: String,
    /// Without password and study's name: what stands before the name, and behind it.
    shown: [String; 2],
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, behind] = &self.inner.shown;
        write!(f, "{before}/{}{behind}", self.inner.study)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.inner.shown == other.inner.shown && self.inner.study == other.inner.study
    }
}

impl Eq for Address {}

impl Address {
    /// Whether this is a database's URL rather than a file's name.
    pub fn is_url(text: &str) -> bool {
        scheme(text).is_some()
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// What is no such URL, or names no database.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = scheme(url).unwrap_or(("", url));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (database, study) = path.split_once('/').unwrap_or((path, ""));
        let (mut tls, mut mode, mut root_certificates) = (Tls::Unverified, SslMode::Prefer, None);
        let (mut passed, mut seen) = (vec![], vec![]);
        let shown_authority = without_password(authority);
        let refuse = |message: String| {
            let path = if path.is_empty() { String::new() } else { format!("/{path}") };
            StoreError::Url { shown: format!("{scheme}{shown_authority}{path}"), message }
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (key, value) {
                ("sslmode", "disable") => mode = SslMode::Disable,
                ("sslmode", "prefer") => mode = SslMode::Prefer,
                ("sslmode", "require") => mode = SslMode::Require,
                ("sslmode", "verify-full") => (mode, tls) = (SslMode::Require, Tls::Verified),
                ("sslmode", other) => {
                    return Err(refuse(format!(
                        "sslmode is disable, prefer, require or verify-full, not `{other}`"
                    )));
                }
                ("sslrootcert", "system") => root_certificates = None,
                ("sslrootcert", file) => root_certificates = Some(PathBuf::from(decoded(file))),
                _ => passed.push(parameter),
            }
            if key != "password" {
                seen.push(parameter);
            }
        }
        if database.is_empty() {
            return Err(refuse("it names no database".to_owned()));
        }
        if study.contains('/') {
            return Err(refuse("a study's name has no `/`".to_owned()));
        }
        let passed = passed.join("&");
        // The client's messages name a parameter, never its value.
        let config = format!("postgres://{authority}/{database}?{passed}").parse::<Config>();
        let mut config = config.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            refuse(cause.unwrap_or_else(|| error.to_string()))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(refuse("it names no host".to_owned()));
        }
        config.ssl_mode(mode).application_name("fixnorm");
        keep_alive(&mut config);
        let query = if seen.is_empty() { String::new() } else { format!("?{}", seen.join("&")) };
        let study = if study.is_empty() { DEFAULT_STUDY.to_owned() } else { decoded(study) };
        let shown = [format!("{scheme}{shown_authority}/{database}"), query];
        Ok(Self { inner: Arc::new(Inner { config, tls, root_certificates, study, shown }) })
    }

    /// The study's name.
    pub fn study(&self) -> &str {
        &self.inner.study
    }

    /// Another study of the same database.
    pub(in crate::store) fn with_study(&self, name: &str) -> Self {
        let Inner { config, tls, root_certificates, shown, .. } = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                config: config.clone(),
                tls: *tls,
                root_certificates: root_certificates.clone(),
                study: name.to_owned(),
                shown: shown.clone(),
            }),
        }
    }

    pub(super) fn tls(&self) -> Tls {
        self.inner.tls
    }

    pub(super) fn root_certificates(&self) -> Option<&Path> {
        self.inner.root_certificates.as_deref()
    }

    /// How to connect, with the password from the URL, the environment or the password file.
    pub(super) fn config(&self) -> Config {
        let mut config = self.inner.config.clone();
        if config.get_user().is_none()
            && let Ok(user) = std::env::var("PGUSER")
        {
            config.user(user);
        }
        if config.get_password().is_none()
            && let Some(password) = std::env::var("PGPASSWORD").ok().or_else(|| passfile(&config))
        {
            config.password(password);
        }
        config
    }
}

/// Notices within half a minute that the network or the server's machine is gone.
fn keep_alive(config: &mut Config) {
    let seconds = Duration::from_secs;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(seconds(10));
    }
    config.keepalives_idle(seconds(10)).keepalives_interval(seconds(5)).keepalives_retries(3);
    config.tcp_user_timeout(seconds(25));
}

fn scheme(text: &str) -> Option<(&str, &str)> {
    ["postgres://", "postgresql://"]
        .into_iter()
        .find_map(|scheme| Some((scheme, text.strip_prefix(scheme)?)))
}

fn without_password(authority: &str) -> String {
    match authority.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    }
}

/// Percent-decoding; what is no escape stays.
fn decoded(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The password of the first line in the password file that fits, as libpq reads it.
fn passfile(config: &Config) -> Option<String> {
    let file = match std::env::var_os("PGPASSFILE") {
        Some(file) => PathBuf::from(file),
        None => Path::new(&std::env::var_os("HOME")?).join(".pgpass"),
    };
    if others_may_read(&file) {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let host = match config.get_hosts().first()? {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(_) => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().map(ToOwned::to_owned).or_else(|| std::env::var("USER").ok())?;
    let wanted = [&host, &port, config.get_dbname()?, &user];
    password_in(&text, wanted.map(|part| part as &str))
}

#[cfg(unix)]
fn others_may_read(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|data| data.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_may_read(_file: &Path) -> bool {
    false
}

/// `HOST:PORT:DATABASE:USER:PASSWORD` a line; `*` fits everything, a backslash escapes a colon or a backslash.
fn password_in(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (mut fields, mut field, mut escaped) = (vec![], String::new(), false);
        for letter in line.chars() {
            match letter {
                '\\' if !escaped => escaped = true,
                // The fifth is the rest.
                ':' if !escaped && fields.len() < 4 => fields.push(std::mem::take(&mut field)),
                letter => {
                    field.push(letter);
                    escaped = false;
                }
            }
        }
        let fits = fields.len() == 4
            && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then_some(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_their_password() {
        let url = "postgres://ann:s3cret@db.example:5433/lab/my%20study?sslmode=verify-full&sslrootcert=/ca.pem&password=s3cret";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.study(), "my study");
        assert_eq!(
            (address.tls(), address.root_certificates()),
            (Tls::Verified, Some(Path::new("/ca.pem")))
        );
        let config = address.config();
        assert_eq!(config.get_password(), Some(&b"s3cret"[..]));
        assert_eq!((config.get_dbname(), config.get_ports()), (Some("lab"), &[5433][..]));
        for shown in [address.to_string(), format!("{address:?}"), format!("{config:?}")] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        assert!(address.to_string().starts_with("postgres://ann@db.example:5433/lab/my study?"));
        let plain = Address::parse("postgresql://host/lab").unwrap();
        assert_eq!((plain.study(), plain.tls()), ("default", Tls::Unverified));
        let socket = Address::parse("postgres:///lab?host=/run/db").unwrap();
        assert_eq!(socket.to_string(), "postgres:///lab/default?host=/run/db");
    }

    #[test]
    fn urls_that_name_no_database_are_refused_without_their_password() {
        for (url, part) in [
            ("postgres://ann:s3cret@host", "no database"),
            ("postgres://ann:s3cret@host/lab/a/b", "no `/`"),
            ("postgres://ann:s3cret@host/lab?sslmode=maybe", "verify-full"),
            ("postgres://ann:s3cret@host:port/lab", "port"),
            ("postgres://ann:s3cret@host/lab?colour=red", "colour"),
            ("postgres:///lab", "no host"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("s3cret"), "{url}: {error}");
        }
        // Names of files are none, shorter ones than a scheme and those with other letters where it would end included.
        for name in ["runs/tune-1.study", "a.study", "", "größenversuch.study"] {
            assert!(!Address::is_url(name), "{name}");
        }
    }

    #[test]
    fn passwords_are_found_in_the_password_file() {
        let text = "# comment\nother:5432:lab:ann:no\n*:*:lab:ann:a\\:b\\\\c:d\n*:*:*:*:last\n";
        let found = |wanted| password_in(text, wanted);
        assert_eq!(found(["host", "5432", "lab", "ann"]).as_deref(), Some("a:b\\c:d"));
        assert_eq!(found(["host", "5432", "lab", "bob"]).as_deref(), Some("last"));
        assert_eq!(password_in("host:5432:lab\n", ["host", "5432", "lab", "ann"]), None);
    }
}
