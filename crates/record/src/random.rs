//! Random ids, from the kernel.

use berth_core::Incarnation;

use crate::Error;

/// Random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    berth_sys::random::fill(&mut bytes).map_err(Error::io("getrandom", "the kernel's pool"))?;
    Ok(bytes)
}

/// A new container's life.
pub fn incarnation() -> Result<Incarnation, Error> {
    Ok(Incarnation::from_bytes(bytes()?))
}

/// `2 * N` hexadecimal digits.
pub fn hex<const N: usize>() -> Result<String, Error> {
    Ok(bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
