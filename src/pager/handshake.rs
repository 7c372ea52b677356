//! What a VMM says when it connects: which regions its guest's memory has, and the userfaultfd of them.
//!
//! The VMM may have been taken over by its guest, so nothing of this is believed before it is checked.

use crate::json;
use crate::sorted::sorted_by;
use crate::sys::deadline::Deadline;
use crate::sys::poll::{self, Interest};
use crate::sys::socket::UnixConnection;
use serde::Deserialize;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use thiserror::Error;

/// The guest's memory in the VMM's address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Sorted by address, without overlaps.
    pub(super) regions: Vec<Region>,
    /// The size of a page, in bytes.
    pub(super) page: u64,
}

/// Memory without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// In the VMM.
    pub(super) addresses: Range<u64>,
    /// Where it begins in the memory files.
    pub(super) offset: u64,
}

/// What somebody who connected wants.
pub(super) enum Said {
    /// A VMM that wants memory.
    Memory(Layout, OwnedFd),
    /// A line, without its end.
    Line(String),
    /// Nothing; it is gone.
    Nothing,
}

/// What is wrong with what a VMM says.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Senseless {
    /// It is no JSON, or other JSON.
    #[error("it is not a list of regions")]
    Json(#[source] serde_json::Error),
    /// It cannot be true.
    #[error("{0}")]
    Untrue(&'static str),
}

/// A region as Firecracker writes it; what else it may say is of no interest.
#[derive(Deserialize)]
struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    page_size: Option<u64>,
    /// The older name of the same: it is in bytes.
    page_size_kib: Option<u64>,
}

