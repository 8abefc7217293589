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
    /// It sent something and left before anybody could ask whose it is. No browser does that: it waits for its page.
    Gone,
    /// Not to be known: another system than Linux, or one behind it.
    Unknown,
}

/// Looks up the owner of the socket that is bound to `peer` and connected to `own`.
pub(crate) fn of_connection(own: SocketAddr, peer: SocketAddr) -> Peer {
    let table = if peer.is_ipv4() {
        "/proc/net/tcp"
    } else {
        "/proc/net/tcp6"
    };
    match std::fs::read_to_string(table) {
        Ok(table) => judge(&table, own, peer, rustix::process::geteuid().as_raw()),
        Err(_) => Peer::Unknown,
    }
}

fn judge(table: &str, own: SocketAddr, peer: SocketAddr, our_uid: u32) -> Peer {
    match find(table, peer, own) {
        // A socket that its process has closed has no inode any more, and is shown as if it were root's.
        Some(Entry { inode: 0, .. }) => Peer::Gone,
        Some(Entry { uid, .. }) if uid == 0 || uid == our_uid => Peer::Trusted,
        Some(Entry { uid, .. }) => Peer::Stranger(uid),
        // The other end is not on this system (WSL passes connections of Windows on like this) as long as ours is open;
        // else it was reset.
        None => match find(table, own, peer) {
            Some(Entry { is_open: true, .. }) => Peer::Unknown,
            _ => Peer::Gone,
        },
    }
}

/// `TCP_ESTABLISHED`, as the table writes it.
const ESTABLISHED: &str = "01";

/// A socket, as far as it concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    is_open: bool,
    uid: u32,
    inode: u64,
}

/// Finds a socket in the kernel's table (proc(5), `/proc/net/tcp`).
fn find(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<Entry> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (its_local, its_remote) = (fields.nth(1)?, fields.next()?);
        if parse_address(its_local)? != local || parse_address(its_remote)? != remote {
            return None;
        }
        // Then: state, queues, timer, retransmits, uid, timeout, inode.
        Some(Entry {
            is_open: fields.next()? == ESTABLISHED,
            uid: fields.nth(3)?.parse().ok()?,
            inode: fields.nth(1)?.parse().ok()?,
        })
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

    #[test]
    fn who_sends_and_leaves_is_not_taken_for_root() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        std::io::Write::write_all(&mut client, b"GET").unwrap();
        drop(client);
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut accepted, &mut seen).unwrap();
        assert_eq!(seen, b"GET");
        assert_eq!(of_connection(accepted.local_addr().unwrap(), peer), Peer::Gone);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_strangers_connection_is_told_by_its_uid() {
        let lines = |uid: u32, inode: u32| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 7 1 0 100 0 0 10 0\n   \
                1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 0 20 4 30 10 -1\n"
            )
        };
        let (own, peer) = (
            "127.0.0.1:8080".parse().unwrap(),
            "127.0.0.1:50000".parse().unwrap(),
        );
        for (uid, inode, verdict) in [
            (1000, 9, Peer::Trusted),
            (0, 9, Peer::Trusted),
            (1001, 9, Peer::Stranger(1001)),
            (0, 0, Peer::Gone),
            (1000, 0, Peer::Gone),
        ] {
            assert_eq!(
                judge(&lines(uid, inode), own, peer, 1000),
                verdict,
                "{uid} {inode}"
            );
        }
        let only_ours: String = lines(0, 0)
            .lines()
            .take(2)
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(judge(&only_ours, own, peer, 1000), Peer::Unknown);
        let reset = only_ours.replace(" 01 ", " 08 ");
        assert_eq!(judge(&reset, own, peer, 1000), Peer::Gone);
        assert_eq!(judge("head\n", own, peer, 1000), Peer::Gone);
        assert_eq!(
            parse_address("00000000000000000000000001000000:0050"),
            "[::1]:80".parse().ok()
        );
    }
}
