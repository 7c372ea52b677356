//! The API socket: ten connections at most, a thread each, and one request at a time over all of them.
//! An answer is written before the next request is looked at, and before the process ends.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{self, Action, SnapshotType};
use crate::fault::{self, RequestFault, RequestFaults};
use crate::http::{Parser, Request, Response};
use crate::log::{self, Speaker};
use crate::machine::{End, Machine};
use crate::metrics;
use crate::start;
use mvm::sys::sync::lock;

const MAX_CONNECTIONS: usize = 10;
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n\
    Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }";

/// What all connections share.
pub(crate) struct Server {
    pub(crate) machine: Arc<Mutex<Machine>>,
    pub(crate) faults: RequestFaults,
    pub(crate) ends: Sender<End>,
    pub(crate) payload_limit: usize,
    pub(crate) connections: AtomicUsize,
}

struct Connection {
    stream: UnixStream,
    parser: Parser,
    /// Read already, but more than the parser takes at once.
    ahead: VecDeque<u8>,
}

/// What comes of a body of 40 bytes when the connection is closed in its middle.
const HALF_A_BODY: &[u8] = b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\
    Content-Type: application/json\r\nContent-Length: 40\r\n\r\n{\"half\":\"of a body";

/// The other side, or a fault, has closed the connection.
struct Closed;

/// Accepts connections until the process ends.
pub(crate) fn serve(server: &Arc<Server>, listener: &UnixListener) {
    log::info(Speaker::Api, "src/firecracker/src/api_server/mod.rs:85", "API server started.");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        if server.connections.load(Ordering::SeqCst) >= MAX_CONNECTIONS {
            let _ = stream.write_all(TOO_MANY_CONNECTIONS);
            continue;
        }
        server.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(server);
        let spawned = thread::Builder::new().name("fc_api".to_owned()).spawn(move || {
            let parser = Parser::new(shared.payload_limit);
            let mut connection = Connection { stream, parser, ahead: VecDeque::new() };
            while connection.serve_next(&shared).is_ok() {}
            // Before the client sees the end of the connection there is room for another.
            shared.connections.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            server.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Connection {
    fn serve_next(&mut self, server: &Server) -> Result<(), Closed> {
        let bytes = self.read()?;
        let parsed = self.parser.feed(&bytes);
        for _ in 0..parsed.continues {
            self.write(&Response::empty(100).to_bytes())?;
        }
        if let Some(error) = parsed.error {
            return self.write(&Response::to_parse_error(&error).to_bytes());
        }
        parsed.requests.iter().try_for_each(|request| self.answer(server, request))
    }

    fn answer(&mut self, server: &Server, request: &Request) -> Result<(), Closed> {
        // Requests of several connections are counted in the order in which they are answered.
        let mut machine = lock(&server.machine);
        let faults = server.faults.next();
        if faults.contains(&RequestFault::Hang) {
            drop(machine);
            return self.wait_for_the_end();
        }
        for fault in &faults {
            match fault {
                RequestFault::Slow(time) => thread::sleep(*time),
                RequestFault::Drop => return Err(Closed),
                // The machine stays locked.
                RequestFault::Stall => return self.wait_for_the_end(),
                RequestFault::Exit(code) => {
                    let _ = server.ends.send(End::Fault(*code));
                    drop(machine);
                    return self.wait_for_the_end();
                }
                RequestFault::Crash => fault::crash(),
                _ => {}
            }
        }
        let status = faults
            .iter()
            .find_map(|fault| if let RequestFault::Status(code) = fault { Some(*code) } else { None });
        let response = match status {
            Some(code) => Response::with_body(code, api::fault("A fault that was asked for.")),
            None => {
                machine.faults.clone_from(&faults);
                respond(&mut machine, request)
            }
        };
        if let Some(end) = start::end_by_too_long_a_file() {
            let _ = server.ends.send(end);
            drop(machine);
            return self.wait_for_the_end();
        }
        // Firecracker closes a connection as soon as it sees that the client has, even by half.
        self.read_ahead()?;
        self.write_with_faults(&response, &faults)
    }

    fn write_with_faults(&mut self, response: &Response, faults: &[RequestFault]) -> Result<(), Closed> {
        let bytes = response.to_bytes();
        let head =
            bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
        for fault in faults {
            match fault {
                RequestFault::Drip(time) => return self.drip(&bytes, *time),
                RequestFault::Truncate => return self.write_and_close(&bytes[..head / 2]),
                RequestFault::Close => return self.write_and_close(HALF_A_BODY),
                RequestFault::Garbage => {
                    return self.write(b"\x00\xff\x16\x03\x01 this is not HTTP \r\n\r\n\x80\x81");
                }
                RequestFault::Oversize => return self.write(&oversized()),
                RequestFault::Flood => loop {
                    self.write(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))?;
                },
                RequestFault::Extra => return self.write(&[&bytes, &b"stray bytes\r\n"[..]].concat()),
                _ => {}
            }
        }
        self.write(&bytes)
    }

    fn drip(&mut self, bytes: &[u8], time: Duration) -> Result<(), Closed> {
        for byte in bytes {
            self.write(&[*byte])?;
            thread::sleep(time);
        }
        Ok(())
    }

    fn write_and_close(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        self.write(bytes)?;
        Err(Closed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        self.stream.write_all(bytes).map_err(|_| Closed)
    }

    /// Holds the connection, without a word, for as long as the client does.
    fn wait_for_the_end(&mut self) -> Result<(), Closed> {
        let mut bytes = [0; 256];
        while self.stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
        Err(Closed)
    }

    fn read(&mut self) -> Result<Vec<u8>, Closed> {
        let room = self.parser.room();
        if !self.ahead.is_empty() {
            self.read_ahead()?;
            let taken = room.min(self.ahead.len());
            return Ok(self.ahead.drain(..taken).collect());
        }
        let mut bytes = vec![0; room];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(Closed),
                Ok(read) => {
                    bytes.truncate(read);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
    }

    /// Takes what has come in meanwhile, without waiting, to learn whether the client is still there.
    fn read_ahead(&mut self) -> Result<(), Closed> {
        self.stream.set_nonblocking(true).map_err(|_| Closed)?;
        let mut bytes = [0; 4096];
        let state = match self.stream.read(&mut bytes) {
            Ok(0) => Err(Closed),
            Ok(read) => {
                self.ahead.extend(&bytes[..read]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(_) => Err(Closed),
        };
        self.stream.set_nonblocking(false).map_err(|_| Closed)?;
        state
    }
}

fn respond(machine: &mut Machine, request: &Request) -> Response {
    let started = Instant::now();
    let parsed = match api::parse(request) {
        Ok(parsed) => parsed,
        Err(error) => return api::refusal(&error),
    };
    let timed = timed(&parsed.action);
    let outcome = machine.handle(parsed.action);
    let mut response = api::response(&outcome);
    if let (Ok(_), Some((field, words))) = (&outcome, timed) {
        let micros = metrics::store_elapsed(field, started.elapsed());
        let line = format!("'{words}' API request took {micros} us.");
        log::info(Speaker::Api, "src/firecracker/src/api_server/mod.rs:176", &line);
    }
    if let Some(message) = parsed.deprecation {
        log::warn(Speaker::Api, "src/firecracker/src/api_server/mod.rs:127", message);
        response.is_deprecated = true;
    }
    response
}

/// The actions whose time Firecracker keeps: the metric's name, and the log's.
fn timed(action: &Action) -> Option<(&'static str, &'static str)> {
    match action {
        Action::CreateSnapshot(request) if request.snapshot_type == SnapshotType::Diff => {
            Some(("diff_create_snapshot", "create diff snapshot"))
        }
        Action::CreateSnapshot(_) => Some(("full_create_snapshot", "create full snapshot")),
        Action::LoadSnapshot(_) => Some(("load_snapshot", "load snapshot")),
        Action::Pause => Some(("pause_vm", "pause vm")),
        Action::Resume => Some(("resume_vm", "resume vm")),
        _ => None,
    }
}

fn oversized() -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 \r\nX-Padding: ".to_vec();
    bytes.resize(256 * 1024, b'x');
    bytes.extend_from_slice(b"\r\nContent-Length: 9223372036854775807\r\n\r\n{}");
    bytes
}
