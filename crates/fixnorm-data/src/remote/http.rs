//! Requests of the crate `object_store` by the client that downloads have too: no second one, and no other TLS.
//!
//! It blocks the thread that waits for the answer, which waits for nothing else (`store.rs`).

use std::future::{Future, ready};
use std::pin::Pin;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use ureq::http::{StatusCode, header};
use ureq::{Agent, Error};

/// More than any error message or list has.
const MOST_BYTES: u64 = 64 << 20;

/// Connections that are kept open.
#[derive(Clone, Debug)]
pub(super) struct Connector(Agent);

impl Connector {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .max_idle_connections(4 * super::CONNECTIONS)
            .max_idle_connections_per_host(4 * super::CONNECTIONS)
            .user_agent(concat!("fixnorm/", env!("CARGO_PKG_VERSION")));
        Self(config.build().into())
    }

    fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let ranged = parts.headers.contains_key(header::RANGE);
        let response = match body.as_bytes().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => self.0.run(ureq::http::Request::from_parts(parts, &bytes[..])),
            None => self.0.run(ureq::http::Request::from_parts(parts, ())),
        };
        let (parts, mut body) = response.map_err(failed)?.into_parts();
        // A server that sends all of a file instead of a part is refused by its status, before the file fills memory.
        if ranged && parts.status == StatusCode::OK {
            return Ok(HttpResponse::from_parts(parts, vec![].into()));
        }
        let bytes = body.with_config().limit(MOST_BYTES).read_to_vec().map_err(failed)?;
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

/// What failed, and whether trying again may help.
fn failed(error: Error) -> HttpError {
    let kind = match &error {
        Error::ConnectionFailed | Error::HostNotFound => HttpErrorKind::Connect,
        Error::Timeout(_) => HttpErrorKind::Timeout,
        Error::Io(_) | Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Connector {
    fn call<'own, 'answer>(
        &'own self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'answer>>
    where
        'own: 'answer,
        Self: 'answer,
    {
        Box::pin(ready(self.answer(request)))
    }
}
