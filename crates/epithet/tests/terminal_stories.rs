//! People at a terminal whose browser is elsewhere: a code for another device, an address that they paste, and leaving.
//!
//! Each `ssh` has a terminal of its own: what is typed goes into the stdin of `script`, and its screen comes out.

#![cfg(test)]

#[expect(dead_code, reason = "other stories need more of it")]
#[path = "shared/laptop.rs"]
mod laptop;
#[expect(dead_code, reason = "other stories need more of it")]
#[path = "shared/site.rs"]
mod site;

use epithet_testkit::devidp::{Person, sign_in_blocking};
use epithet_testkit::{
    Broker, CertifiedProvider, DEADLINE, Daemon, RealBrowser, Sshd, Visitor, plugin_script, wait_until,
};
use laptop::Laptop;
use serde_json::json;
use site::{EPITHET, Site};
use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

/// A browser on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ctrl-C, as a terminal's keyboard sends it.
const CTRL_C: &str = "\x03";

struct Story {
    laptop: Laptop,
    site: Site,
    sshd: Sshd,
    provider: CertifiedProvider,
    broker: Broker,
}

impl Story {
    fn with_flow(flow: &str) -> Self {
        let provider = CertifiedProvider::start(&json!({}));
        let auth = format!(
            "'{EPITHET}' auth oidc --issuer {} --client-id epithet --no-browser --flow {flow}",
            provider.issuer()
        );
        Self::with(provider, |_| auth)
    }

    fn with(provider: CertifiedProvider, auth: impl FnOnce(&Laptop) -> String) -> Self {
        let site = Site::start(provider.issuer(), "5m");
        let laptop = Laptop::new();
        let sshd = site.host(&laptop.other_key);
        laptop.knows(&sshd, "");
        let mut agent = laptop.agent(site.url(), &auth(&laptop));
        agent.args(["--match", "127.0.0.*"]);
        let broker = laptop::start(agent);
        Self {
            laptop,
            site,
            sshd,
            provider,
            broker,
        }
    }

    fn ssh(&self, host: &str) -> Terminal {
        let config = self.laptop.home.join(".ssh/config");
        Terminal::with(
            &self.laptop,
            &format!("exec ssh -F '{}' {host} 'echo logged in'", config.display()),
        )
    }

    fn epithet(&self, arguments: &str) -> Terminal {
        let socket = self.broker.socket().display();
        Terminal::with(
            &self.laptop,
            &format!("exec '{EPITHET}' {arguments} --broker '{socket}'"),
        )
    }

    /// Signs in with a real browser that runs elsewhere, and returns the address on which it ended.
    fn sign_in_elsewhere(&self, address: &str) -> String {
        let browser = RealBrowser::with(self.laptop.home.path(), Visitor::SignsInElsewhere("alice"));
        let status = Command::new(browser.program()).arg(address).status();
        assert!(status.expect("the browser starts").success());
        let page = browser.page(PATIENCE);
        page["url"].as_str().expect("it was sent somewhere").to_owned()
    }

    fn running(&self) -> bool {
        self.laptop.inspect(&self.broker)["login"]["running"] == true
    }
}

/// A program in a terminal, with somebody at the keyboard.
struct Terminal {
    program: Daemon,
    keyboard: ChildStdin,
}

impl Terminal {
    fn with(laptop: &Laptop, line: &str) -> Self {
        let mut command = laptop.home.command("script");
        command.args(["-qefc", line, "/dev/null"]).stdin(Stdio::piped());
        let mut program = Daemon::start("a terminal", command, None);
        let keyboard = program.take_stdin().expect("stdin is a pipe");
        Self { program, keyboard }
    }

    fn types(&mut self, text: &str) {
        self.keyboard
            .write_all(text.as_bytes())
            .expect("the terminal is there");
    }

    /// The word on the screen that begins so.
    #[track_caller]
    fn word(&self, beginning: &str) -> String {
        let line = self.shows(beginning);
        let (_, rest) = line.split_at(line.find(beginning).expect("the line was found by it"));
        let word = rest.split_whitespace().next();
        word.expect("it begins with text").to_owned()
    }

    #[track_caller]
    fn shows(&self, text: &str) -> String {
        let line = self.program.stdout().wait_for_line(text, DEADLINE);
        line.unwrap_or_else(|| panic!("{text} is not on the screen:\n{}", self.program.stdout()))
    }

    /// Waits for the end; the exit code, and the whole screen.
    #[track_caller]
    fn ends(mut self) -> (Option<i32>, String) {
        let status = self.program.wait(DEADLINE);
        let screen = self.program.stdout().clone();
        let status = status.unwrap_or_else(|| panic!("it does not end:\n{screen}"));
        (status.code(), screen.wait_for_end(DEADLINE).unwrap_or_default())
    }

    #[track_caller]
    fn logs_in(self) -> String {
        let (code, screen) = self.ends();
        assert!(
            code == Some(0) && screen.trim_end().ends_with("logged in"),
            "{code:?}\n{screen}"
        );
        screen
    }
}

