//! Network interfaces by rtnetlink(7): found, renamed, moved to another network namespace, given addresses.
//!
//! Invariant: a socket belongs to the network namespace that its maker was in, whatever the caller joins afterwards.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
const PERMANENT: u32 = 0x80;
const UP: u32 = 1;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    bytes: Vec<u8>,
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Route {
    socket: OwnedFd,
    number: u32,
}

impl Route {
    /// About the caller's network namespace.
    ///
    /// # Errors
    /// As socket(2).
    pub fn new() -> io::Result<Route> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Route { socket, number: 0 })
    }

    /// The number of an interface.
    ///
    /// # Errors
    /// ENODEV if there is none of that name.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let body = [&link(0, 0, 0)[..], &attribute(LINK_NAME, &terminated(name))].concat();
        let answers = self.ask(GET_LINK, REQUEST, &body)?;
        let found = answers.iter().find(|(kind, _)| *kind == NEW_LINK);
        found.and_then(|(_, body)| u32_at(body, 4)).ok_or_else(damaged)
    }

    /// # Errors
    /// As the kernel says.
    pub fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let body = link(index, if up { UP } else { 0 }, UP);
        self.ask(NEW_LINK, REQUEST | ACK, &body).map(drop)
    }

    /// Moves an interface to another network namespace and gives it this name there, in one step. It loses its addresses.
    ///
    /// # Errors
    /// EEXIST if the name is taken there; else as the kernel says.
    pub fn move_to(&mut self, index: u32, name: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let namespace = namespace.as_raw_fd().to_ne_bytes();
        let body = [
            &link(index, 0, 0)[..],
            &attribute(LINK_NAME, &terminated(name)),
            &attribute(LINK_NAMESPACE, &namespace),
        ]
        .concat();
        self.ask(NEW_LINK, REQUEST | ACK, &body).map(drop)
    }

    /// The addresses of an interface that somebody gave it for good and that count everywhere.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<Address>> {
        let answers = self.ask(GET_ADDRESS, REQUEST | DUMP, &[0; 8])?;
        let of_this = |(kind, body): &(u16, Vec<u8>)| {
            let right = *kind == NEW_ADDRESS && u32_at(body, 4) == Some(index);
            right.then(|| address(body)).flatten()
        };
        Ok(answers.iter().filter_map(of_this).collect())
    }

    /// # Errors
    /// EEXIST if it has it; else as the kernel says.
    pub fn add_address(&mut self, index: u32, address: &Address) -> io::Result<()> {
        let head = [address.family, address.prefix, 0, 0];
        let body = [
            &head[..],
            &index.to_ne_bytes(),
            &attribute(ADDRESS_LOCAL, &address.bytes),
            &attribute(ADDRESS, &address.bytes),
        ]
        .concat();
        self.ask(NEW_ADDRESS, REQUEST | ACK | CREATE | EXCLUSIVE, &body)
            .map(drop)
    }

    /// One request and all its answers, as kind and body.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.number += 1;
        let length = (HEADER + body.len()) as u32;
        let head = [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &flags.to_ne_bytes(),
            &self.number.to_ne_bytes(),
            &[0; 4],
        ];
        rustix::io::write(&self.socket, &[&head.concat()[..], body].concat())?;
        let mut answers = Vec::new();
        loop {
            let mut buffer = vec![0u8; 32 << 10];
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut buffer[..]))?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let (kind, number, message, after) = split(rest).ok_or_else(damaged)?;
                rest = after;
                if number != self.number {
                    continue;
                }
                match kind {
                    ERROR => match u32_at(message, 0).map(u32::cast_signed) {
                        Some(0) => return Ok(answers),
                        Some(code) => return Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                        None => return Err(damaged()),
                    },
                    DONE => return Ok(answers),
                    _ => answers.push((kind, message.to_vec())),
                }
            }
            // One question without an acknowledgement has one answer.
            if flags & (ACK | DUMP) == 0 && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The first message: kind, number, body, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, u32_at(bytes, 8)?, body, after))
}

/// struct ifinfomsg.
fn link(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut all = [0; 16];
    all[4..8].copy_from_slice(&index.to_ne_bytes());
    all[8..12].copy_from_slice(&flags.to_ne_bytes());
    all[12..].copy_from_slice(&change.to_ne_bytes());
    all
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut all = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// From the body of a message about an address; `None` for one that is not for good or not for everywhere.
fn address(body: &[u8]) -> Option<Address> {
    let &[family, prefix, flags, scope, ..] = body else {
        return None;
    };
    let (mut flags, mut local, mut remote) = (u32::from(flags), None, None);
    let mut rest = body.get(8..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        match u16_at(rest, 2)? {
            ADDRESS => remote = Some(value),
            ADDRESS_LOCAL => local = Some(value),
            ADDRESS_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let bytes = local.or(remote)?.to_vec();
    (flags & PERMANENT != 0 && scope == 0).then_some(Address { family, prefix, bytes })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let mut route = Route::new().expect("a socket");
        assert_eq!(route.index("lo").expect("found"), 1);
        let error = route.index("no-such-if").expect_err("not there");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        // Those of lo are for this host alone.
        assert!(route.addresses(1).expect("addresses").is_empty());
    }

    #[test]
    fn a_message_about_an_address_is_read() {
        let head = [2, 24, 0x80, 0, 7, 0, 0, 0];
        let body = |head: [u8; 8]| {
            [
                &head[..],
                &attribute(ADDRESS_LOCAL, &[10, 0, 0, 1]),
                &attribute(9, &[1]),
            ]
            .concat()
        };
        let expected = Address {
            family: 2,
            prefix: 24,
            bytes: vec![10, 0, 0, 1],
        };
        assert_eq!(address(&body(head)), Some(expected));
        assert_eq!(address(&body([2, 24, 0, 0, 7, 0, 0, 0])), None, "for a while only");
        assert_eq!(
            address(&body([2, 24, 0x80, 254, 7, 0, 0, 0])),
            None,
            "of this host only"
        );
        for wrong in [&b""[..], &[2, 24], &[2, 24, 0x80, 0, 7, 0, 0, 0, 3, 0, 2, 0], &[0; 64]] {
            assert_eq!(address(wrong), None);
        }
        assert_eq!(split(&[200, 0, 0, 0, 1]), None);
    }
}
