//! One request and its response on one connection, with an eye on the VMM, the clock and the interrupt.

use super::api::Request;
use super::http::{self, Complete, ResponseError, ResponseReader};
use crate::process::{self, ExitStatus, Limits, Process, Waited};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::poll::{self, Interest};
use crate::sys::socket::UnixConnection;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Why an exchange has no response. The connection is of no use any more.
#[derive(Debug)]
pub(super) enum NoResponse {
    Exited(ExitStatus),
    TimeIsUp,
    Interrupted,
    Senseless(ResponseError),
    Connection(io::Error),
    Process(process::Error),
}

/// Whether nothing has come in since the last response. Firecracker may send a second refusal for one bad
/// request, and that must not be taken for the answer to the next.
pub(super) fn is_in_step(connection: &UnixConnection) -> bool {
    let nothing = connection.receive(&mut [0_u8; 1]);
    nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Sends one request and reads its response.
pub(super) fn exchange(
    connection: &UnixConnection,
    vmm: &Process,
    request: &Request,
    limits: Limits<'_>,
) -> Result<Complete, NoResponse> {
    let request = http::encode(request.method, &request.path, request.body.as_deref());
    let mut unsent = request.as_slice();
    let mut reader = ResponseReader::default();
    loop {
        // Before the socket, which a VMM gone mad may keep ready for ever.
        if limits.interrupt.is_some_and(EventFd::is_raised) {
            return Err(NoResponse::Interrupted);
        }
        if limits.deadline.has_passed() {
            return Err(NoResponse::TimeIsUp);
        }
        unsent = send_some(connection, unsent)?;
        let link = connection.as_fd();
        // A request that is too long is refused before it has all been sent.
        let link = if unsent.is_empty() { Interest::Readable(link) } else { Interest::Either(link) };
        let interests = [link, Interest::Readable(vmm.pidfd()), limits.interest()];
        let ready = poll::wait(interests, limits.deadline).map_err(NoResponse::Connection)?;
        match ready {
            // What a dying VMM has still said is read before its death is told.
            [true, ..] | [_, true, _] => match receive_some(connection, &mut reader)? {
                Received::Complete(complete) => {
                    let out_of_step = complete.out_of_step || !unsent.is_empty();
                    return Ok(Complete { out_of_step, ..complete });
                }
                Received::Part => {}
                Received::End => return Err(why_closed(vmm, &reader, limits)),
                Received::Nothing if ready[1] => return Err(why_closed(vmm, &reader, limits)),
                Received::Nothing => {}
            },
            [_, _, true] => return Err(NoResponse::Interrupted),
            [false, false, false] => return Err(NoResponse::TimeIsUp),
        }
    }
}

enum Received {
    Complete(Complete),
    Part,
    Nothing,
    End,
}

fn send_some<'b>(connection: &UnixConnection, unsent: &'b [u8]) -> Result<&'b [u8], NoResponse> {
    if unsent.is_empty() {
        return Ok(unsent);
    }
    match connection.send(unsent) {
        Ok(sent) => Ok(unsent.get(sent..).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(unsent),
        // Whoever closed may have answered first: what is there is read before the close is told.
        Err(error) if is_close(&error) => Ok(&[]),
        Err(error) => Err(NoResponse::Connection(error)),
    }
}

fn receive_some(connection: &UnixConnection, reader: &mut ResponseReader) -> Result<Received, NoResponse> {
    // Not on the stack: a host's threads may have small ones.
    let mut buffer = vec![0_u8; 8 * 1024];
    match connection.receive(&mut buffer) {
        Ok(0) => Ok(Received::End),
        Ok(length) => {
            let fed = reader.feed(buffer.get(..length).unwrap_or_default());
            Ok(fed.map_err(NoResponse::Senseless)?.map_or(Received::Part, Received::Complete))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
        Err(error) if is_close(&error) => Ok(Received::End),
        Err(error) => Err(NoResponse::Connection(error)),
    }
}

/// A VMM that dies closes its connections a little before it is gone.
pub(super) const LAST_BREATH: Duration = Duration::from_millis(250);

fn why_closed(vmm: &Process, reader: &ResponseReader, limits: Limits<'_>) -> NoResponse {
    match vmm.wait(limits.no_later_than(Deadline::after(LAST_BREATH))) {
        Ok(Waited::Exited(exit)) => NoResponse::Exited(exit),
        Ok(Waited::Interrupted) => NoResponse::Interrupted,
        Ok(Waited::TimeIsUp) => NoResponse::Senseless(reader.closed()),
        Err(error) => NoResponse::Process(error),
    }
}

fn is_close(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
