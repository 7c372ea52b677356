//! HTTP/1.1 as Firecracker's server reads and writes it, its quirks included: it works on windows of 1,024
//! bytes, keeps its place after an error, and so can answer one bad request several times.

use std::str::{Utf8Error, from_utf8};

/// No line of a request may be longer.
const WINDOW: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Put,
    Patch,
    Delete,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    uri: String,
    /// Absent when the length is 0.
    pub(crate) body: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Response {
    status: u16,
    body: Option<String>,
    pub(crate) is_deprecated: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("Invalid header. Reason: {0}")]
    Header(#[from] HeaderError),
    #[error("Invalid HTTP Method: Unsupported HTTP method.")]
    Method,
    #[error("Invalid HTTP Version: Unsupported HTTP version.")]
    Version,
    #[error("Invalid request.")]
    Request,
    #[error("Invalid URI: {0}")]
    Uri(&'static str),
    #[error("Request payload with size {1} is larger than the limit of {0} allowed by server.")]
    TooLarge(usize, usize),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("Header is incorrectly formatted. Key: {0}")]
    Format(String),
    #[error("Header contains invalid characters. Key: {0}")]
    Utf8(Utf8Error),
    #[error("Invalid value. Key:{0}; Value:{1}")]
    Value(String, String),
    #[error("Invalid content length. Header: {0}")]
    TooLong(String),
}

/// One connection's place in what its client sends.
#[derive(Debug)]
pub(crate) struct Parser {
    window: Vec<u8>,
    stage: Stage,
    payload_limit: usize,
}

#[derive(Debug)]
enum Stage {
    RequestLine,
    Headers(Head),
    Body(Head, Vec<u8>),
}

#[derive(Clone, Debug)]
struct Head {
    method: Method,
    uri: String,
    length: usize,
    expects_continue: bool,
}

/// What one read brought.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) requests: Vec<Request>,
    /// To be answered at once: the client asked whether to go on.
    pub(crate) continues: usize,
    /// With an error, the requests before it are not answered.
    pub(crate) error: Option<ParseError>,
}

impl Method {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let methods = [Self::Get, Self::Put, Self::Patch, Self::Delete];
        methods.into_iter().find(|method| method.name().as_bytes() == bytes).ok_or(ParseError::Method)
    }
}

impl Request {
    /// Without scheme and host; empty for what is no path.
    pub(crate) fn absolute_path(&self) -> &str {
        let path = match self.uri.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("", |start| &rest[start..]),
            None => &self.uri,
        };
        if path.starts_with('/') { path } else { "" }
    }
}

impl Response {
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, body: None, is_deprecated: false }
    }

    pub(crate) fn with_body(status: u16, body: String) -> Self {
        Self { status, body: Some(body), is_deprecated: false }
    }

    /// The answer to what was no request.
    pub(crate) fn to_parse_error(error: &ParseError) -> Self {
        let body = format!("{{ \"error\": \"{error}\nAll previous unanswered requests will be dropped.\" }}");
        Self::with_body(400, body)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text =
            format!("HTTP/1.1 {} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n", self.status);
        if self.is_deprecated {
            text.push_str("Deprecation: true\r\n");
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(self.body.as_deref().unwrap_or_default());
        text.into_bytes()
    }
}

impl Parser {
    pub(crate) fn new(payload_limit: usize) -> Self {
        Self { window: Vec::with_capacity(WINDOW), stage: Stage::RequestLine, payload_limit }
    }

    /// How much may be fed at once.
    pub(crate) fn room(&self) -> usize {
        WINDOW - self.window.len()
    }

    /// Takes what was read, at most [`Parser::room`] bytes, and parses as far as that goes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Parsed {
        let kept = self.window.len();
        self.window.extend_from_slice(bytes);
        let mut parsed = Parsed::default();
        let mut start = 0;
        loop {
            match self.step(&mut start, &mut parsed) {
                Ok(true) => {}
                Ok(false) => return parsed,
                Err(error) => {
                    // What was read with the error is lost, what had been kept before it is not.
                    self.window.truncate(kept);
                    parsed.requests.clear();
                    parsed.error = Some(error);
                    return parsed;
                }
            }
        }
    }

    /// False when more has to be read first.
    fn step(&mut self, start: &mut usize, parsed: &mut Parsed) -> Result<bool, ParseError> {
        if let Stage::Body(head, body) = &mut self.stage {
            let missing = head.length - body.len();
            let available = &self.window[*start..];
            let taken = missing.min(available.len());
            body.extend_from_slice(&available[..taken]);
            *start += taken;
            if taken < missing {
                self.window.clear();
                return Ok(false);
            }
            let body = std::mem::take(body);
            parsed.requests.push(Request {
                method: head.method,
                uri: std::mem::take(&mut head.uri),
                body: Some(body),
            });
            self.stage = Stage::RequestLine;
            return Ok(true);
        }
        let Some(length) = self.window[*start..].windows(2).position(|pair| pair == b"\r\n") else {
            if *start == 0 && self.window.len() == WINDOW {
                return Err(self.line_too_long());
            }
            self.window.drain(..*start);
            return Ok(false);
        };
        let line = &self.window[*start..*start + length];
        match &mut self.stage {
            Stage::RequestLine => {
                self.stage = Stage::Headers(parse_request_line(line)?);
            }
            Stage::Headers(head) if line.is_empty() => {
                if head.length > self.payload_limit {
                    return Err(ParseError::TooLarge(self.payload_limit, head.length));
                }
                let head = head.clone();
                if head.length == 0 {
                    parsed.requests.push(Request { method: head.method, uri: head.uri, body: None });
                    self.stage = Stage::RequestLine;
                } else {
                    parsed.continues += usize::from(head.expects_continue);
                    self.stage = Stage::Body(head, Vec::new());
                }
            }
            Stage::Headers(head) => parse_header(line, head)?,
            Stage::Body(..) => {}
        }
        *start += length + 2;
        Ok(true)
    }

    fn line_too_long(&self) -> ParseError {
        match self.stage {
            Stage::Headers(_) => {
                HeaderError::TooLong(String::from_utf8_lossy(&self.window).into_owned()).into()
            }
            _ => ParseError::Request,
        }
    }
}

