//! How we tell the token endpoint who we are (OpenID Connect Core 1.0 section 9).

use crate::clock;
use crate::options::{LoginOptions, OptionsError};
use crate::provider::Provider;
use crate::random::{self, NoRandomness};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::fmt;
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

/// How long an assertion is good for, in seconds: it is used at once.
const ASSERTION_LIFE: u64 = 60;

/// What was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuthChoice {
    /// By what we have and what the provider lists.
    #[default]
    Auto,
    /// Not at all: a public client, as installed applications are.
    None,
    /// The secret in an `Authorization: Basic` header.
    Basic,
    /// The secret in the body.
    Post,
    /// An assertion signed with our key (RFC 7523).
    PrivateKeyJwt,
}

impl std::str::FromStr for ClientAuthChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "basic" => Ok(Self::Basic),
            "post" => Ok(Self::Post),
            "private-key-jwt" => Ok(Self::PrivateKeyJwt),
            _ => Err(format!(
                "{text:?} is not one of auto, none, basic, post and private-key-jwt"
            )),
        }
    }
}

/// Why a client key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientKeyError {
    /// Not an unencrypted PKCS#8 PEM.
    #[error(
        "the client key is not a PEM file with an unencrypted PRIVATE KEY; convert it with: openssl pkcs8 -topk8 -nocrypt"
    )]
    NotPkcs8,
    /// A kind that we do not sign with.
    #[error("the client key must be RSA (2048 bits or more), P-256, P-384 or Ed25519")]
    Kind,
}

/// Our key at the provider, for `private_key_jwt`.
pub struct ClientKey {
    key: Signer,
    key_id: Option<String>,
}

enum Signer {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({}, [redacted])", self.key.algorithm())
    }
}

impl ClientKey {
    /// Reads an unencrypted PKCS#8 PEM; `key_id` is what the provider knows the key by, if it wants to be told.
    pub fn from_pem(pem: &str, key_id: Option<String>) -> Result<Self, ClientKeyError> {
        let (_, rest) = pem
            .split_once("-----BEGIN PRIVATE KEY-----")
            .ok_or(ClientKeyError::NotPkcs8)?;
        let (body, _) = rest
            .split_once("-----END PRIVATE KEY-----")
            .ok_or(ClientKeyError::NotPkcs8)?;
        let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
        let der = Zeroizing::new(
            STANDARD
                .decode(body.as_bytes())
                .map_err(|_| ClientKeyError::NotPkcs8)?,
        );
        let key = if let Ok(key) = RsaKeyPair::from_pkcs8(&der) {
            Signer::Rsa(Box::new(key))
        } else if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der) {
            Signer::P256(key)
        } else if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der) {
            Signer::P384(key)
        } else if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            Signer::Ed25519(key)
        } else {
            return Err(ClientKeyError::Kind);
        };
        Ok(Self { key, key_id })
    }

    /// "I am this client, for this audience, now" (RFC 7523 section 3).
    fn assertion(&self, client_id: &str, audience: &str) -> Result<String, NoRandomness> {
        let now = clock::unix_now();
        let mut header = serde_json::json!({"alg": self.key.algorithm(), "typ": "JWT"});
        if let Some(key_id) = &self.key_id {
            header["kid"] = key_id.as_str().into();
        }
        let claims = serde_json::json!({
            "iss": client_id, "sub": client_id, "aud": audience,
            "jti": random::text()?, "iat": now, "nbf": now, "exp": now + ASSERTION_LIFE,
        });
        let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).ok_or(NoRandomness)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Signer {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// `None` only when there is no randomness.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
            Self::P256(key) | Self::P384(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Self::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
        }
    }
}

/// What a request to the token endpoint carries so that the provider knows who asks.
pub(crate) struct Credentials {
    /// For the body.
    pub(crate) form: Vec<(String, String)>,
    /// For the `Authorization` header.
    pub(crate) authorization: Option<Zeroizing<String>>,
}

/// How to authenticate, by what was asked for, what we have, and what the provider lists.
pub(crate) fn choose(options: &LoginOptions, provider: &Provider) -> Result<ClientAuthChoice, OptionsError> {
    let choice = match options.client_auth {
        ClientAuthChoice::Auto if options.client_key.is_some() => ClientAuthChoice::PrivateKeyJwt,
        ClientAuthChoice::Auto if options.client_secret.is_none() => ClientAuthChoice::None,
        ClientAuthChoice::Auto => {
            let lists = |method: &str| {
                provider
                    .token_endpoint_auth_methods_supported
                    .iter()
                    .any(|one| one == method)
            };
            // In the body there is only one way to write a secret with special characters.
            if lists("client_secret_post") {
                ClientAuthChoice::Post
            } else {
                ClientAuthChoice::Basic
            }
        }
        other => other,
    };
    match choice {
        ClientAuthChoice::Basic | ClientAuthChoice::Post if options.client_secret.is_none() => {
            let method = if choice == ClientAuthChoice::Basic {
                "basic"
            } else {
                "post"
            };
            Err(OptionsError::ClientAuth {
                method,
                needs: "--client-secret or --client-secret-file",
            })
        }
        ClientAuthChoice::PrivateKeyJwt if options.client_key.is_none() => Err(OptionsError::ClientAuth {
            method: "private-key-jwt",
            needs: "--client-key-file",
        }),
        choice => Ok(choice),
    }
}

