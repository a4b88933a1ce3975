//! A small HTTP server for the metrics port: its own thread, plain text and JSON, nothing more.
//!
//! What it is: HTTP/1, one request per connection, within bounds on everything that a stranger
//! chooses. What it is not: what the pages say (a [`Site`]), nor a public server: it has neither
//! TLS nor passwords and listens on loopback unless somebody insists. Requests that change
//! anything are taken from this machine only, and never from a browser.
//!
//! Invariants:
//! 1. at most `CONNECTIONS_MAX` connections at a time; one more is closed at once;
//! 2. a connection that neither asks nor takes its answer is closed after `PATIENCE`;
//! 3. dropping a [`Server`] ends its thread.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head, at most.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Lines of a request's head, at most.
const HEADERS_MAX: usize = 64;
/// How long a client may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Threads that work on answers at most.
const WORKERS_MAX: usize = 4;
/// What browsers say with every request that a page makes.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// To read a page.
    Get,
    /// To have something done.
    Post,
}

/// What the pages say. Asked on a thread that may block.
pub trait Site: Send + Sync + 'static {
    /// The answer to a request for `path`, which begins with a slash; `None` when there is no
    /// such page. A page that is not for this kind of request answers [`Answer::wrong_method`].
    fn answer(&self, ask: Ask, path: &str) -> Option<Answer>;
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub kind: &'static str,
    /// The text.
    pub text: String,
}

/// Plain text.
const TEXT: &str = "text/plain; charset=utf-8";
/// The text that Prometheus and others read.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Answer {
    /// A line of plain text.
    #[must_use]
    pub fn text(status: u16, line: &str) -> Answer {
        Answer { status, kind: TEXT, text: format!("{line}\n") }
    }

    /// Metrics.
    #[must_use]
    pub fn metrics(text: String) -> Answer {
        Answer { status: 200, kind: OPEN_METRICS, text }
    }

    /// A value as JSON.
    #[must_use]
    pub fn json(status: u16, value: &impl serde::Serialize) -> Answer {
        match serde_json::to_string_pretty(value) {
            Ok(text) => Answer { status, kind: "application/json", text: format!("{text}\n") },
            Err(error) => Answer::text(500, &format!("cannot write the answer: {error}")),
        }
    }

    /// The page is there, but not for this kind of request.
    #[must_use]
    pub fn wrong_method() -> Answer {
        Answer::text(405, "this page is not for such a request")
    }
}

/// A server that runs on a thread of its own.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `site` on `listener` until the server is dropped.
    ///
    /// # Errors
    /// When the system refuses a thread or a runtime.
    pub fn start(listener: TcpListener, site: Arc<dyn Site>) -> Result<Server> {
        let address = listener.local_addr().context("cannot tell the metrics address")?;
        listener.set_nonblocking(true).context("cannot listen without blocking")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WORKERS_MAX)
            .build()
            .context("cannot start a runtime for the metrics port")?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(accept(listener, site, stopped));
                // Whoever still works on an answer is not waited for.
                runtime.shutdown_background();
            })
            .context("cannot start a thread")?;
        Ok(Server { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the metrics port panicked");
        }
    }
}

async fn accept(listener: TcpListener, site: Arc<dyn Site>, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve the metrics port"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = async { drop(stopped.wait_for(|stop| *stop).await) } => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the metrics port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            converse(stream, from, site).await;
            drop(place);
        });
    }
}