fn parse_request_line(line: &[u8]) -> Result<Head, ParseError> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(uri), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ParseError::Request);
    };
    let method = Method::parse(method)?;
    if uri.is_empty() {
        return Err(ParseError::Uri("Empty URI not allowed."));
    }
    let uri = from_utf8(uri).map_err(|_| ParseError::Uri("Cannot parse URI as UTF-8."))?;
    if !matches!(version, b"HTTP/1.0" | b"HTTP/1.1") {
        return Err(ParseError::Version);
    }
    Ok(Head { method, uri: uri.to_owned(), length: 0, expects_continue: false })
}

/// Only what a server cannot do without is understood; a value that it does not know is no error elsewhere.
fn parse_header(line: &[u8], head: &mut Head) -> Result<(), ParseError> {
    let line = from_utf8(line).map_err(HeaderError::Utf8)?;
    let Some((name, value)) = line.split_once(':') else {
        return Err(HeaderError::Format(line.to_owned()).into());
    };
    match name.trim().to_ascii_lowercase().as_str() {
        "content-length" => {
            let length: u32 =
                value.trim().parse().map_err(|_| HeaderError::Value(name.to_owned(), value.to_owned()))?;
            head.length = length as usize;
        }
        "expect" => head.expects_continue |= value.trim() == "100-continue",
        "accept-encoding" => check_encodings(value.trim())?,
        _ => {}
    }
    Ok(())
}

/// Answers are never encoded, so a client must not rule that out.
fn check_encodings(value: &str) -> Result<(), ParseError> {
    if value.is_empty() {
        return Err(ParseError::Request);
    }
    let rules_out_identity = |encoding: &&str| match encoding.trim() {
        "identity;q=0" => true,
        "*;q=0" => !value.contains("identity"),
        _ => false,
    };
    match value.split(',').find(rules_out_identity) {
        Some(encoding) => Err(HeaderError::Value("Accept-Encoding".to_owned(), encoding.to_owned()).into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Parsed {
        Parser::new(51_200).feed(bytes)
    }

    #[test]
    fn pipelined_requests_are_all_found() {
        let parsed = parse(
            b"GET / HTTP/1.1\r\n\r\nPUT /a HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}GET /b HTTP/1.1\r\n\r\n",
        );
        let paths: Vec<&str> = parsed.requests.iter().map(Request::absolute_path).collect();
        assert_eq!(paths, ["/", "/a", "/b"]);
        assert_eq!(parsed.requests[1].body.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn a_request_may_come_byte_by_byte() {
        let mut parser = Parser::new(51_200);
        let bytes = b"PUT /actions HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let found: usize = bytes.iter().map(|byte| parser.feed(&[*byte]).requests.len()).sum();
        assert_eq!(found, 1);
    }

    #[test]
    fn an_error_drops_the_requests_before_it() {
        let parsed = parse(b"GET / HTTP/1.1\r\n\r\nBAD\r\n\r\n");
        assert_eq!(parsed.error, Some(ParseError::Request));
        assert!(parsed.requests.is_empty());
    }

    #[test]
    fn after_a_bad_header_the_next_request_is_taken_for_headers() {
        let mut parser = Parser::new(51_200);
        assert!(parser.feed(b"GET / HTTP/1.1\r\nfoo\r\n\r\n").error.is_some());
        let error = parser.feed(b"GET / HTTP/1.1\r\n\r\n").error;
        assert_eq!(error, Some(HeaderError::Format("GET / HTTP/1.1".to_owned()).into()));
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_by_its_length() {
        let error = Parser::new(10).feed(b"PUT / HTTP/1.1\r\nContent-Length: 11\r\n\r\n").error;
        assert_eq!(error, Some(ParseError::TooLarge(10, 11)));
    }
}