/// The credentials for one request. `client_id` is always in the body: Entra demands it on refresh (AADSTS900144).
pub(crate) fn credentials(
    options: &LoginOptions,
    choice: ClientAuthChoice,
    endpoint: &Url,
) -> Result<Credentials, NoRandomness> {
    let mut form = vec![("client_id".to_owned(), options.client_id.clone())];
    let mut authorization = None;
    match (choice, &options.client_secret, &options.client_key) {
        (ClientAuthChoice::Basic, Some(secret), _) => {
            // RFC 6749 section 2.3.1: both are form-encoded before they are joined.
            let encoded = |text: &str| Zeroizing::new(byte_serialize(text.as_bytes()).collect::<String>());
            let pair = Zeroizing::new(format!(
                "{}:{}",
                *encoded(&options.client_id),
                *encoded(secret.expose())
            ));
            authorization = Some(Zeroizing::new(format!(
                "Basic {}",
                STANDARD.encode(pair.as_bytes())
            )));
        }
        (ClientAuthChoice::Post, Some(secret), _) => {
            form.push(("client_secret".to_owned(), secret.expose().to_owned()));
        }
        (ClientAuthChoice::PrivateKeyJwt, _, Some(key)) => {
            const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            form.push(("client_assertion_type".to_owned(), KIND.to_owned()));
            form.push((
                "client_assertion".to_owned(),
                key.assertion(&options.client_id, assertion_audience(options, endpoint))?,
            ));
        }
        _ => {}
    }
    Ok(Credentials { form, authorization })
}

/// Whom an assertion is for: the provider by its name, which is the one thing no document of anybody else can change
/// (draft-ietf-oauth-rfc7523bis section 4); Okta wants the address that is asked.
fn assertion_audience<'a>(options: &'a LoginOptions, endpoint: &'a Url) -> &'a str {
    let is_okta = endpoint.host_str().is_some_and(|host| {
        [".okta.com", ".oktapreview.com"]
            .iter()
            .any(|okta| host.ends_with(okta))
    });
    match is_okta {
        true => endpoint.as_str(),
        false => options.issuer.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id_token::{Expectation, verify};
    use crate::jwks::KeySet;
    use crate::jws::Algorithm;
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair, RsaPublicKeyComponents};
    use serde_json::json;

    fn pem(der: &[u8]) -> String {
        let body = STANDARD.encode(der);
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        )
    }

    #[test]
    fn an_assertion_is_signed_with_the_clients_key_for_this_provider() {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
        let rsa_der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = ec.public_key().as_ref();
        let ed = Ed25519KeyPair::generate().unwrap();
        let keys = [
            (
                rsa_der.as_ref().to_vec(),
                json!({"kty": "RSA", "n": encode(&public.n), "e": encode(&public.e)}),
            ),
            (
                ec.to_pkcs8v1().unwrap().as_ref().to_vec(),
                json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])}),
            ),
            (
                ed.to_pkcs8v1().unwrap().as_ref().to_vec(),
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(ed.public_key().as_ref())}),
            ),
        ];
        let issuer = "https://idp.example";
        for (der, mut jwk) in keys {
            let key = ClientKey::from_pem(&pem(&der), Some("k1".into())).unwrap();
            let assertion = key.assertion("ssh-login", issuer).unwrap();
            jwk["kid"] = "k1".into();
            let set = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
            let expected = Expectation::new("ssh-login", issuer, &Algorithm::ALL);
            let claims = verify(assertion.as_bytes(), &set, &expected, clock::unix_now()).unwrap();
            assert_eq!(
                (claims.subject.as_str(), claims.expires_at - claims.issued_at),
                ("ssh-login", 60)
            );
            assert_eq!(claims.raw["jti"].as_str().unwrap().len(), 43);
            assert!(!format!("{key:?}").contains(&STANDARD.encode(&der)[60..]));
        }
    }

    #[test]
    fn what_is_no_client_key_says_how_to_make_one() {
        for bad in [
            "",
            "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----",
        ] {
            assert!(
                ClientKey::from_pem(bad, None)
                    .unwrap_err()
                    .to_string()
                    .contains("openssl pkcs8"),
                "{bad}"
            );
        }
        assert_eq!(
            ClientKey::from_pem(&pem(b"no key"), None).unwrap_err(),
            ClientKeyError::Kind
        );
    }
}
