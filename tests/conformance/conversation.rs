//! The conversations as they are written down: a line is one thing said to a VMM, or one thing to be seen of
//! it. How they are held is the business of `vmm.rs`.

use std::fmt::Write as _;

/// What is held with one fresh process.
pub(crate) struct Conversation {
    pub(crate) name: String,
    /// Where its header stands, counted from 1.
    pub(crate) line_number: usize,
    pub(crate) lines: Vec<(usize, Line)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// `args …`: added to `--api-sock {dir}/api`; `only-args …`: instead of it.
    Arguments {
        only: bool,
        words: String,
    },
    /// `jailer …`: the jailer, with these arguments alone; `jailed …`: the jailer in its usual way, with these arguments
    /// besides, of which those after `--` are the VMM's.
    Jailer {
        usual: bool,
        words: String,
    },
    /// `network-namespace`: makes one, which `{netns}` is.
    NetworkNamespace,
    /// `in-pid-namespace`: what is started is pid 1 of a namespace of its own.
    InPidNamespace,
    /// `needs tun`: what the real VMM needs on the host for this; without it the conversation is not held
    /// with it.
    Needs(String),
    /// `sized PATH BYTES`: makes a sparse file.
    Sized(String, u64),
    /// `text PATH CONTENTS`: makes a file.
    Text(String, String),
    /// `flip PATH`: changes the last byte of a file.
    Flip(String),
    /// `removes PATH`.
    Remove(String),
    /// `folder PATH`, `copies FROM TO`, `links PATH TARGET` (a symbolic one), `hard-links PATH FILE`: each makes one.
    Folder(String),
    /// `owns PATH UID`
    Own(String, u32),
    Copy(String, String),
    SymbolicLink(String, String),
    HardLink(String, String),
    /// `serves PATH MEMORY`: listens there, and serves the page faults of one VMM from that file.
    Serve(String, String),
    /// `starts` ends the process, if it still runs, and starts another.
    Restart,
    /// `> METHOD PATH BODY`
    Request(String),
    /// `< STATUS [deprecated] BODY`
    Answer(String),
    /// `>> BYTES`, with `\r`, `\n`, `\xHH` and `\{COUNT*TEXT}`.
    RawRequest(String),
    /// `<< BYTES`, or `<< closed`.
    RawAnswer(String),
    /// `connects`: the next requests go over a new connection; the old ones stay open.
    Connect,
    /// `sends SIGNAL`
    Signal(String),
    /// `ends CODE` or `ends signal NUMBER`
    End(String),
    /// `sees PATH TEXT`, with `*` and the escapes of raw lines: waits for a file to contain it.
    /// `{dir}/stdout` and `{dir}/stderr` are the VMM's.
    See(String, String),
    /// `lacks PATH TEXT`: there is no such text in the file.
    Lack(String, String),
    /// `long PATH BYTES`
    Long(String, u64),
    /// `fills PATH LEAST MOST`: so many of its bytes are no holes.
    Fill(String, u64, u64),
    /// `follows`: from now on the process is the one that the jail's pid file names, and not the one that was started.
    Follow,
    /// `is PATH MODE UID:GID [MAJOR,MINOR]`
    Is(String),
    /// `lists PATH NAMES`
    List(String),
    /// `status FIELD VALUE`, `limit NAME SOFT HARD`, `mounts POINTS`: as `/proc` has them of the process.
    Status(String),
    Limit(String),
    Mounts,
    /// `network {netns}`: the process is in that namespace; `cgroup CONTROLLER PATH`: it is there.
    Network,
    Cgroup(String),
    /// `inherits nothing`, or what it has of the environment and the descriptor that its parent gave it.
    Inherits,
    /// `told TEXT`, with `*`: what the VMM has told the server of its page faults.
    Told(String),
    /// `there PATH`, `gone PATH`
    There(String),
    Gone(String),
}

