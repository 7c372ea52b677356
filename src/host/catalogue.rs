//! Catalogues of images: directories in which each image stands beside a manifest that says what it is.
//!
//! The image `debian-12` is what `debian-12.json` says. Images are only read.

use super::disk::Format;
use crate::settings::{self, Section};
use crate::sys::file;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// An image of a catalogue.
#[derive(Debug)]
pub(crate) struct Image {
    /// Where it is.
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) sha256: Option<String>,
    pub(crate) fs_verity: Option<String>,
    /// What the kernel is to be told that boots it.
    pub(crate) boot_args: Option<String>,
}

/// Why there is no such image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// What can be no image's name.
    #[error(
        "{0:?} cannot be the name of an image: use up to 128 letters, digits, \".\", \"_\" and \"-\", beginning with a letter or \
         a digit; to name a file by its path, use \"from\""
    )]
    Name(String),
    /// It is not in the catalogue.
    #[error("the catalogue {} has no image {name:?}{}", catalogue.display(), Known(known))]
    NotFound {
        /// The catalogue.
        catalogue: PathBuf,
        /// The name.
        name: String,
        /// Names that it has.
        known: Vec<String>,
    },
    /// A file of the catalogue cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The manifest is wrong.
    #[error("the manifest {} is not usable", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: settings::Error,
    },
    /// The manifest is that of another image.
    #[error("the manifest {} says that it is of the image {said:?}: give it that name, or mend \"name\"", path.display())]
    OtherName {
        /// The manifest.
        path: PathBuf,
        /// The name in it.
        said: String,
    },
    /// Something else stands where the image is to be.
    #[error("{} is not a regular file: put the image there itself, not a link to it", path.display())]
    NotAFile {
        /// The image.
        path: PathBuf,
    },
    /// The image is not what the manifest says.
    #[error(
        "{} has {found} bytes, and its manifest says {said}: the image was changed, or is not complete; copy it again, or write \
         its manifest anew", path.display()
    )]
    Length {
        /// The image.
        path: PathBuf,
        /// The length in the manifest.
        said: u64,
        /// The length of the file.
        found: u64,
    },
}

/// The names of some images, for an error.
struct Known<'a>(&'a [String]);

impl std::fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str("; it has none"),
            known => write!(f, "; it has {}", known.join(", ")),
        }
    }
}

const MANIFEST: &str = ".json";
/// Longer than any manifest that says what one is to say.
const LONGEST: u64 = 64 << 10;
const LONGEST_NAME: usize = 128;
/// How many names an error tells.
const TOLD: usize = 8;

/// The image `name` of the catalogue in the directory `catalogue`.
///
/// # Errors
/// When there is none, or its file is not what its manifest says.
pub(crate) fn find(catalogue: &Path, name: &str) -> Result<Image, CatalogueError> {
    let path = catalogue.join(checked(name)?.to_owned() + MANIFEST);
    let text = match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && catalogue.is_dir() => {
            let (catalogue, name, known) = (catalogue.to_path_buf(), name.to_owned(), names(catalogue));
            return Err(CatalogueError::NotFound { catalogue, name, known });
        }
        text => text.map_err(|source| CatalogueError::Read { path: path.clone(), source })?,
    };
    let manifest = Section::parse(Some(&text), "manifest").and_then(Manifest::read);
    let manifest = manifest.map_err(|source| CatalogueError::Manifest { path: path.clone(), source })?;
    if manifest.name != name {
        return Err(CatalogueError::OtherName { path, said: manifest.name });
    }
    let path = catalogue.join(checked(&manifest.image)?);
    let found = path.symlink_metadata();
    let found = found.map_err(|source| CatalogueError::Read { path: path.clone(), source })?;
    if !found.is_file() {
        return Err(CatalogueError::NotAFile { path });
    }
    if found.len() != manifest.bytes {
        return Err(CatalogueError::Length { path, said: manifest.bytes, found: found.len() });
    }
    let Manifest { format, sha256, fs_verity, boot_args, .. } = manifest;
    Ok(Image { path, format, sha256, fs_verity, boot_args })
}

/// The words for what an image holds, as `"format"`.
pub(crate) const FORMATS: [(&str, Format); 2] = [("ext4", Format::Ext4), ("raw", Format::Raw)];

/// What a manifest says.
#[derive(Debug)]
struct Manifest {
    name: String,
    image: String,
    bytes: u64,
    format: Format,
    sha256: Option<String>,
    fs_verity: Option<String>,
    boot_args: Option<String>,
}

impl Manifest {
    fn read(mut given: Section) -> Result<Self, settings::Error> {
        let manifest = Self {
            name: given.need("name")?,
            image: given.need("image")?,
            bytes: given.need("bytes")?,
            format: given.choose("format", &FORMATS)?,
            sha256: given.take("sha256")?,
            fs_verity: given.take("fs_verity")?,
            boot_args: given.take("boot_args")?,
        };
        let _for_people = given.take_any("annotations");
        given.finish().map(|()| manifest)
    }
}

/// `name`, if it is one, and leads nowhere else.
fn checked(name: &str) -> Result<&str, CatalogueError> {
    let is_one = name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_one { Ok(name) } else { Err(CatalogueError::Name(name.chars().take(LONGEST_NAME).collect())) }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    file::open_plain(OpenOptions::new().read(true), path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn names(catalogue: &Path) -> Vec<String> {
    let files = file::names_in(catalogue).unwrap_or_default();
    let names = files.iter().filter_map(|file| file.to_str()?.strip_suffix(MANIFEST));
    names.take(TOLD).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_keys_of_a_manifest() {
        let given = r#"{"name":"a","image":"a","bytes":1}"#;
        reference::hold(reference::MANIFEST, || {
            Section::parse(Some(given), "manifest").and_then(Manifest::read)
        });
    }
}
