//! Which JWS algorithm (RFC 7518 section 3.1, RFC 8037) goes with which CA key.
//!
//! The CA proves itself to a policy server with a JWT that it signs with its SSH key, so the algorithm is a property
//! of the key and never of the token (RFC 8725 section 3.1).

use std::fmt;

/// A JWS signature algorithm. Those that epithet 0.19 has too are the same there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JwsAlgorithm {
    /// Ed25519.
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, of RSA keys in agents, which know no PSS. epithet 0.19 takes PS256 alone.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512. Not known to epithet 0.19, which has no such CA keys.
    Es512,
}

impl JwsAlgorithm {
    /// The value of the `alg` header.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
        }
    }
}

impl fmt::Display for JwsAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