#[test]
fn a_code_is_entered_on_another_device_while_ssh_waits_at_its_terminal() {
    let story = Story::with_flow("device");
    let ssh = story.ssh("127.0.0.1");
    let address = ssh.word(&format!("{}/device?user_code=", story.provider.issuer()));
    sign_in_blocking(&address, &Person::named("alice")).expect("the page takes the code");
    let screen = ssh.logs_in();
    assert!(screen.contains('\u{2588}'), "a QR code is shown: {screen}");
    let accepted = story.sshd.wait_for_log("Accepted publickey");
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");
}

#[test]
fn an_address_from_a_browser_elsewhere_is_pasted_at_the_terminal_where_ssh_waits() {
    let story = Story::with_flow("paste");
    let mut ssh = story.ssh("127.0.0.1");
    let address = ssh.word(&format!("{}/auth?", story.provider.issuer()));
    ssh.shows("paste it here");

    // What is not it gets one line, and is no harm.
    ssh.types("yes\n");
    ssh.shows("that is not an address");
    ssh.types(&format!("{address}\n"));
    ssh.shows("it has no `code` and `state`");
    let other_state = "http://127.0.0.1:1/callback?code=stolen&state=another";
    ssh.types(&format!("{other_state}\n"));
    ssh.shows("belongs to another login");

    let ended_on = story.sign_in_elsewhere(&address);
    assert!(ended_on.starts_with("http://127.0.0.1:"), "{ended_on}");
    ssh.types(&format!("{ended_on}\n"));

    let screen = ssh.logs_in();
    assert!(!screen.contains("#epithet"), "directives are not shown: {screen}");
    let accepted = story.sshd.wait_for_log("Accepted publickey");
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");
    assert_eq!(story.site.decisions().len(), 1);
    // Nothing is pasted for the next host.
    story.ssh("127.0.0.2").logs_in();
}

#[test]
fn whoever_joins_late_can_paste_as_well_and_it_counts_for_all() {
    let story = Story::with_flow("paste");
    let first = story.ssh("127.0.0.1");
    let address = first.word(&format!("{}/auth?", story.provider.issuer()));
    let mut late = story.ssh("127.0.0.2");
    late.shows("paste it here");
    let ended_on = story.sign_in_elsewhere(&address);
    late.types(&format!("{ended_on}\n"));
    first.logs_in();
    late.logs_in();
    assert_eq!(story.provider.events("grant authorization_code"), 1);
}

#[test]
fn a_person_who_leaves_by_ctrl_c_ends_the_login_and_the_terminal_is_as_before() {
    let story = Story::with_flow("paste");
    let config = story.laptop.home.join(".ssh/config");
    let line = format!(
        "stty -a > before; ssh -n -F '{}' 127.0.0.1 true; stty -a > after; echo back at the prompt",
        config.display()
    );
    // An interactive shell stays when the program in front of it is left by Ctrl-C.
    let mut terminal = Terminal::with(&story.laptop, &format!("trap : INT; {line}"));
    terminal.shows("paste it here");
    assert!(story.running());
    terminal.types(CTRL_C);
    terminal.shows("back at the prompt");
    terminal.ends();
    let read = |name: &str| std::fs::read_to_string(story.laptop.home.join(name)).expect("stty wrote it");
    assert_eq!(read("before"), read("after"));
    let is_over = || (!story.running()).then_some(());
    wait_until(DEADLINE, is_over).expect("nobody waits for the plugin, so it is ended");
}

#[test]
fn a_job_in_the_background_is_not_stopped_for_reading_the_terminal() {
    let story = Story::with_flow("paste");
    let config = story.laptop.home.join(".ssh/config");
    let background = format!(
        "set -m; ssh -n -F '{}' 127.0.0.1 'echo logged in' & wait; echo $?",
        config.display()
    );
    let mut terminal = Terminal::with(&story.laptop, &background);
    let address = terminal.word(&format!("{}/auth?", story.provider.issuer()));
    terminal.shows("paste it here");
    terminal.types("this is for the shell\n");
    // The loopback address is open to whoever has it, as always.
    sign_in_blocking(&address, &Person::named("alice")).expect("it leads back to this machine");
    let (_, screen) = terminal.ends();
    assert!(screen.contains("logged in"), "{screen}");
    assert!(!screen.contains("that is not an address"), "{screen}");
    assert!(!screen.to_lowercase().contains("stopped"), "{screen}");
}

#[test]
fn a_login_by_pasting_goes_before_the_configured_way() {
    let story = Story::with_flow("device");
    let mut login = story.epithet("login --paste");
    let address = login.word(&format!("{}/auth?", story.provider.issuer()));
    let ended_on = story.sign_in_elsewhere(&address);
    login.types(&format!("{ended_on}\n"));
    let (code, screen) = login.ends();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("epithet: logged in"), "{screen}");
    story.ssh("127.0.0.1").logs_in();
}

