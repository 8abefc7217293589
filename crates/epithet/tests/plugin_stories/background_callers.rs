//! The storm guard: an editor that polls a host must not open a browser each time.

use crate::support::{FakeCa, Plugin, Stage, certificate, output};

#[test]
fn background_callers_are_held_back_after_a_login_nobody_completed_and_a_terminal_is_not() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::write(&stage.home, r#"[ -e "$folder/somebody" ] || exit 1; printf tok"#);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);

    let first = output(stage.log_in("127.0.0.1"));
    assert!(first.contains("exited with status 1"), "{first}");
    for _ in 0..10 {
        let held = output(stage.log_in("127.0.0.1"));
        for words in [
            "the last login was not completed",
            "in a terminal",
            "epithet login",
        ] {
            assert!(
                held.contains(words) || plugin.runs() > 1,
                "{words:?} is not in:\n{held}"
            );
        }
    }
    assert!(plugin.runs() <= 2, "{} runs", plugin.runs());

    // A person at a terminal may always try, and that ends it for everybody.
    let before = plugin.runs();
    output(stage.log_in_from_terminal("127.0.0.1"));
    assert_eq!(plugin.runs(), before + 1);
    std::fs::write(plugin.folder().join("somebody"), "").unwrap();
    output(stage.log_in_from_terminal("127.0.0.1"));
    output(stage.log_in("127.0.0.1"));
    assert_eq!(plugin.runs(), before + 2);
}