/// More than any VMM has to say.
const LONGEST: usize = 64 << 10;
/// How long somebody may take to say it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hears what is said on `connection`, for memory of `bytes` bytes. It may come in parts, and the userfaultfd with any
/// of them.
pub(super) fn hear(connection: &UnixConnection, bytes: u64) -> Result<Said, Senseless> {
    let deadline = Deadline::after(PATIENCE);
    let (mut text, mut descriptor) = (Vec::new(), None);
    let mut buffer = vec![0; 4096];
    loop {
        match connection.receive_with_descriptor(&mut buffer) {
            Ok((length, came)) => {
                descriptor = descriptor.or(came);
                text.extend(buffer.iter().take(length));
                match understand(&text, &mut descriptor, bytes)? {
                    Some(said) => return Ok(said),
                    None if length == 0 && text.is_empty() => return Ok(Said::Nothing),
                    None if length == 0 => {
                        return Err(Senseless::Untrue("it ends in the middle, or names no memory"));
                    }
                    None => {}
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let come = poll::wait([Interest::Readable(connection.as_fd())], deadline);
                if !matches!(come, Ok([true])) {
                    return Err(Senseless::Untrue("it takes too long, or names no memory"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(Said::Nothing),
        }
    }
}

fn understand(text: &[u8], descriptor: &mut Option<OwnedFd>, bytes: u64) -> Result<Option<Said>, Senseless> {
    if text.len() > LONGEST {
        return Err(Senseless::Untrue("it is too long"));
    }
    if text.first().is_some_and(u8::is_ascii_lowercase) {
        let Some((line, b"\n")) = text.split_at_checked(text.len() - 1) else { return Ok(None) };
        return Ok(Some(Said::Line(String::from_utf8_lossy(line).into_owned())));
    }
    match parse(text, bytes) {
        Err(Senseless::Json(error)) if error.is_eof() => Ok(None),
        Err(error) => Err(error),
        Ok(layout) => Ok(descriptor.take().map(|descriptor| Said::Memory(layout, descriptor))),
    }
}

/// The regions that `text` names, which must lie in memory of `bytes` bytes.
pub(super) fn parse(text: &[u8], bytes: u64) -> Result<Layout, Senseless> {
    let mappings = json::read::<Vec<Mapping>>(text).map_err(Senseless::Json)?;
    let pages = |mapping: &Mapping| mapping.page_size.or(mapping.page_size_kib);
    let page = mappings.first().and_then(pages).ok_or(Senseless::Untrue("there is no region"))?;
    if !PAGE_SIZES.contains(&page) {
        return Err(Senseless::Untrue("a page has neither 4 KiB nor 2 MiB"));
    }
    if mappings.iter().any(|mapping| pages(mapping) != Some(page)) {
        return Err(Senseless::Untrue("pages have different sizes"));
    }
    let mut regions = Vec::with_capacity(mappings.len());
    for Mapping { base_host_virt_addr: start, size, offset, .. } in mappings {
        let end = start.checked_add(size).ok_or(Senseless::Untrue("a region ends past the last address"))?;
        if size == 0 || [start, size, offset].iter().any(|number| !number.is_multiple_of(page)) {
            return Err(Senseless::Untrue("a region does not consist of whole pages"));
        }
        if offset.checked_add(size).is_none_or(|end| end > bytes) {
            return Err(Senseless::Untrue("a region reaches past the memory that was frozen"));
        }
        regions.push(Region { addresses: start..end, offset });
    }
    let regions = sorted_by(regions, |region| region.offset);
    if !regions.is_sorted_by(|a, b| a.end_offset() <= b.offset) {
        return Err(Senseless::Untrue("two regions are the same memory"));
    }
    let regions = sorted_by(regions, |region| region.addresses.start);
    if !regions.is_sorted_by(|a, b| a.addresses.end <= b.addresses.start) {
        return Err(Senseless::Untrue("two regions have the same addresses"));
    }
    Ok(Layout { regions, page })
}

const PAGE_SIZES: [u64; 2] = [4 << 10, 2 << 20];

impl Region {
    /// How many bytes it has.
    pub(super) fn size(&self) -> u64 {
        self.addresses.end - self.addresses.start
    }

    /// Where it ends in the memory files.
    pub(super) fn end_offset(&self) -> u64 {
        self.offset.saturating_add(self.size())
    }

    /// Its pages, of `page` bytes, by their number in the memory files.
    pub(super) fn pages(&self, page: u64) -> Range<u64> {
        self.offset / page..self.end_offset() / page
    }
}

impl Layout {
    /// The region that `address` lies in.
    pub(super) fn region_at(&self, address: u64) -> Option<&Region> {
        let at = self.regions.partition_point(|region| region.addresses.end <= address);
        self.regions.get(at).filter(|region| region.addresses.start <= address)
    }

    /// How many pages there are.
    pub(super) fn page_count(&self) -> u64 {
        self.regions.iter().map(|region| region.size() / self.page).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn region(start: u64, size: u64, offset: u64) -> String {
        format!(
            r#"{{"base_host_virt_addr":{start},"size":{size},"offset":{offset},"page_size":4096,"page_size_kib":4096}}"#
        )
    }

    #[test]
    fn what_firecracker_says_is_understood_from_the_oldest_to_the_newest() {
        let text = format!("[{},{}]", region(GIB, 8192, 4096), region(4096, 4096, 0));
        let layout = parse(text.as_bytes(), GIB).unwrap();
        assert_eq!((layout.page, layout.page_count(), layout.regions.len()), (4096, 3, 2));
        assert_eq!(layout.region_at(GIB + 8191).unwrap().offset, 4096);
        assert!(layout.region_at(GIB + 8192).is_none() && layout.region_at(4095).is_none());
        let older = r#"[{"base_host_virt_addr":0,"size":2097152,"offset":0,"page_size_kib":2097152}]"#;
        assert_eq!(parse(older.as_bytes(), GIB).unwrap().page, 2 << 20);
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        for (text, told) in [
            ("[]".to_owned(), "no region"),
            ("{}".to_owned(), "list of regions"),
            (format!("[{}]", region(4096, 0, 0)), "whole pages"),
            (format!("[{}]", region(4097, 4096, 0)), "whole pages"),
            (format!("[{}]", region(u64::MAX - 4095, 8192, 0)), "last address"),
            (format!("[{}]", region(0, 8192, GIB - 4096)), "past the memory"),
            (format!("[{}]", region(0, 4096, u64::MAX - 4095)), "past the memory"),
            (format!("[{},{}]", region(0, 8192, 0), region(GIB, 4096, 4096)), "same memory"),
            (format!("[{},{}]", region(0, 8192, 0), region(4096, 4096, 8192)), "same addresses"),
            (
                region(0, 4096, 0).replace("4096}", "8192}").replace("page_size\":4096", "page_size\":8192"),
                "list",
            ),
            (
                format!("[{}]", region(0, 8192, 0).replace("\"page_size\":4096", "\"page_size\":8192")),
                "neither",
            ),
        ] {
            let error = parse(text.as_bytes(), GIB).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}", bytes in any::<u64>()) {
            let _any = parse(text.as_bytes(), bytes);
        }

        #[test]
        fn regions_that_are_taken_lie_apart_and_inside(
            regions in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..4), small in any::<bool>(),
        ) {
            let cut = |number: u64| if small { number % 8 * 4096 } else { number };
            let text = regions.iter().map(|(start, size, offset)| region(cut(*start), cut(*size), cut(*offset)));
            let text = format!("[{}]", text.collect::<Vec<_>>().join(","));
            if let Ok(layout) = parse(text.as_bytes(), 12 * 4096) {
                prop_assert!(layout.regions.iter().all(|region| region.end_offset() <= 12 * 4096));
                prop_assert!(layout.page_count() <= 12);
            }
        }
    }
}
