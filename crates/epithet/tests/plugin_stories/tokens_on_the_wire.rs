//! How a token reaches the CA: as it is where a header can carry it, encoded where not, never changed.

use crate::support::{FakeCa, Plugin, Stage, certificate, output};

#[test]
fn any_bytes_are_a_token_and_arrive_as_they_were_printed() {
    let cases: [(&str, &[u8], bool); 4] = [
        ("printf 'eyJh.eyJp.c2ln'", b"eyJh.eyJp.c2ln", false),
        ("echo 'with-a-line-end'", b"with-a-line-end\n", true),
        (r"printf 'tok\r\nX-Admin: 1'", b"tok\r\nX-Admin: 1", true),
        (r"printf '\377\000\001'", b"\xff\x00\x01", true),
    ];
    for (body, token, is_encoded) in cases {
        let ca = FakeCa::start(|_| certificate());
        let stage = Stage::new(&ca.public_line());
        let plugin = Plugin::write(&stage.home, body);
        let _broker = stage.broker(&ca.url(), plugin.command(), []);
        output(stage.log_in("127.0.0.1"));
        let asked = ca.asked();
        assert_eq!(asked[0].token, token, "{body}");
        assert!(
            asked[0]
                .header
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' '),
            "{body}"
        );
        assert_eq!(asked[0].header.as_bytes().ends_with(token), !is_encoded, "{body}");
        assert_eq!(
            asked[0].encoding.as_deref(),
            is_encoded.then_some("base64url"),
            "{body}"
        );
    }
}
