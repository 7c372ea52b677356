//! Custom CPU templates: their form is checked to the last bit, and that is all. What a template does to a
//! CPU cannot be simulated.

use serde::{Deserialize, Deserializer, Serialize, de};

/// The body of `PUT /cpu-config`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CustomCpuTemplate {
    #[serde(default)]
    kvm_capabilities: Vec<Capability>,
    #[serde(default)]
    cpuid_modifiers: Vec<CpuidLeafModifier>,
    #[serde(default)]
    msr_modifiers: Vec<RegisterModifier>,
}

#[derive(Debug, Deserialize, Serialize)]
struct CpuidLeafModifier {
    leaf: Number,
    subleaf: Number,
    flags: u32,
    modifiers: Vec<CpuidRegisterModifier>,
}

#[derive(Debug, Deserialize, Serialize)]
struct CpuidRegisterModifier {
    register: Register,
    bitmap: Bitmap<32>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RegisterModifier {
    addr: Number,
    bitmap: Bitmap<64>,
}

/// A KVM capability's number; `!` before it takes it from the list.
#[derive(Debug, Serialize)]
struct Capability(String);

/// Binary or hexadecimal, as its prefix says.
#[derive(Debug, Serialize)]
struct Number(String);

#[derive(Debug, Serialize)]
struct Register(String);

/// So many bits at most, each `0`, `1` or, to be left alone, `x`.
#[derive(Debug, Serialize)]
struct Bitmap<const BITS: usize>(String);

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Err(error) = text.strip_prefix('!').unwrap_or(&text).parse::<u32>() {
            let message = "as a kvm capability - can not convert to numeric";
            return Err(de::Error::custom(format!("Failed to parse string [{text}] {message}: {error}")));
        }
        Ok(Self(text))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = match (text.strip_prefix("0b"), text.strip_prefix("0x")) {
            (Some(digits), _) => u32::from_str_radix(digits, 2),
            (None, Some(digits)) => u32::from_str_radix(digits, 16),
            (None, None) => {
                return Err(de::Error::custom(format!(
                    "No supported number system prefix found in value [{text}]. Make sure to prefix the \
                     number with '0x' for hexadecimal numbers or '0b' for binary numbers."
                )));
            }
        };
        if let Err(error) = number {
            let message = "as a number for CPU template";
            return Err(de::Error::custom(format!("Failed to parse string [{text}] {message} - {error:?}")));
        }
        Ok(Self(text))
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !["eax", "ebx", "ecx", "edx"].contains(&text.as_str()) {
            return Err(de::Error::custom("Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]"));
        }
        Ok(Self(text))
    }
}

impl<'de, const BITS: usize> Deserialize<'de> for Bitmap<BITS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Err(reason) = check_bits(text.strip_prefix("0b").unwrap_or(&text), BITS) {
            return Err(de::Error::custom(format!("Failed to parse string [{text}] as a bitmap - {reason}")));
        }
        Ok(Self(text))
    }
}

/// From the last bit to the first, for that is the order in which Firecracker finds mistakes.
fn check_bits(text: &str, bits: usize) -> Result<(), String> {
    let mut count = 0;
    for byte in text.bytes().rev() {
        if count == bits {
            return Err("string is too long".to_owned());
        }
        match byte {
            b'_' => {}
            b'x' | b'0' | b'1' => count += 1,
            other => return Err(format!("unknown character: {other}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_has_no_more_bits_than_its_register() {
        assert!(check_bits("xx_01", 4).is_ok());
        assert_eq!(check_bits("xx001", 4).unwrap_err(), "string is too long");
        assert_eq!(check_bits("2", 4).unwrap_err(), "unknown character: 50");
    }
}
