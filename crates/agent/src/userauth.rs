//! The one thing this agent signs: the request of an SSH login (RFC 4252 section 7; OpenSSH `PROTOCOL` section 3.2).

use epithet_ssh::encoding::{Malformed, Reader};

/// `SSH_MSG_USERAUTH_REQUEST`.
const USERAUTH_REQUEST: u8 = 50;
/// What every SSHSIG begins with (OpenSSH `PROTOCOL.sshsig`): signatures of files, commits and other people's protocols.
const SSHSIG_MAGIC: &[u8] = b"SSHSIG";

/// What a login signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Userauth<'a> {
    /// The session that the login is in.
    pub session_id: &'a [u8],
    /// The user on the host.
    pub user: &'a str,
    /// How the signature is made.
    pub algorithm: &'a str,
    /// The key or certificate.
    pub key: &'a [u8],
    /// The host's key, in the method `publickey-hostbound-v00@openssh.com`.
    pub host_key: Option<&'a [u8]>,
}

/// Whether the data is to become an SSHSIG.
pub fn is_sshsig(data: &[u8]) -> bool {
    data.starts_with(SSHSIG_MAGIC)
}

impl<'a> Userauth<'a> {
    /// Reads the data of a sign request, every byte of it.
    ///
    /// # Errors
    /// [`Malformed`] for anything but a complete public key login: another service, another method, the query
    /// without a signature, or bytes that follow.
    pub fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        let session_id = reader.string()?;
        expect(reader.u8()? == USERAUTH_REQUEST)?;
        let user = reader.text()?;
        expect(reader.string()? == b"ssh-connection")?;
        let is_hostbound = match reader.string()? {
            b"publickey" => false,
            b"publickey-hostbound-v00@openssh.com" => true,
            _ => return Err(Malformed::Value),
        };
        expect(reader.boolean()?)?;
        let algorithm = reader.text()?;
        let key = reader.string()?;
        let host_key = if is_hostbound {
            Some(reader.string()?)
        } else {
            None
        };
        reader.finish()?;
        expect(!session_id.is_empty())?;
        Ok(Self {
            session_id,
            user,
            algorithm,
            key,
            host_key,
        })
    }
}

fn expect(holds: bool) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed::Value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::encoding::Put;
    use proptest::prelude::*;

    fn data(service: &str, method: &str, signed: u8, host_key: Option<&[u8]>) -> Vec<u8> {
        let mut data = Vec::new();
        data.put_string("session");
        data.put_u8(50);
        data.put_string("alice");
        data.put_string(service);
        data.put_string(method);
        data.put_u8(signed);
        data.put_string("algorithm");
        data.put_string("key");
        if let Some(host_key) = host_key {
            data.put_string(host_key);
        }
        data
    }

    const HOSTBOUND: &str = "publickey-hostbound-v00@openssh.com";

    #[test]
    fn both_methods_are_read_to_the_last_byte() {
        let plain = data("ssh-connection", "publickey", 1, None);
        let parsed = Userauth::parse(&plain).unwrap();
        assert_eq!(
            (parsed.session_id, parsed.user, parsed.key, parsed.host_key),
            (&b"session"[..], "alice", &b"key"[..], None)
        );
        let bound = data("ssh-connection", HOSTBOUND, 1, Some(b"host"));
        assert_eq!(Userauth::parse(&bound).unwrap().host_key, Some(&b"host"[..]));
        for complete in [plain, bound] {
            for length in 0..complete.len() {
                assert!(Userauth::parse(&complete[..length]).is_err(), "{length}");
            }
            let longer = [&complete[..], &[0]].concat();
            assert_eq!(Userauth::parse(&longer), Err(Malformed::Trailing(1)));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for other in [
            data("ssh-userauth", "publickey", 1, None),
            data("ssh-connection", "password", 1, None),
            data("ssh-connection", "hostbased", 1, None),
            data("ssh-connection", "publickey", 0, None),
            data("ssh-connection", "publickey", 2, None),
            data("ssh-connection", "publickey", 1, Some(b"host")),
            data("ssh-connection", HOSTBOUND, 1, None),
            b"SSHSIG\0\0\0\x04file".to_vec(),
            vec![0; 32],
            Vec::new(),
        ] {
            assert!(Userauth::parse(&other).is_err(), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_data_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), place in any::<prop::sample::Index>(), with in any::<u8>()) {
            let _ = Userauth::parse(&bytes);
            let mut changed = data("ssh-connection", HOSTBOUND, 1, Some(b"host"));
            let place = place.index(changed.len());
            changed[place] = with;
            if let Ok(parsed) = Userauth::parse(&changed) {
                prop_assert!(parsed.host_key.is_some());
            }
        }
    }
}
