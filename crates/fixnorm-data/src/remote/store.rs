//! Where a URL leads, and requests for its file: length and version, and ranges of the same version.
//! Not here: how requests are sent (`http.rs`), what of a file is fetched when (`remote.rs`).

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt,
};
use tokio::runtime::{Builder, Runtime};

use super::http::Connector;
use crate::DataError;

/// Length and version of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) size: u64,
    /// The ETag, or else the time of change; nothing where a server tells neither.
    pub(super) version: String,
}

impl Meta {
    fn of(meta: &ObjectMeta) -> Self {
        let version = match (&meta.e_tag, meta.last_modified.timestamp_nanos_opt()) {
            (Some(tag), _) => tag.clone(),
            (None, Some(0) | None) => String::new(),
            (None, Some(nanoseconds)) => nanoseconds.to_string(),
        };
        Self { size: meta.size, version }
    }
}

/// Stores by scheme and host, so that files of one share its connections.
pub(super) struct Stores {
    settings: Vec<(String, String)>,
    connector: Connector,
    known: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

/// A file in its store.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) url: String,
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl Stores {
    /// Stores with these settings, those of the environment if there are none.
    pub(super) fn new(settings: Option<&[(String, String)]>) -> Self {
        let settings = settings.map_or_else(environment, <[_]>::to_vec);
        Self { settings, connector: Connector::new(), known: Mutex::default() }
    }

    /// Finds the place of a URL.
    ///
    /// # Errors
    /// A URL without host or path, with a user or a query, or settings that are none.
    pub(super) fn locate(&self, url: &str) -> Result<Location, DataError> {
        let wrong = |problem: &str, remedy: &str| remote(url, problem, remedy);
        let form = "expected s3://BUCKET/PATH, https://HOST/PATH or http://HOST/PATH";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("not a URL", form))?;
        let (host, path) = rest.split_once('/').ok_or_else(|| wrong("it has no path", form))?;
        if host.is_empty() || path.is_empty() {
            return Err(wrong("it has no host or no path", form));
        }
        if host.contains('@') {
            return Err(wrong("a user in a URL would be written into plans and logs", form));
        }
        if path.contains(['?', '#']) && scheme != "s3" {
            return Err(wrong("URLs with a query, as signed ones, are not read", form));
        }
        let base = format!("{scheme}://{host}");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match known.get(&base) {
            Some(store) => store.clone(),
            None => {
                if scheme == "s3" && !self.has_credentials() {
                    return Err(wrong("there are no credentials for it", CREDENTIALS));
                }
                let store = self.store(scheme, host, &base).map_err(|e| explained(url, &e))?;
                known.entry(base).or_insert(store).clone()
            }
        };
        let path = if scheme == "s3" { Path::parse(path) } else { Path::from_url_path(path) };
        let path = path.map_err(|error| wrong(&error.to_string(), form))?;
        Ok(Location { url: url.to_owned(), store, path })
    }

    /// Whether there are credentials, or, for Amazon's store, a machine's role that may have some: asking for those of a
    /// machine that has none would take minutes.
    fn has_credentials(&self) -> bool {
        const ANY: [&str; 6] = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SKIP_SIGNATURE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_METADATA_ENDPOINT",
        ];
        const OTHERS: [&str; 3] = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"];
        let is_set = |any: &[&str]| self.settings.iter().any(|(name, _)| any.contains(&&**name));
        let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
        let has_role = || TcpStream::connect_timeout(&metadata, Duration::from_secs(1)).is_ok();
        is_set(&ANY) || (!is_set(&OTHERS) && has_role())
    }

    fn store(
        &self,
        scheme: &str,
        host: &str,
        base: &str,
    ) -> object_store::Result<Arc<dyn ObjectStore>> {
        if scheme != "s3" {
            let builder = HttpBuilder::new().with_url(base);
            return Ok(Arc::new(builder.with_http_connector(self.connector.clone()).build()?));
        }
        let mut builder = AmazonS3Builder::new();
        for (name, value) in &self.settings {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let builder = builder.with_bucket_name(host).with_allow_http(true);
        Ok(Arc::new(builder.with_http_connector(self.connector.clone()).build()?))
    }
}

/// The settings of stores in the environment.
fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let all = std::env::vars_os().filter_map(text);
    all.filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty()).collect()
}

