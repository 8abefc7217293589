//! Who is at the other end of a loopback connection (Linux).
//!
//! On a machine that many share, any of them can connect to a port on 127.0.0.1. State and PKCE already make a
//! stranger's answer worthless; this makes it unheard. Where the kernel's table does not tell, nothing is refused.

use std::net::SocketAddr;

/// What the kernel knows about a connection's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Ourselves, or root.
    Trusted,
    /// Another user of this machine.
    Stranger(u32),
    /// Not in the table: another network namespace, another system than Linux.
    Unknown,
}

/// Looks up the owner of the socket that is bound to `peer` and connected to `own`.
pub(crate) fn of_connection(own: SocketAddr, peer: SocketAddr) -> Peer {
    let table = if peer.is_ipv4() {
        "/proc/net/tcp"
    } else {
        "/proc/net/tcp6"
    };
    let uid = std::fs::read_to_string(table)
        .ok()
        .and_then(|table| uid_of(&table, peer, own));
    match uid {
        None => Peer::Unknown,
        Some(uid) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Peer::Trusted,
        Some(uid) => Peer::Stranger(uid),
    }
}

/// Finds a socket in the kernel's table (proc(5), `/proc/net/tcp`) and says whose it is.
fn uid_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (its_local, its_remote) = (fields.nth(1)?, fields.next()?);
        if parse_address(its_local)? != local || parse_address(its_remote)? != remote {
            return None;
        }
        // Then: state, queues, timer, retransmits, uid.
        fields.nth(4)?.parse().ok()
    })
}

/// `0100007F:1F90`: the address in groups of 32 bits of the machine's own byte order, the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for group in address.as_bytes().chunks(8) {
        let group = u32::from_str_radix(std::str::from_utf8(group).ok()?, 16).ok()?;
        bytes.extend_from_slice(&group.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some((<[u8; 4]>::try_from(bytes).ok()?, port).into()),
        16 => Some((<[u8; 16]>::try_from(bytes).ok()?, port).into()),
        _ => None,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_owner_of_a_connection_is_found_in_the_kernels_table() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to look up.
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(of_connection(accepted.local_addr().unwrap(), peer), Peer::Trusted);
            drop(client);
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_strangers_connection_is_told_by_its_uid() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
            1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1 0 20 4 30 10 -1\n";
        let (own, peer) = (
            "127.0.0.1:8080".parse().unwrap(),
            "127.0.0.1:50000".parse().unwrap(),
        );
        assert_eq!(uid_of(table, peer, own), Some(1001));
        assert_eq!(uid_of(table, own, peer), Some(0));
        assert_eq!(uid_of(table, peer, peer), None);
        assert_eq!(
            parse_address("00000000000000000000000001000000:0050"),
            "[::1]:80".parse().ok()
        );
    }
}
