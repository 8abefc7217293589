//! What a plugin finds: its environment, its command line, its own folder on the path.

use crate::support::{FakeCa, Plugin, RealServer, Stage, certificate, output, start};
use epithet_testkit::devidp::Person;
use epithet_testkit::{FakeBrowser, TestUser};

#[test]
fn the_environment_tells_what_the_login_is_for_and_who_is_there() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    output(stage.log_in("127.0.0.1"));
    output(stage.log_in_from_terminal("127.0.0.2"));
    let variable = |run, name| plugin.variable_of(run, name).unwrap_or_default();
    assert_eq!(variable(1, "EPITHET_PROTOCOL"), "1");
    assert_eq!(variable(1, "EPITHET_HOST"), "127.0.0.1");
    assert_eq!(variable(1, "EPITHET_USER"), stage.home.user().name());
    assert_eq!(variable(1, "EPITHET_PORT"), stage.sshd.port().to_string());
    assert_eq!(variable(1, "EPITHET_INTERACTIVE"), "0");
    assert_eq!(variable(2, "EPITHET_INTERACTIVE"), "1");
    assert_eq!(variable(2, "EPITHET_REMOTE_SESSION"), "0");
}

#[test]
fn a_list_in_the_configuration_runs_without_a_shell() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        r#"printf '%s' "$1" > "$folder/argument"; printf tok"#,
    );
    let config = serde_json::json!({"agent": {
        "ca-url": ca.url(),
        "match": "127.0.0.*",
        "auth": [plugin.command(), "$(touch pwned); `id` {{host}}"],
    }});
    let config = stage.home.write("agent.json", config.to_string());
    let config = config.display().to_string();
    let _broker = start(stage.epithet(["agent", "--config", &config]));
    output(stage.log_in("127.0.0.1"));
    let argument = std::fs::read_to_string(plugin.folder().join("argument")).unwrap();
    assert_eq!(argument, "$(touch pwned); `id` {{host}}");
    assert!(!stage.home.join("pwned").exists());
}

#[test]
fn the_documented_command_works_before_anything_is_installed() {
    let server = RealServer::start(&TestUser::current(), "5m");
    let stage = Stage::new(server.public_line());
    let browser = FakeBrowser::with_person(stage.home.path(), Person::default());
    let auth = format!(
        "epithet auth oidc --issuer {} --client-id epithet --flow browser --browser '{}'",
        server.provider.issuer(),
        browser.program().display()
    );
    let _broker = stage.broker(server.url(), &auth, []);
    output(stage.log_in("127.0.0.1"));
}
