//! HTTP/1.1 as Firecracker speaks it: requests to bytes, and bytes to responses. No I/O.
//!
//! Whatever reaches a request line is checked here, once; whatever comes back is bounded here.

use super::DeviceId;
use crate::json;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// The methods that Firecracker's API has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks.
    Get,
    /// Makes or replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

/// A path that can stand in a request line: from `/`, of visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath(Cow<'static, str>);

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, empty when there is none.
    pub body: Vec<u8>,
}

/// Why a method or a path cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not one of the four methods.
    #[error("unknown method {0:?}: use GET, PUT, PATCH or DELETE")]
    Method(String),
    /// The path does not begin with `/`.
    #[error("the path {0:?} does not begin with '/'")]
    Relative(String),
    /// The path has a space, a control character, or something outside ASCII.
    #[error("the path {path:?} contains {character:?}, which is not allowed in a request line")]
    Character {
        /// The path.
        path: String,
        /// What it has.
        character: char,
    },
    /// The path is too long.
    #[error("the path has {0} bytes, and at most {LONGEST_PATH} are allowed")]
    TooLong(usize),
}

/// Why bytes are no response.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// Not HTTP.
    #[error("the answer is not HTTP")]
    NotHttp(#[source] httparse::Error),
    /// The head does not end.
    #[error("the head of the response is longer than {LONGEST_HEAD} bytes")]
    HeadTooLong,
    /// The body is announced longer than anything Firecracker says.
    #[error("the response announces a body of {0} bytes, more than the {LONGEST_BODY} that are read")]
    BodyTooLong(u64),
    /// The length of the body is missing, doubled or no number.
    #[error("the length of the response's body is missing or invalid")]
    Length,
    /// The body comes in an encoding that Firecracker does not use.
    #[error("the response has a Transfer-Encoding, which Firecracker does not use")]
    TransferEncoding,
    /// The connection ended first.
    #[error("the connection was closed {0}")]
    Closed(ClosedAt),
}

/// How far a response had come when its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedAt {
    /// Nothing of it had come.
    Nothing,
    /// In the head.
    Head,
    /// In the body.
    Body,
}

/// The longest path that is sent.
pub const LONGEST_PATH: usize = 1024;
/// The longest head that is read.
pub const LONGEST_HEAD: usize = 16 * 1024;
/// The longest body that is read.
pub const LONGEST_BODY: u64 = 16 * 1024 * 1024;
const MOST_HEADERS: usize = 64;

impl Method {
    /// The method called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self, RequestError> {
        match name {
            "GET" => Ok(Self::Get),
            "PUT" => Ok(Self::Put),
            "PATCH" => Ok(Self::Patch),
            "DELETE" => Ok(Self::Delete),
            other => Err(RequestError::Method(other.chars().take(32).collect())),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        })
    }
}

impl RequestPath {
    /// Checks `path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(path: &str) -> Result<Self, RequestError> {
        if path.len() > LONGEST_PATH {
            return Err(RequestError::TooLong(path.len()));
        }
        if !path.starts_with('/') {
            return Err(RequestError::Relative(path.to_owned()));
        }
        match path.chars().find(|character| !character.is_ascii_graphic()) {
            None => Ok(Self(Cow::Owned(path.to_owned()))),
            Some(character) => Err(RequestError::Character { path: path.to_owned(), character }),
        }
    }

    /// A path that the library itself has written.
    pub(crate) const fn fixed(path: &'static str) -> Self {
        Self(Cow::Borrowed(path))
    }

    /// The path of a device. An id is spelled with characters that a request line can carry.
    pub(super) fn device(section: &'static str, id: &DeviceId<'_>) -> Self {
        Self(Cow::Owned(format!("/{section}/{}", id.as_str())))
    }

    /// The path as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first part of it, by which Firecracker tells its endpoints apart; it skips slashes before it.
    pub(crate) fn section(&self) -> &str {
        self.0.trim_start_matches('/').split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for ClosedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "before the response",
            Self::Head => "in the middle of the response's head",
            Self::Body => "in the middle of the response's body",
        })
    }
}

