//! A connection that is made again when it breaks.
//!
//! Each operation is one transaction, tried until it succeeds or fails for a reason that another connection does not
//! change. A commit whose answer is lost may or may not have happened: an operation that is tried again is informed,
//! and finds out.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::super::{Place, StoreError};
use super::address::Address;
use super::tls;

/// For how long a first connection is tried.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(10);

/// For how long a lost connection is tried: restarts of a server and repairs of a network are shorter.
const PATIENCE: Duration = Duration::from_secs(600);

/// A transaction without an answer for longer than this is given up: a connection can die without a sign.
const ANSWER: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Ends what a worker that is gone left open: it would lock others out until the server notices by itself.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '45s';
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET client_min_messages = warning";

/// Why an operation failed.
pub(super) enum Failure {
    Server(tokio_postgres::Error),
    NoAnswer,
    Store(StoreError),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Failure::Server(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Server(error) => match (error.as_db_error(), std::error::Error::source(error))
            {
                (Some(said), _) => f.write_str(said.message()),
                (None, Some(cause)) => write!(f, "{error}: {cause}"),
                (None, None) => error.fmt(f),
            },
            Failure::NoAnswer => write!(f, "no answer for {} s", ANSWER.as_secs()),
            Failure::Store(error) => error.fmt(f),
        }
    }
}

impl Failure {
    /// Whether trying again, on a new connection, can help.
    fn is_passing(&self) -> bool {
        let error = match self {
            Failure::Server(error) => error,
            Failure::NoAnswer => return true,
            Failure::Store(_) => return false,
        };
        let Some(code) = error.code() else {
            // No word of the server: the connection broke, or was not made.
            let tls = std::error::Error::source(error).map(ToString::to_string);
            let is_untrusted = tls.is_some_and(|cause| cause.contains("certificate"));
            return !is_untrusted;
        };
        let passing = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
        ];
        passing.contains(code) || code.code().starts_with("08")
    }

    fn into_error(self, address: &Address, since: Instant) -> StoreError {
        let (place, message) = (Place::Database(address.clone()), self.to_string());
        match &self {
            Failure::Server(error) if error.code() == Some(&SqlState::DISK_FULL) => {
                StoreError::Full(place)
            }
            _ if self.is_passing() => {
                let seconds = since.elapsed().as_secs();
                StoreError::Unreachable { place, seconds, message }
            }
            Failure::Server(error) if error.code().is_none() => StoreError::Open { place, message },
            Failure::Server(_) | Failure::NoAnswer => StoreError::Sql { place, message },
            Failure::Store(_) => match self {
                Failure::Store(error) => error,
                _ => unreachable!("matched above"),
            },
        }
    }
}

/// A connection with its runtime, which runs on the thread that uses it.
pub(super) struct Link {
    runtime: Runtime,
    address: Address,
    client: Option<Client>,
    patience: Duration,
}

impl Link {
    /// Connects.
    pub(super) fn new(address: &Address) -> Result<Self, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Open {
            place: Place::Database(address.clone()),
            message: error.to_string(),
        })?;
        let patience = PATIENCE_AT_FIRST;
        let mut link = Self { runtime, address: address.clone(), client: None, patience };
        link.run(async |_, _| Ok(()))?;
        link.patience = PATIENCE;
        Ok(link)
    }

    pub(super) fn place(&self) -> Place {
        Place::Database(self.address.clone())
    }

    /// Carries an operation out. It is given a connection, and whether an earlier try may have been committed.
    pub(super) fn run<T>(
        &mut self,
        mut operation: impl AsyncFnMut(&mut Client, bool) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let (since, mut pause, mut again) = (Instant::now(), FIRST_PAUSE, false);
        loop {
            let (client, address) = (&mut self.client, &self.address);
            let done = self.runtime.block_on(async {
                let client = match client.take().filter(|client| !client.is_closed()) {
                    Some(open) => client.insert(open),
                    None => client.insert(connect(address).await?),
                };
                let done = timeout(ANSWER, operation(client, again)).await;
                done.unwrap_or(Err(Failure::NoAnswer))
            });
            match done {
                Ok(value) => return Ok(value),
                Err(failure) if failure.is_passing() && since.elapsed() < self.patience => {
                    (self.client, again) = (None, true);
                    std::thread::sleep(jittered(pause));
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
                Err(failure) => return Err(failure.into_error(&self.address, since)),
            }
        }
    }
}

async fn connect(address: &Address) -> Result<Client, Failure> {
    let tls = tls::connector(address)
        .map_err(|message| StoreError::Open { place: Place::Database(address.clone()), message })?;
    let connecting = timeout(ANSWER, address.config().connect(tls)).await;
    let (client, connection) = connecting.map_err(|_| Failure::NoAnswer)??;
    // Its end is seen by the next operation.
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute(SESSION).await?;
    Ok(client)
}

/// Between half of `pause` and all of it, so that workers do not return all at once.
fn jittered(pause: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let share = f64::from((now.subsec_nanos() ^ std::process::id().wrapping_mul(7919)) % 1000);
    pause.mul_f64(0.5 + share / 2000.0)
}
