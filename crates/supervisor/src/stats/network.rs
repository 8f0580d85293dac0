//! Counters of a container's network interfaces, from its init's /proc/PID/net/dev.

use std::path::Path;

use crate::types::NetworkUsage;

/// Empty if the process is gone or shares our own network namespace. The loopback is left out.
pub(super) fn read(pid: u32) -> Vec<NetworkUsage> {
    let namespace = |of: &str| std::fs::read_link(Path::new("/proc").join(of).join("ns/net"));
    let (Ok(theirs), Ok(ours)) = (namespace(&pid.to_string()), namespace("self")) else {
        return Vec::new();
    };
    if theirs == ours {
        return Vec::new();
    }
    std::fs::read_to_string(format!("/proc/{pid}/net/dev"))
        .map(|text| parse(&text))
        .unwrap_or_default()
}

/// Two lines of headings, then `name: ` and 16 numbers: 8 received, 8 sent.
fn parse(text: &str) -> Vec<NetworkUsage> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let n: Vec<u64> = numbers.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
        let [
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
        ] = n[..]
        else {
            return None;
        };
        let interface = name.trim().to_owned();
        (interface != "lo").then_some(NetworkUsage {
            interface,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().skip(2).filter_map(line).collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_table() {
        let text = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 9007199254740993      11    2    3    0     0          0         0     24       5    6    7    0     0       0          0
 broken: 1 2 x
";
        let table = parse(text);
        assert_eq!(table.len(), 1);
        let eth = &table[0];
        assert_eq!((eth.interface.as_str(), eth.rx_bytes), ("eth0", 9_007_199_254_740_993));
        assert_eq!((eth.rx_packets, eth.rx_errors, eth.rx_dropped), (11, 2, 3));
        assert_eq!(
            (eth.tx_bytes, eth.tx_packets, eth.tx_errors, eth.tx_dropped),
            (24, 5, 6, 7)
        );
    }

    #[test]
    fn our_own_namespace_is_not_told() {
        assert_eq!(read(std::process::id()), []);
        assert_eq!(read(u32::MAX), []);
    }
}
