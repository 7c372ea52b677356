//! The ids of devices. A config file takes any string for one, and the API, in whose paths they stand, letters, digits
//! and `_`: so an id that the API would refuse is spelled otherwise there, and spelled back in all that comes from it.
//!
//! Snapshots hold ids as the API has them, so the spelling never changes.

use std::borrow::Cow;
use std::fmt::Write;

/// The id of a device, as the API has it. No two ids are spelled alike, and it is always one plain file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId<'a>(Cow<'a, str>);

/// What a spelled id begins with. An id that begins so itself is spelled too.
const SPELLED: &str = "mvm_id_";
/// What an id begins with that is too long: its checksum follows.
const TOO_LONG: &str = "mvm_sha_";
/// The longest spelled id: a file name, with room for what is put before and behind it.
const LONGEST: usize = 200;

impl<'a> DeviceId<'a> {
    /// How the API has the device that the user calls `given`.
    pub fn of(given: &'a str) -> Self {
        let is_plain = !given.is_empty()
            && given.len() <= LONGEST
            && given.bytes().all(is_taken)
            && ![SPELLED, TOO_LONG].iter().any(|own| given.starts_with(own));
        if is_plain {
            return Self(given.into());
        }
        let mut spelled = SPELLED.to_owned();
        for byte in given.bytes() {
            if byte.is_ascii_alphanumeric() {
                spelled.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _written = write!(spelled, "_{byte:02x}");
            }
        }
        if spelled.len() <= LONGEST {
            return Self(spelled.into());
        }
        let checksum = hmac_sha256::Hash::hash(given.as_bytes());
        let digits = checksum.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(format!("{TOO_LONG}{digits}").into())
    }

    /// The id as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the user calls the device that the API has as `id`. One that was too long is in `known`, if anywhere.
pub fn given_id<'a>(id: &'a str, known: &[String]) -> Cow<'a, str> {
    if id.starts_with(TOO_LONG) {
        let given = known.iter().find(|given| DeviceId::of(given).as_str() == id);
        return given.map_or(Cow::Borrowed(id), |given| Cow::Owned(given.clone()));
    }
    id.strip_prefix(SPELLED).and_then(read_back).map_or(Cow::Borrowed(id), Cow::Owned)
}

/// The same for every id in a text, such as Firecracker's words or a request's path.
pub fn with_given_ids(text: &str) -> Cow<'_, str> {
    if !text.contains(SPELLED) {
        return text.into();
    }
    let mut changed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SPELLED) {
        let (before, from) = rest.split_at(at);
        let end = from.bytes().position(|byte| !is_taken(byte)).unwrap_or(from.len());
        let (id, behind) = from.split_at(end);
        changed.push_str(before);
        changed.push_str(&given_id(id, &[]));
        rest = behind;
    }
    changed.push_str(rest);
    changed.into()
}

fn read_back(spelled: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(spelled.len());
    let mut rest = spelled.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'_' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    let given = String::from_utf8(bytes).ok()?;
    // What nobody has spelled so is as it is.
    (DeviceId::of(&given).as_str().strip_prefix(SPELLED) == Some(spelled)).then_some(given)
}

/// Whether the API takes this byte in an id.
fn is_taken(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_api_takes_is_as_it_is() {
        for id in ["rootfs", "a_b", "_", "0", "mvm", "mvm_id", &"x".repeat(LONGEST)] {
            assert_eq!(DeviceId::of(id).as_str(), id);
        }
    }

    // Snapshots hold these: they never change.
    #[test]
    fn the_spelling_is_for_good() {
        for (id, spelled) in [
            ("var.img", "mvm_id_var_2eimg"),
            ("", "mvm_id_"),
            ("a_b-c", "mvm_id_a_5fb_2dc"),
            ("ä", "mvm_id__c3_a4"),
            ("mvm_id_x", "mvm_id_mvm_5fid_5fx"),
            ("mvm_sha_", "mvm_id_mvm_5fsha_5f"),
            ("..", "mvm_id__2e_2e"),
        ] {
            assert_eq!(DeviceId::of(id).as_str(), spelled);
            assert_eq!(given_id(spelled, &[]), id);
        }
        let long = "x.".repeat(150);
        let spelled = DeviceId::of(&long).as_str().to_owned();
        assert!(spelled.starts_with("mvm_sha_") && spelled.len() == 72, "{spelled}");
        assert_eq!(given_id(&spelled, std::slice::from_ref(&long)), long);
        assert_eq!(given_id(&spelled, &[]), spelled);
    }

    #[test]
    fn ids_in_a_text_are_spelled_back() {
        let text = "PUT /drives/mvm_id_var_2eimg: no mvm_id_a_2fb, mvm_id_zz_ or rootfs";
        assert_eq!(with_given_ids(text), "PUT /drives/var.img: no a/b, mvm_id_zz_ or rootfs");
    }

    proptest! {
        #[test]
        fn every_id_is_one_file_name_that_the_api_takes_and_is_spelled_back(
            id in "(mvm_id_|mvm_sha_)?(\\PC|[a-z_.]){0,80}"
        ) {
            let spelled = DeviceId::of(&id);
            prop_assert!(spelled.as_str().bytes().all(is_taken) && !spelled.as_str().is_empty());
            prop_assert!(spelled.as_str().len() <= LONGEST);
            let back = given_id(spelled.as_str(), std::slice::from_ref(&id)).into_owned();
            prop_assert_eq!(&back, &id);
        }
    }
}
