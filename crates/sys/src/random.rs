//! Random bytes from the kernel.

use std::io;

/// Fills the whole buffer (getrandom).
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::retry_on_intr(|| {
            rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty())
        })?;
    }
    Ok(())
}