impl Location {
    /// Asks for length and version.
    ///
    /// # Errors
    /// A file that is not there, or that may not be read.
    pub(super) fn meta(&self) -> Result<Meta, DataError> {
        let meta =
            wait(self.store.head(&self.path)).map_err(|error| explained(&self.url, &error))?;
        Ok(Meta::of(&meta))
    }

    /// The bytes of a range of a file that is still `expected`.
    ///
    /// # Errors
    /// A file that is another one by now, or that cannot be had after all retries.
    pub(super) fn get(&self, range: &Range<u64>, expected: &Meta) -> Result<Bytes, DataError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let got = wait(async {
            let range = Some(GetRange::Bounded(range.clone()));
            let options = GetOptions { range, ..GetOptions::default() };
            let result: GetResult = self.store.get_opts(&self.path, options).await?;
            let meta = Meta::of(&result.meta);
            Ok((meta, result.bytes().await?))
        });
        match got {
            Ok((meta, bytes)) if meta == *expected => Ok(bytes),
            Ok(_) => Err(self.changed()),
            // Of a file that became shorter the range is not there.
            Err(error) => match self.meta() {
                Ok(meta) if meta != *expected => Err(self.changed()),
                _ => Err(explained(&self.url, &error)),
            },
        }
    }

    fn changed(&self) -> DataError {
        let remedy = "start again: what was known of it is looked up anew then";
        remote(&self.url, "the file was replaced by another one while it was in use", remedy)
    }

    /// A file in the same directory.
    pub(super) fn beside(&self, name: &str) -> Self {
        let mut parts: Vec<_> = self.path.parts().collect();
        parts.pop();
        let path = parts.into_iter().chain([name.into()]).collect();
        let directory = self.url.rsplit_once('/').map_or("", |(directory, _)| directory);
        Self { url: format!("{directory}/{name}"), store: self.store.clone(), path }
    }

    /// All bytes of a small file; none where there is no such file. Stores that may not be listed say
    /// of a file that is not there that it may not be read.
    ///
    /// # Errors
    /// A store that cannot be reached.
    pub(super) fn whole(&self) -> Result<Option<Vec<u8>>, DataError> {
        match wait(async { self.store.get(&self.path).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(
                Error::NotFound { .. }
                | Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. },
            ) => Ok(None),
            Err(error) => Err(explained(&self.url, &error)),
        }
    }
}

/// The result of a request, on this thread: its client blocks, and only its pauses between attempts are awaited.
fn wait<T>(request: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    thread_local! {
        static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let runtime = match runtime.get() {
            Some(runtime) => runtime,
            None => {
                let made = Builder::new_current_thread().enable_time().build();
                let made = made.map_err(|error| Error::Generic {
                    store: "runtime",
                    source: Box::new(error),
                })?;
                runtime.get_or_init(|| made)
            }
        };
        runtime.block_on(request)
    })
}

fn remote(url: &str, problem: &str, remedy: &str) -> DataError {
    DataError::Remote {
        url: url.to_owned(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// What to do about credentials.
const CREDENTIALS: &str = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and AWS_ENDPOINT_URL for a \
                           store that is not Amazon's; AWS_SKIP_SIGNATURE=true reads public files";

/// The error of a store in words.
fn explained(url: &str, error: &Error) -> DataError {
    match error {
        Error::NotFound { .. } => remote(
            url,
            "there is no such file",
            "check the name; braces stand for all files from the first to the last number",
        ),
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            let remedy = if url.starts_with("s3:") {
                CREDENTIALS
            } else {
                "the server must let anybody read it"
            };
            remote(url, &format!("access denied{}", code(&source.to_string())), remedy)
        }
        Error::NotSupported { .. } => remote(
            url,
            "the server does not send parts of files",
            "use a server that answers range requests, or copy the files to a disk",
        ),
        error => {
            let text = error.to_string();
            let problem =
                format!("{}{}", text.split('<').next().unwrap_or_default().trim(), code(&text));
            remote(
                url,
                &problem,
                "check that the server can be reached, and start again; a run resumes with --resume",
            )
        }
    }
}

/// The code in an answer of S3, for people. All of an answer may have the key in it.
fn code(text: &str) -> String {
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or_else(String::new, |(code, _)| format!(" ({code})"))
}