impl Conversation {
    /// Reads a file; a line that is no line of a conversation is an error that names it.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let mut all: Vec<Self> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            if let Some(name) = line.strip_prefix("== ") {
                all.push(Self { name: name.to_owned(), line_number, lines: Vec::new() });
                continue;
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parsed = Line::parse(line).ok_or_else(|| format!("line {line_number} is none: {line}"))?;
            let conversation =
                all.last_mut().ok_or_else(|| format!("line {line_number} has no header: {line}"))?;
            conversation.lines.push((line_number, parsed));
        }
        Ok(all)
    }
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.to_owned();
        let split = || rest.split_once(' ').map(|(path, rest)| (path.to_owned(), rest.to_owned()));
        Some(match word {
            "args" => Self::Arguments { only: false, words: rest },
            "only-args" => Self::Arguments { only: true, words: rest },
            "jailer" => Self::Jailer { usual: false, words: rest },
            "jailed" => Self::Jailer { usual: true, words: rest },
            "network-namespace" => Self::NetworkNamespace,
            "in-pid-namespace" => Self::InPidNamespace,
            "owns" => split().and_then(|(path, uid)| Some(Self::Own(path, uid.parse().ok()?)))?,
            "folder" => Self::Folder(rest),
            "copies" => split().map(|(from, to)| Self::Copy(from, to))?,
            "links" => split().map(|(path, target)| Self::SymbolicLink(path, target))?,
            "hard-links" => split().map(|(path, file)| Self::HardLink(path, file))?,
            "follows" => Self::Follow,
            "is" => Self::Is(first(&rest)),
            "lists" => Self::List(first(&rest)),
            "status" => Self::Status(first(&rest)),
            "limit" => Self::Limit(first(&rest)),
            "network" => Self::Network,
            "cgroup" => Self::Cgroup(first(&rest)),
            "mounts" => Self::Mounts,
            "inherits" => Self::Inherits,
            "needs" => Self::Needs(rest),
            "sized" => split().and_then(|(path, size)| Some(Self::Sized(path, size.parse().ok()?)))?,
            "text" => split().map(|(path, contents)| Self::Text(path, contents))?,
            "flip" => Self::Flip(rest),
            "removes" => Self::Remove(rest),
            "serves" => split().map(|(path, memory)| Self::Serve(path, memory))?,
            "starts" => Self::Restart,
            ">" => Self::Request(rest),
            "<" => Self::Answer(rest),
            ">>" => Self::RawRequest(rest),
            "<<" => Self::RawAnswer(rest),
            "connects" => Self::Connect,
            "sends" => Self::Signal(rest),
            "ends" => Self::End(rest),
            "sees" => split().map(|(path, text)| Self::See(path, text))?,
            "lacks" => split().map(|(path, text)| Self::Lack(path, text))?,
            "long" => split().and_then(|(path, bytes)| Some(Self::Long(path, bytes.parse().ok()?)))?,
            "fills" => {
                let (path, range) = split()?;
                let (least, most) = range.split_once(' ')?;
                Self::Fill(path, least.parse().ok()?, most.parse().ok()?)
            }
            "told" => Self::Told(rest),
            "there" => Self::There(rest),
            "gone" => Self::Gone(rest),
            _ => return None,
        })
    }
}

fn first(words: &str) -> String {
    words.split(' ').next().unwrap_or_default().to_owned()
}

/// Whether a text is as expected, where `*` stands for anything, and an error of the operating system is its number.
pub(crate) fn matches(expected: &str, text: &str) -> bool {
    let (expected, text) = (&without_error_texts(expected), &without_error_texts(text));
    let Some((first, rest)) = expected.split_once('*') else { return expected == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let (last, middle) = parts.split_last().expect("a split has at least one part");
    for part in middle {
        let Some(start) = left.find(part) else { return false };
        left = &left[start + part.len()..];
    }
    left.len() >= last.len() && left.ends_with(last)
}

/// Without what stands between ": " and " (os error 98)": each C library words it in its own way, and Firecracker is
/// built with more than one.
fn without_error_texts(text: &str) -> String {
    let mut pieces = text.split(" (os error ").collect::<Vec<_>>();
    let last = pieces.pop().unwrap_or_default();
    let shorten =
        |piece: &str| piece[..piece.rfind(": ").map_or(piece.len(), |at| at + 1)].to_owned() + " (os error ";
    pieces.into_iter().map(shorten).chain([last.to_owned()]).collect()
}

/// The bytes that a raw line stands for.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = after.get(1..).unwrap_or_default();
        match after.as_bytes().first() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
            Some(b'{') => {
                let (repeated, after) = rest.split_once('}').expect("a closing brace");
                let (count, what) = repeated.split_once('*').expect("COUNT*TEXT");
                let count: usize = count.parse().expect("a count");
                bytes.extend(unescape(what).repeat(count));
                rest = after;
            }
            _ => bytes.push(b'\\'),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The line for these bytes; long runs of one byte are counted.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, next| one == next) {
        let one = match run[0] {
            b'\r' => "\\r".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\\' => "\\\\".to_owned(),
            byte if byte.is_ascii_graphic() || byte == b' ' => char::from(byte).to_string(),
            byte => format!("\\x{byte:02x}"),
        };
        if run.len() > 16 && one.len() == 1 {
            write!(text, "\\{{{}*{one}}}", run.len()).expect("a string takes everything");
        } else {
            text.push_str(&one.repeat(run.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("a*c*", "abbcd"));
        assert!(matches("*", ""));
        assert!(!matches("a*c", "abcd"));
        assert!(!matches("ab*b", "ab"));
    }

    #[test]
    fn raw_lines_are_written_as_they_are_read() {
        let bytes = [b"GET \\ \r\n\xff".as_slice(), &[b'x'; 40]].concat();
        assert_eq!(escape(&bytes), "GET \\\\ \\r\\n\\xff\\{40*x}");
        assert_eq!(unescape(&escape(&bytes)), bytes);
    }

    #[test]
    fn an_error_of_the_operating_system_is_its_number_whatever_the_c_library_says() {
        let (glibc, musl) =
            ("bind: Address already in use (os error 98). Stop", "bind: Address in use (os error 98). Stop");
        assert!(matches(glibc, musl) && matches("bind: *", musl));
        assert!(
            !matches(glibc, &musl.replace("98", "99"))
                && !matches(glibc, "Address in use (os error 98). Stop")
        );
    }
}
