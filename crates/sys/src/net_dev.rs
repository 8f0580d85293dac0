//! Counters of a network namespace's interfaces, from /proc/PID/net/dev.

use std::io;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Lines that make no sense are left out.
#[must_use]
pub fn parse(text: &str) -> Vec<Interface> {
    // Two lines of headings.
    text.lines().skip(2).filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Interface> {
    // An alias has a colon in its name; numbers have none.
    let (name, rest) = line.rsplit_once(':')?;
    let numbers = rest
        .split_ascii_whitespace()
        .map(|text| text.parse().ok())
        .collect::<Option<Vec<u64>>>()?;
    let &[
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = numbers.as_slice()
    else {
        return None;
    };
    Some(Interface {
        name: name.trim().to_owned(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

/// Interfaces of the namespace that this process is in.
pub fn read(pid: u32) -> io::Result<Vec<Interface>> {
    Ok(parse(&std::fs::read_to_string(format!("/proc/{pid}/net/dev"))?))
}

/// The namespace that a process is in, as a number that two processes in the same one share.
pub fn namespace(pid: u32) -> io::Result<u64> {
    Ok(rustix::fs::stat(format!("/proc/{pid}/ns/net"))?.st_ino)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_recorded_text() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 1004780   10014    0    0    0     0          0         0  1004780   10014    0    0    0     0       0          0\n  \
            eth0: 9 8 7 6 5 4 3 2 19 18 17 16 15 14 13 12\n bad: 1 2\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].name.as_str(), found[0].rx_bytes, found[0].tx_packets),
            ("lo", 1_004_780, 10_014)
        );
        let numbers = (
            found[1].rx_errors,
            found[1].rx_dropped,
            found[1].tx_bytes,
            found[1].tx_errors,
            found[1].tx_dropped,
        );
        assert_eq!(numbers, (7, 6, 19, 17, 16));
        assert!(
            read(std::process::id())
                .unwrap()
                .iter()
                .any(|interface| interface.name == "lo")
        );
    }
}