/// One connection, from its request to its answer.
async fn converse(stream: tokio::net::TcpStream, from: SocketAddr, site: Arc<dyn Site>) {
    let working = Arc::new(AtomicBool::new(false));
    let busy = Arc::clone(&working);
    let service = service_fn(move |request: Request<Incoming>| {
        let (site, busy) = (Arc::clone(&site), Arc::clone(&busy));
        async move {
            busy.store(true, Ordering::Release);
            let response = respond(&request, from, site).await;
            busy.store(false, Ordering::Release);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    loop {
        // An answer that takes long is worth waiting for; a client that is slow is not.
        match tokio::time::timeout(PATIENCE, connection.as_mut()).await {
            Ok(Err(error)) => return tracing::debug!(%error, %from, "a metrics connection failed"),
            Ok(Ok(())) => return,
            Err(_) if working.load(Ordering::Acquire) => {}
            Err(_) => return,
        }
    }
}

async fn respond(
    request: &Request<Incoming>,
    from: SocketAddr,
    site: Arc<dyn Site>,
) -> Response<Full<Bytes>> {
    let ask = match *request.method() {
        Method::GET | Method::HEAD => Ask::Get,
        Method::POST => Ask::Post,
        _ => return built(Answer::wrong_method()),
    };
    let headers = request.headers();
    if ask == Ask::Post && !from.ip().is_loopback() {
        let text = "only programs on the replica's own machine may ask for this";
        return built(Answer::text(403, text));
    }
    if ask == Ask::Post && (headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE)) {
        return built(Answer::text(403, "pages in a browser may not ask for this"));
    }
    let path = request.uri().path().to_owned();
    let answered = tokio::task::spawn_blocking(move || site.answer(ask, &path)).await;
    built(match answered {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::text(404, "there is no such page"),
        Err(_) => Answer::text(500, "answering has failed"),
    })
}

fn built(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.text)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(answer.kind));
    if answer.status == 405 {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD, POST"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    struct Fixed;

    impl Site for Fixed {
        fn answer(&self, ask: Ask, path: &str) -> Option<Answer> {
            match (ask, path) {
                (Ask::Get, "/livez") => Some(Answer::text(200, "ok")),
                (Ask::Post, "/checkpoint") => Some(Answer::text(200, "done")),
                (_, "/livez" | "/checkpoint") => Some(Answer::wrong_method()),
                _ => None,
            }
        }
    }

    fn server() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Server::start(listener, Arc::new(Fixed)).expect("it starts")
    }

    /// Sends bytes and returns what comes back until the connection ends.
    fn exchange(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).expect("it listens");
        // The server may have seen enough and closed already.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn ask(server: &Server, line: &str, header: &str) -> String {
        exchange(server, &format!("{line} HTTP/1.1\r\nHost: x\r\n{header}\r\n"))
    }

    #[test]
    fn pages_are_answered_and_others_refused() {
        let server = server();
        let answer = ask(&server, "GET /livez", "");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        assert!(ask(&server, "GET /livez?verbose", "").ends_with("ok\n"));
        assert!(ask(&server, "HEAD /livez", "").starts_with("HTTP/1.1 200 "));
        assert!(ask(&server, "GET /none", "").starts_with("HTTP/1.1 404 "));
        assert!(ask(&server, "GET /checkpoint", "").starts_with("HTTP/1.1 405 "));
        assert!(ask(&server, "DELETE /livez", "").starts_with("HTTP/1.1 405 "));
        assert!(ask(&server, "POST /checkpoint", "").ends_with("done\n"));
    }

    #[test]
    fn pages_in_a_browser_change_nothing() {
        let server = server();
        for header in ["Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
            let answer = ask(&server, "POST /checkpoint", header);
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        }
    }

    #[test]
    fn a_request_that_is_none_costs_its_connection_only() {
        let server = server();
        exchange(&server, "\u{0}\u{1}\r\n\r\n");
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert!(!exchange(&server, &long).contains("200 OK"));
        let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
        assert!(!ask(&server, "GET /livez", &many).contains("200 OK"));
        assert!(ask(&server, "GET /livez", "").ends_with("ok\n"));
    }

    #[test]
    fn more_connections_than_there_are_places_are_closed() {
        let server = server();
        let idle: Vec<TcpStream> = (0..CONNECTIONS_MAX)
            .map(|_| TcpStream::connect(server.address()).expect("it listens"))
            .collect();
        // The next one is accepted behind them and finds no place.
        assert_eq!(ask(&server, "GET /livez", ""), "");
        drop(idle);
        let served = || ask(&server, "GET /livez", "").ends_with("ok\n");
        assert!((0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            served()
        }));
    }
}
