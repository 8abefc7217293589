//! Which certificates a provider may show: the system's and `--tls-ca-cert`'s, for its own name, in their time.

use crate::support::now;
use epithet_oidc::{FetchError, Http, Issuer, Provider, ProviderError};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const ROOT: &[u8] = include_bytes!("tls/root.pem");
const KEY: &[u8] = include_bytes!("tls/server.key.pem");

/// A provider behind TLS that answers everything with its discovery document.
async fn provider(certificate: &[u8]) -> Issuer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://{}", listener.local_addr().unwrap());
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap().into_owned();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(KEY).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let body = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{issuer}/keys"}}"#);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not like our certificate leaves here.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
            let _ = stream
                .write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes())
                .await;
            let _ = stream.shutdown().await;
        }
    });
    Issuer::parse(&issuer).unwrap()
}

async fn discover(http: &Http, certificate: &[u8]) -> Result<(), ProviderError> {
    Provider::discover(http, &provider(certificate).await, None, now())
        .await
        .map(drop)
}

#[tokio::test]
async fn a_root_that_was_given_is_trusted_in_addition() {
    let http = Http::with_roots(ROOT).unwrap();
    discover(&http, include_bytes!("tls/good.pem")).await.unwrap();
}

#[tokio::test]
async fn an_unknown_root_another_name_and_an_ended_certificate_are_refused() {
    let ours = Http::with_roots(ROOT).unwrap();
    let cases: [(&Http, &[u8], &str); 3] = [
        (&Http::default(), include_bytes!("tls/good.pem"), "UnknownIssuer"),
        (&ours, include_bytes!("tls/other-name.pem"), "not valid for name"),
        (&ours, include_bytes!("tls/expired.pem"), "expired"),
    ];
    for (http, certificate, reason) in cases {
        let error = discover(http, certificate).await.unwrap_err();
        assert!(
            matches!(error, ProviderError::Fetch(FetchError::Unreachable { .. })),
            "{error}"
        );
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_file_without_a_certificate_is_told_as_such() {
    for bad in [
        &b""[..],
        b"hello",
        KEY,
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        let error = Http::with_roots(bad).unwrap_err().to_string();
        assert!(error.contains("--tls-ca-cert"), "{error}");
    }
}