/// The browser shows an error page of the provider's, and nobody here can know.
#[test]
fn a_person_who_asks_for_another_way_ends_the_waiting_for_the_browser_and_everybody_goes_on() {
    let story = Story::with_flow("browser");
    let first = story.ssh("127.0.0.1");
    first.shows(&format!("{}/auth?", story.provider.issuer()));
    let second = story.ssh("127.0.0.2");
    second.shows(&format!("{}/auth?", story.provider.issuer()));

    let login = story.epithet("login --flow device");

    first.shows("begins again in another way");
    let beginning = format!("{}/device?user_code=", story.provider.issuer());
    let address = login.word(&beginning);
    assert_eq!(first.word(&beginning), address, "all of them see the same code");
    sign_in_blocking(&address, &Person::named("alice")).expect("the page takes the code");
    let (code, screen) = login.ends();
    assert_eq!(code, Some(0), "{screen}");
    first.logs_in();
    second.logs_in();
    let login = &story.laptop.inspect(&story.broker)["login"];
    assert_eq!((&login["logins"], &login["failures"]), (&json!(1), &json!(0)));
}

#[test]
fn a_logout_revokes_the_login_at_the_provider_and_says_so() {
    let story = Story::with_flow("device");
    let ssh = story.ssh("127.0.0.1");
    let address = ssh.word(&format!("{}/device?user_code=", story.provider.issuer()));
    sign_in_blocking(&address, &Person::named("alice")).expect("the page takes the code");
    ssh.logs_in();

    let (code, screen) = story.epithet("logout").ends();

    assert_eq!(code, Some(0), "{screen}");
    let issuer = story.provider.issuer();
    for part in [
        &format!("{issuer} revoked the refresh token") as &str,
        &format!("{issuer} revoked the access token"),
        "logged out: the broker forgot state, token and every certificate",
    ] {
        assert!(screen.contains(part), "{part} is not in: {screen}");
    }
    let inspection = story.laptop.inspect(&story.broker);
    assert_eq!(inspection["login"]["stateBytes"], 0);
    assert_eq!(inspection["login"]["token"], false);
    assert_eq!(inspection["agents"], json!([]));

    let (code, screen) = story.epithet("logout").ends();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("nobody was logged in"), "{screen}");
}

#[test]
fn when_the_provider_is_down_a_logout_forgets_all_the_same_and_says_what_is_left() {
    let story = Story::with_flow("device");
    let login = story.epithet("login");
    let address = login.word(&format!("{}/device?user_code=", story.provider.issuer()));
    sign_in_blocking(&address, &Person::named("alice")).expect("the page takes the code");
    let (code, screen) = login.ends();
    assert_eq!(code, Some(0), "{screen}");
    story.provider.set_down(true);

    let (code, screen) = story.epithet("logout").ends();

    assert_eq!(code, Some(1), "{screen}");
    for part in [
        "everything was forgotten here, but the login could not be revoked",
        "did not revoke the refresh token",
        "503",
    ] {
        assert!(screen.contains(part), "{part} is not in: {screen}");
    }
    assert_eq!(story.laptop.inspect(&story.broker)["login"]["stateBytes"], 0);
}

#[test]
fn a_plugin_that_offers_nothing_is_not_run_to_log_out() {
    let provider = CertifiedProvider::start(&json!({}));
    let story = Story::with(provider, |laptop| {
        let script = "#!/bin/sh\necho \"$EPITHET_ACTION\" >> actions\nprintf token\nprintf state >&3\n";
        let plugin = plugin_script(laptop.home.path(), "plugin", script);
        plugin.display().to_string()
    });
    let (code, screen) = story.epithet("login").ends();
    assert_eq!(code, Some(0), "{screen}");
    let (code, screen) = story.epithet("logout").ends();
    assert_eq!(code, Some(0), "{screen}");
    assert!(
        screen.contains("the auth plugin cannot revoke the login"),
        "{screen}"
    );
    let actions = std::fs::read_to_string(story.laptop.home.join("actions")).expect("the plugin ran");
    assert_eq!(actions, "login\n");
}

#[test]
fn a_plugin_of_any_language_is_run_once_more_to_log_out_with_its_state() {
    let provider = CertifiedProvider::start(&json!({}));
    let story = Story::with(provider, |laptop| {
        let script = "#!/bin/sh\n\
            if [ \"$EPITHET_ACTION\" = logout ]; then\n\
            cat > revoked; echo 'progress of the goodbye' >&4; echo 'and its last word' >&2; exit 0\n\
            fi\n\
            echo '#epithet: can-log-out' >&4\necho '#epithet: unknown thing' >&4\necho hello >&4\n\
            printf token\nprintf 'the state' >&3\n";
        let plugin = plugin_script(laptop.home.path(), "plugin", script);
        plugin.display().to_string()
    });
    let (code, screen) = story.epithet("login").ends();
    assert_eq!(code, Some(0), "{screen}");
    assert!(
        screen.contains("hello") && !screen.contains("#epithet"),
        "{screen}"
    );
    let (code, screen) = story.epithet("logout").ends();
    assert_eq!(code, Some(0), "{screen}");
    for part in ["progress of the goodbye", "and its last word", "logged out"] {
        assert!(screen.contains(part), "{part} is not in: {screen}");
    }
    let revoked = std::fs::read_to_string(story.laptop.home.join("revoked")).expect("the plugin ran");
    assert_eq!(revoked, "the state");
}
