//! Networks as sshd reads them in `source-address`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a network is none that a certificate can name, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is no address, or the length of its prefix is none.
    #[error("`{0}` is not a network: write it like 192.0.2.0/24 or 2001:db8::/32")]
    Form(String),
    /// Bits are set beyond its prefix.
    #[error("`{written}` has bits set beyond its prefix, for which sshd refuses everybody: write {network}")]
    BitsBeyond {
        /// What was written.
        written: String,
        /// The network without those bits.
        network: String,
    },
    /// An IPv4 address within an IPv6 one (`::ffff:192.0.2.1`), which is never the address that sshd sees.
    #[error(
        "`{0}` is an IPv4 address written as an IPv6 one, which sshd takes for nobody's: write it as 192.0.2.1"
    )]
    Mapped(String),
}

/// Whether text is a network that sshd can hold an address against: an address, or an address and the length of its prefix, with
/// nothing set beyond it (addrmatch.c refuses the certificate otherwise), and an IPv4 address as such (canohost.c,
/// `ipv64_normalise_mapped`).
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn check_network(text: &str) -> Result<(), NetworkError> {
    let wrong = || NetworkError::Form(text.to_owned());
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    if address.to_canonical() != address {
        return Err(NetworkError::Mapped(text.to_owned()));
    }
    let Some(prefix) = prefix else {
        return Ok(());
    };
    let prefix: u32 = prefix
        .parse::<u8>()
        .ok()
        .filter(|_| prefix.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(wrong)?
        .into();
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    if prefix > width {
        return Err(wrong());
    }
    let kept = bits
        .checked_shr(128 - prefix)
        .map_or(0, |kept| kept << (128 - prefix));
    if kept == bits {
        return Ok(());
    }
    let network = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(kept >> 96).unwrap_or(0))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(kept)),
    };
    Err(NetworkError::BitsBeyond {
        written: text.to_owned(),
        network: format!("{network}/{prefix}"),
    })
}

#[cfg(test)]
mod tests {
    use super::check_network;

    #[test]
    fn networks_are_those_that_sshd_reads() {
        for (text, wrong) in [
            ("192.0.2.1", None),
            ("10.0.0.0/8", None),
            ("0.0.0.0/0", None),
            ("192.0.2.1/32", None),
            ("2001:db8::/32", None),
            ("::/0", None),
            ("::1/128", None),
            ("10.0.0.0/33", Some("not a network")),
            ("::/129", Some("not a network")),
            ("10.0.0.0/", Some("not a network")),
            ("10.0.0.0/+8", Some("not a network")),
            ("10.0.0.0/-1", Some("not a network")),
            ("10.0.0", Some("not a network")),
            ("example.com", Some("not a network")),
            ("!10.0.0.0/8", Some("not a network")),
            ("10.1.2.3/8", Some("write 10.0.0.0/8")),
            ("10.0.0.0/0", Some("write 0.0.0.0/0")),
            ("2001:db8::1/32", Some("write 2001:db8::/32")),
            ("::ffff:192.0.2.1", Some("write it as 192.0.2.1")),
            ("::ffff:10.0.0.0/104", Some("IPv4 address")),
            ("::10.0.0.1", None),
        ] {
            match (check_network(text), wrong) {
                (Ok(()), None) => {}
                (Err(found), Some(words)) => assert!(found.to_string().contains(words), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
