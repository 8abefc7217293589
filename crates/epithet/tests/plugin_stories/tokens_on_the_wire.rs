//! A token is whatever bytes the plugin printed, and reaches the CA as these very bytes.

use crate::support::{FakeCa, Plugin, RealServer, Stage, certificate, output};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_testkit::TestUser;

/// What reached the CA from a plugin with this last line: the header, its encoding, and the token that they mean.
fn sent(body: &str) -> (String, Option<String>, Vec<u8>) {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, body);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    output(stage.log_in("127.0.0.1"));
    let asked = ca.asked().pop().unwrap();
    (asked.header, asked.encoding, asked.token)
}

#[test]
fn a_token_that_a_header_can_carry_travels_as_it_is() {
    let (header, encoding, token) = sent("printf 'eyJhbGciOi.J9-_~+/=.sig'");
    assert_eq!(header, "eyJhbGciOi.J9-_~+/=.sig");
    assert_eq!((encoding, token), (None, header.into_bytes()));
}

#[test]
fn a_token_with_a_line_end_travels_encoded_with_the_line_end_in_it() {
    let (header, encoding, token) = sent("echo token; echo 'X-Admin: 1'");
    assert_eq!(token, b"token\nX-Admin: 1\n");
    assert_eq!(header, URL_SAFE_NO_PAD.encode(&token));
    assert_eq!(encoding.as_deref(), Some("base64url"));
}

#[test]
fn a_binary_token_travels_encoded_byte_for_byte() {
    let (header, encoding, token) = sent(r"printf '\000\001\377token\r\n\200'");
    assert_eq!(token, b"\0\x01\xfftoken\r\n\x80");
    assert_eq!(header, URL_SAFE_NO_PAD.encode(&token));
    assert_eq!(encoding.as_deref(), Some("base64url"));
}

#[test]
fn the_largest_token_arrives_whole() {
    let (_, encoding, token) = sent("head -c 65536 /dev/zero | tr '\\0' t");
    assert_eq!(encoding, None);
    assert!(token == [b't'; 65536], "{} bytes", token.len());
}

#[test]
fn the_server_takes_a_jwt_from_a_plugin_that_ended_it_with_a_newline() {
    let server = RealServer::start(&TestUser::current(), "5m");
    let stage = Stage::new(server.public_line());
    let token = stage.home.write("token", server.id_token());
    let plugin = Plugin::write(&stage.home, &format!("echo \"$(cat '{}')\"", token.display()));
    let _broker = stage.broker(server.url(), plugin.command(), []);
    output(stage.log_in("127.0.0.1"));
    assert_eq!(plugin.runs(), 1);
}
