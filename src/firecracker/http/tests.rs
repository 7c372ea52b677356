//! The parser against what Firecracker says, and against what nobody should.

use super::*;
use proptest::prelude::*;

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";

fn whole(bytes: &[u8]) -> Result<Option<Complete>, ResponseError> {
    ResponseReader::default().feed(bytes)
}

fn with_body(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn a_status_line_without_a_reason_is_read() {
    let complete = whole(NO_CONTENT).unwrap().unwrap();
    assert_eq!(complete.response, Response { status: 204, body: vec![] });
    assert!(!complete.out_of_step);
}

#[test]
fn a_refusal_gives_firecrackers_own_words() {
    let complete = whole(&with_body(400, r#"{"fault_message":"No such drive."}"#)).unwrap().unwrap();
    assert_eq!(complete.response.fault(), "No such drive.");
}

#[test]
fn a_body_that_is_not_json_is_given_raw() {
    let response = Response { status: 400, body: b"{ \"error\": \"line\nbreak\" }".to_vec() };
    assert!(response.fault().contains("line\nbreak"));
}

#[test]
fn bytes_after_the_response_put_the_connection_out_of_step() {
    let mut bytes = with_body(400, "{}");
    bytes.extend_from_slice(&with_body(400, "{}"));
    assert!(whole(&bytes).unwrap().unwrap().out_of_step);
}

#[test]
fn an_interim_response_is_passed_over() {
    let bytes = [b"HTTP/1.1 100 Continue\r\n\r\n", NO_CONTENT].concat();
    assert_eq!(whole(&bytes).unwrap().unwrap().response.status, 204);
}

#[test]
fn garbage_is_not_http() {
    assert!(matches!(whole(b"\x00\x01\x02 garbage\r\n\r\n"), Err(ResponseError::NotHttp(_))));
}

#[test]
fn a_head_without_an_end_is_refused_before_it_fills_the_memory() {
    let mut reader = ResponseReader::default();
    reader.feed(b"HTTP/1.1 200 OK\r\n").unwrap();
    let endless =
        (0..1000).find_map(|_| reader.feed(format!("X: {}\r\n", "y".repeat(1000)).as_bytes()).err());
    assert!(matches!(endless, Some(ResponseError::HeadTooLong | ResponseError::NotHttp(_))), "{endless:?}");
}

#[test]
fn an_absurd_length_is_refused_before_anything_is_read() {
    for length in ["99999999999", "18446744073709551616"] {
        let bytes = format!("HTTP/1.1 200 \r\nContent-Length: {length}\r\n\r\n");
        assert!(matches!(whole(bytes.as_bytes()), Err(ResponseError::BodyTooLong(_))));
    }
}

#[test]
fn a_length_that_makes_no_sense_is_refused() {
    for lengths in
        ["", "Content-Length: -1\r\n", "Content-Length: +1\r\n", "Content-Length: 1\r\nContent-Length: 2\r\n"]
    {
        let bytes = format!("HTTP/1.1 200 \r\n{lengths}\r\n");
        assert!(matches!(whole(bytes.as_bytes()), Err(ResponseError::Length)), "{lengths}");
    }
    let chunked = b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(matches!(whole(chunked), Err(ResponseError::TransferEncoding)));
}

#[test]
fn a_close_says_how_far_the_response_had_come() {
    let bytes = with_body(200, r#"{"a":1}"#);
    for (cut, at) in [(0, ClosedAt::Nothing), (9, ClosedAt::Head), (bytes.len() - 1, ClosedAt::Body)] {
        let mut reader = ResponseReader::default();
        assert!(reader.feed(&bytes[..cut]).unwrap().is_none());
        assert!(matches!(reader.closed(), ResponseError::Closed(closed) if closed == at));
    }
}

#[test]
fn nothing_that_breaks_a_request_line_gets_into_one() {
    for path in ["/a b", "/a\r\nGET /", "/a\u{7f}", "/ä", "/\0", "a", "", &format!("/{}", "a".repeat(2000))]
    {
        assert!(RequestPath::parse(path).is_err(), "{path:?}");
    }
    assert!(RequestPath::parse("/drives/root_fs").is_ok());
    assert!(Method::parse("get").is_err() && Method::parse("PUT /x HTTP/1.1\r\n").is_err());
}

proptest! {
    #[test]
    fn a_response_reads_the_same_however_it_is_cut(
        status in 200_u16..600, body in "[ -~]{0,200}", cuts in proptest::collection::vec(1_usize..40, 1..40),
    ) {
        prop_assume!(status != 204 && status != 304);
        let bytes = with_body(status, &body);
        let (mut reader, mut rest, mut cuts) = (ResponseReader::default(), &bytes[..], cuts.into_iter().cycle());
        let complete = loop {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            rest = later;
            if let Some(complete) = reader.feed(now).unwrap() { break complete }
        };
        prop_assert_eq!(complete.response, Response { status, body: body.into_bytes() });
        prop_assert!(rest.is_empty() && !complete.out_of_step);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let mut reader = ResponseReader::default();
        for chunk in chunks {
            if reader.feed(&chunk).is_err() { break }
        }
        let _ = reader.closed();
    }

    #[test]
    fn what_is_encoded_is_one_request_with_its_body(path in "/[!-~]{0,50}", body in proptest::option::of("[ -~]{0,80}")) {
        let path = RequestPath::parse(&path).unwrap();
        let bytes = encode(Method::Put, &path, body.as_deref().map(str::as_bytes));
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut headers);
        let head = request.parse(&bytes).unwrap().unwrap();
        prop_assert_eq!(request.path, Some(path.as_str()));
        let body = body.unwrap_or_default();
        prop_assert_eq!(&bytes[head..], body.as_bytes());
    }
}