impl Response {
    /// Whether Firecracker has as many connections as it takes, and has not looked at the request.
    pub(super) fn is_of_a_full_server(&self) -> bool {
        self.status == 503 && self.fault().contains("Too many open connections")
    }

    /// Whether the request was carried out.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What Firecracker says of a refusal: its `fault_message`, or the raw body where there is none.
    pub fn fault(&self) -> String {
        let said = json::parse(&self.body).ok();
        let fault = said.as_ref().and_then(|said| said.get("fault_message").or_else(|| said.get("error")));
        match fault.and_then(Value::as_str) {
            Some(fault) => fault.to_owned(),
            None => String::from_utf8_lossy(&self.body).chars().take(LONGEST_RAW_FAULT).collect(),
        }
    }
}

const LONGEST_RAW_FAULT: usize = 512;

/// The bytes of one request.
pub fn encode(method: Method, path: &RequestPath, body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!("{method} {} HTTP/1.1\r\nHost: localhost\r\n", path.0).into_bytes();
    if let Some(body) = body {
        let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(body);
    } else {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A response in the making, fed with whatever has come in.
#[derive(Debug, Default)]
pub struct ResponseReader {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    ends_at: usize,
    body: usize,
}

/// A whole response, and whether bytes came after it that nobody asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Complete {
    /// The response.
    pub response: Response,
    /// Whether the connection is out of step and must not be used again.
    pub out_of_step: bool,
}

impl ResponseReader {
    /// Adds `bytes`; gives the response once it is whole.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a response.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Complete>, ResponseError> {
        self.bytes.extend_from_slice(bytes);
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            if is_interim(head.status) {
                self.bytes.drain(..head.ends_at);
                self.head = None;
                continue;
            }
            let end = head.ends_at + head.body;
            if self.bytes.len() < end {
                return Ok(None);
            }
            let out_of_step = self.bytes.len() > end;
            self.bytes.truncate(end);
            let body = self.bytes.split_off(head.ends_at);
            return Ok(Some(Complete { response: Response { status: head.status, body }, out_of_step }));
        }
    }

    /// What it means that the connection has ended now.
    pub fn closed(&self) -> ResponseError {
        ResponseError::Closed(match (self.head, self.bytes.is_empty()) {
            (Some(_), _) => ClosedAt::Body,
            (None, false) => ClosedAt::Head,
            (None, true) => ClosedAt::Nothing,
        })
    }

    fn head(&mut self) -> Result<Option<Head>, ResponseError> {
        if self.head.is_none() {
            self.head = parse_head(&self.bytes)?;
        }
        Ok(self.head)
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, ResponseError> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let ends_at = match response.parse(bytes).map_err(ResponseError::NotHttp)? {
        httparse::Status::Complete(length) if length <= LONGEST_HEAD => length,
        httparse::Status::Partial if bytes.len() < LONGEST_HEAD => return Ok(None),
        _ => return Err(ResponseError::HeadTooLong),
    };
    let status = response.code.unwrap_or_default();
    let body = if has_no_body(status) { 0 } else { body_length(response.headers)? };
    Ok(Some(Head { status, ends_at, body }))
}

fn is_interim(status: u16) -> bool {
    (100..200).contains(&status)
}

fn has_no_body(status: u16) -> bool {
    is_interim(status) || status == 204 || status == 304
}

fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, ResponseError> {
    let named = |name: &'static str| headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
    if named("Transfer-Encoding").next().is_some() {
        return Err(ResponseError::TransferEncoding);
    }
    let mut lengths = named("Content-Length").map(|header| header.value);
    let (Some(length), None) = (lengths.next(), lengths.next()) else { return Err(ResponseError::Length) };
    let digits = std::str::from_utf8(length).ok().map(str::trim).filter(|text| is_number(text));
    let length = digits.ok_or(ResponseError::Length)?.parse::<u64>().unwrap_or(u64::MAX);
    match usize::try_from(length) {
        Ok(fits) if length <= LONGEST_BODY => Ok(fits),
        _ => Err(ResponseError::BodyTooLong(length)),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
