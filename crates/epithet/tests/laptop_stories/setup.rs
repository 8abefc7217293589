//! `epithet setup`: one command from nothing to the first login, and nothing at all the second time.

use crate::support::{Story, program};
use epithet_testkit::{DEADLINE, Daemon, Finished};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};

/// A person who has nothing yet but an ssh configuration of their own.
fn newcomer() -> Story {
    let story = Story::begin();
    std::fs::remove_file(config(&story)).expect("the story wrote one");
    let text = read(&ssh_config(&story));
    let (_, own) = text.split_once('\n').expect("the Include is its first line");
    story.laptop.home.write(".ssh/config", own);
    story
}

fn config(story: &Story) -> PathBuf {
    story.laptop.home.join(".epithet/config.yaml")
}

fn ssh_config(story: &Story) -> PathBuf {
    story.laptop.home.join(".ssh/config")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The flags that a site would tell its people.
fn flags(story: &Story) -> [String; 4] {
    [
        "setup".to_owned(),
        format!("--ca-url={}", story.site.url()),
        format!("--auth={}", story.plugin.display()),
        "--match=127.0.0.*".to_owned(),
    ]
}

fn set_up(story: &Story, more: &[&str]) -> Finished {
    let flags = flags(story);
    story.epithet(flags.iter().map(String::as_str).chain(more.iter().copied()))
}

/// Everything below the home, with its content, so that two moments can be compared.
fn files(story: &Story) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![story.laptop.home.join(".ssh"), story.laptop.home.join(".epithet")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn one_command_sets_everything_up_and_a_second_time_changes_nothing() {
    let story = newcomer();
    let before = read(&ssh_config(&story));

    let said = set_up(&story, &["--yes"]).success().stdout;

    let include = format!(
        "Include {}",
        story.laptop.home.join(".epithet/run/*/ssh-config.conf").display()
    );
    assert_eq!(read(&ssh_config(&story)), format!("{include}\n\n{before}"));
    assert_eq!(
        read(&story.laptop.home.join(".ssh/config.before-epithet")),
        before
    );
    for part in [
        "~/.epithet/config.yaml (new)",
        "  + agent:",
        &format!("  + {include}"),
        "Now type:  ssh",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    assert_eq!(
        config(&story).metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    story.laptop.log_in("127.0.0.1");

    let were = files(&story);
    let pid = story.status()["pid"].clone();
    let again = set_up(&story, &["--yes"]).success().stdout;
    let bare = story.epithet(["setup", "--yes"]).success().stdout;
    assert_eq!(files(&story), were);
    assert_eq!(story.status()["pid"], pid);
    for said in [again, bare] {
        assert!(
            said.contains("says it already") && said.contains("includes it already"),
            "{said}"
        );
        assert!(said.contains("running already"), "{said}");
    }
}

#[test]
fn a_dry_run_shows_everything_and_writes_nothing() {
    let story = newcomer();
    let were = files(&story);
    let said = set_up(&story, &["--dry-run"]).success().stdout;
    assert!(
        said.contains("  + agent:") && said.contains("  + Include"),
        "{said}"
    );
    assert!(said.contains("nothing was written"), "{said}");
    assert_eq!(files(&story), were);
    assert_eq!(story.status()["running"], false);
}

#[test]
fn without_a_terminal_it_wants_yes_and_says_so() {
    let story = newcomer();
    let were = files(&story);
    let finished = set_up(&story, &[]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("--yes"), "{}", finished.stderr);
    assert_eq!(files(&story), were);
}

#[test]
fn a_ca_that_is_none_changes_nothing() {
    let story = newcomer();
    let were = files(&story);
    let nobody = format!("http://127.0.0.1:{}", epithet_testkit::free_port());
    let not_a_ca = story.provider.issuer().to_owned();
    for (url, reason) in [(nobody, "refused"), (not_a_ca, "")] {
        let finished = story.epithet(["setup", "--ca-url", &url, "--yes"]);
        assert_eq!(finished.code(), Some(1), "{}", finished.stdout);
        assert!(
            finished.stderr.contains("does not answer as one") && finished.stderr.contains(reason),
            "{}",
            finished.stderr
        );
        assert_eq!(files(&story), were);
    }
    let none = story.epithet(["setup", "--yes"]);
    assert!(none.stderr.contains("--ca-url is required"), "{}", none.stderr);
    let clear = story.epithet(["setup", "--yes", "--ca-url", "http://ca.example.com"]);
    assert_eq!(clear.code(), Some(80));
}

#[test]
fn an_include_below_a_host_is_moved_to_the_top() {
    let story = newcomer();
    let include = story.laptop.home.join(".epithet/run/*/ssh-config.conf");
    let own = read(&ssh_config(&story));
    story.laptop.home.write(
        ".ssh/config",
        format!("Host other\n  User x\nInclude {}\n{own}", include.display()),
    );
    let said = set_up(&story, &["--yes"]).success().stdout;
    assert!(said.contains("line 3, below `Host other`"), "{said}");
    assert_eq!(
        read(&ssh_config(&story)),
        format!("Include {}\n\nHost other\n  User x\n{own}", include.display())
    );
    story.laptop.log_in("127.0.0.1");
}

#[test]
fn a_configuration_that_is_a_link_into_dotfiles_stays_one() {
    let story = newcomer();
    let own = read(&ssh_config(&story));
    let real = story.laptop.home.write("dotfiles/ssh", own.trim_end());
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::remove_file(ssh_config(&story)).unwrap();
    std::os::unix::fs::symlink("../dotfiles/ssh", ssh_config(&story)).unwrap();
    set_up(&story, &["--yes"]).success();
    assert!(ssh_config(&story).is_symlink());
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    assert!(read(&real).starts_with("Include ") && read(&real).ends_with(own.trim_end()));
    story.laptop.log_in("127.0.0.1");
}

#[test]
fn a_read_only_configuration_is_left_alone_with_the_line_to_add() {
    let story = newcomer();
    std::fs::set_permissions(ssh_config(&story), std::fs::Permissions::from_mode(0o400)).unwrap();
    let were = files(&story);
    let finished = set_up(&story, &["--yes"]);
    assert_eq!(finished.code(), Some(1));
    for part in ["is read-only", "\n    Include /"] {
        assert!(
            finished.stderr.contains(part),
            "{part} is not in:\n{}",
            finished.stderr
        );
    }
    assert_eq!(files(&story), were);
}

#[test]
fn another_answer_that_is_configured_already_is_not_replaced() {
    let story = newcomer();
    story.laptop.home.write(
        ".epithet/config.yaml",
        "# mine\nagent:\n  ca-url: https://other.example.com/\n",
    );
    let were = files(&story);
    let finished = set_up(&story, &["--yes"]);
    assert_eq!(finished.code(), Some(1));
    assert!(
        finished
            .stderr
            .contains("has another `ca-url`: https://other.example.com/"),
        "{}",
        finished.stderr
    );
    assert_eq!(files(&story), were);
    // What is missing beside what is there is added.
    let url = story.site.url();
    story.laptop.home.write(
        ".epithet/config.yaml",
        format!("# mine\nagent:\n  ca-url: \"{url}\"\nverbose: 1\n"),
    );
    set_up(&story, &["--yes"]).success();
    let text = read(&config(&story));
    assert!(
        text.starts_with("# mine\nagent:\n  auth: ") && text.ends_with("verbose: 1\n"),
        "{text}"
    );
    story.laptop.log_in("127.0.0.1");
}

/// Setup at a terminal, with somebody at the keyboard.
struct AtTerminal {
    program: Daemon,
    keyboard: ChildStdin,
}

impl AtTerminal {
    fn begin(story: &Story, words: &str) -> Self {
        let mut command = story.laptop.home.command("script");
        let line = format!("exec '{}' setup {words}", program().display());
        command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped());
        let mut program = Daemon::start("a terminal", command, None);
        let keyboard = program.take_stdin().expect("stdin is a pipe");
        Self { program, keyboard }
    }

    fn types(&mut self, text: &str) {
        std::io::Write::write_all(&mut self.keyboard, text.as_bytes()).expect("the terminal is there");
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let shown = epithet_testkit::wait_until(DEADLINE, || {
            self.program.stdout().text().contains(text).then_some(())
        });
        assert!(
            shown.is_some(),
            "{text} is not on the screen:\n{}",
            self.program.stdout()
        );
    }

    fn ends(mut self) -> (Option<i32>, String) {
        let status = self.program.wait(DEADLINE).expect("it ends");
        (
            status.code(),
            self.program.stdout().wait_for_end(DEADLINE).unwrap_or_default(),
        )
    }
}

#[test]
fn at_a_terminal_it_asks_for_what_nobody_said_and_bears_with_mistakes() {
    let story = newcomer();
    let mut setup = AtTerminal::begin(&story, "");
    setup.shows("The CA's URL");
    setup.types("\nftp://nonsense\n");
    setup.shows("begins with https://");
    setup.types(&format!("http://127.0.0.1:{}\n", epithet_testkit::free_port()));
    setup.shows("does not answer as a CA");
    setup.types(&format!("{}\n", story.site.url()));
    // The site says how to log in and which hosts are its own; nothing else is asked.
    setup.shows("logs in at");
    setup.shows("Write this? [Y/n]");
    setup.types("maybe\n");
    setup.shows("yes or no");
    setup.types("n\n");
    let (code, screen) = setup.ends();
    assert_eq!(code, Some(1), "{screen}");
    assert!(screen.contains("nothing was changed"), "{screen}");
    assert!(!config(&story).exists());

    let auth = format!(
        "--ca-url {} --auth '{}' --match '127.0.0.*'",
        story.site.url(),
        story.plugin.display()
    );
    let mut setup = AtTerminal::begin(&story, &auth);
    setup.shows("Write this?");
    setup.types("\n");
    let (code, screen) = setup.ends();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("you are logged in"), "{screen}");
    assert_eq!(story.status()["token"], "fresh");
    story.laptop.log_in("127.0.0.1");
}

#[test]
fn leaving_in_the_middle_leaves_nothing_behind() {
    let story = newcomer();
    let were = files(&story);
    for (key, at) in [
        ("\x03", "The CA's URL"),
        ("\x04", "The CA's URL"),
        ("\x03", "Write this?"),
    ] {
        let words = match at {
            "Write this?" => format!("--ca-url {}", story.site.url()),
            _ => String::new(),
        };
        let mut setup = AtTerminal::begin(&story, &words);
        setup.shows(at);
        setup.types(key);
        let (code, screen) = setup.ends();
        assert_ne!(code, Some(0), "{screen}");
        assert_eq!(files(&story), were, "{screen}");
    }
    assert_eq!(story.status()["running"], false);
}

#[test]
fn a_profile_gets_a_section_a_broker_and_a_login_of_its_own() {
    let story = newcomer();
    set_up(&story, &["--yes"]).success();
    let before = read(&config(&story));
    let url = format!("--ca-url={}", story.site.url());
    let auth = format!("--auth={}", story.plugin.display());
    let words = [
        "setup",
        "--name",
        "work",
        "--yes",
        &url,
        &auth,
        "--match=127.0.0.[2-3]",
    ];
    let said = story.epithet(words).success().stdout;
    for part in [
        "  + profiles:\n  +   work:\n  +     ca-url: ",
        "both cover 127.0.0.2;\n  ssh asks the profile that is first by name",
        "you are logged in",
        "epithet doctor HOST --name work",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    assert!(
        read(&config(&story)).starts_with(&before),
        "{}",
        read(&config(&story))
    );
    let status = |name: &str| {
        story
            .epithet(["agent", "status", "--json", "--name", name])
            .stdout
    };
    assert!(
        status("work").contains("\"token\": \"fresh\""),
        "{}",
        status("work")
    );
    assert!(status("work").contains("127.0.0.[2-3]"), "{}", status("work"));
    assert!(status("default").contains("127.0.0.*"), "{}", status("default"));

    let were = files(&story);
    let again = story.epithet(words).success().stdout;
    let bare = story
        .epithet(["setup", "--name", "work", "--yes"])
        .success()
        .stdout;
    assert_eq!(files(&story), were);
    for said in [again, bare] {
        assert!(
            said.contains("says it already") && said.contains("running already"),
            "{said}"
        );
    }
    // Without a CA of its own, a profile takes none of another's.
    let none = story.epithet(["setup", "--name", "third", "--yes"]);
    assert_eq!(none.code(), Some(1));
    assert!(
        none.stderr.contains("epithet setup --name third --ca-url"),
        "{}",
        none.stderr
    );
    story.epithet(["agent", "stop", "--name", "work"]).success();
}

#[test]
fn without_a_terminal_a_plugin_of_ones_own_logs_in_and_the_provider_s_login_waits() {
    let story = newcomer();
    let said = set_up(&story, &["--yes"]).success().stdout;
    assert!(said.contains("you are logged in"), "{said}");
    assert_eq!(story.status()["token"], "fresh");

    // A plugin that needs somebody is no failure of the set-up.
    let story = newcomer();
    let script = "#!/bin/sh\necho 'insert your card' >&2\nexit 1\n";
    let card = epithet_testkit::plugin_script(story.laptop.home.path(), "card", script);
    let auth = format!("--auth={}", card.display());
    let url = format!("--ca-url={}", story.site.url());
    let said = story.epithet(["setup", "--yes", &url, &auth]).success().stdout;
    assert!(
        said.contains("not logged in yet") && said.contains("insert your card"),
        "{said}"
    );
    assert!(said.contains("epithet login"), "{said}");

    // The site says how to log in; nobody would see the page.
    let story = newcomer();
    let url = format!("--ca-url={}", story.site.url());
    let said = story.epithet(["setup", "--yes", &url]).success().stdout;
    assert!(
        said.contains("not logged in yet, because there is no terminal"),
        "{said}"
    );
    assert_eq!(story.status()["token"], "none");
}

#[test]
fn a_section_on_one_line_is_left_alone_and_shown_as_it_has_to_be() {
    let story = newcomer();
    story
        .laptop
        .home
        .write(".epithet/config.yaml", "agent: {match: \"127.0.0.*\"}\n");
    let were = files(&story);
    let finished = set_up(&story, &["--yes"]);
    assert_eq!(finished.code(), Some(1));
    let line = format!(
        "agent: {{match: \"127.0.0.*\", ca-url: \"{}/\", auth: \"{}\"}}",
        story.site.url().trim_end_matches('/'),
        story.plugin.display()
    );
    assert!(
        finished.stderr.contains(&line),
        "{line} is not in:\n{}",
        finished.stderr
    );
    assert_eq!(files(&story), were);
    // Written as it was shown, it does.
    story
        .laptop
        .home
        .write(".epithet/config.yaml", format!("{line}\n"));
    set_up(&story, &["--yes"]).success();
    story.laptop.log_in("127.0.0.1");
}

#[test]
fn an_ssh_configuration_that_is_no_file_or_cannot_be_read_is_said_before_anything_is_written() {
    let story = newcomer();
    let path = ssh_config(&story);
    std::fs::remove_file(&path).unwrap();
    let mut command = story.laptop.home.command("mkfifo");
    command.arg(&path);
    Finished::of(command, DEADLINE).success();
    let finished = set_up(&story, &["--yes", "--no-login"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("is not a file\n"), "{}", finished.stderr);

    // A link to itself cannot be read, whoever asks.
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let finished = set_up(&story, &["--yes", "--no-login"]);
    assert_eq!(finished.code(), Some(1));
    let include = finished
        .stderr
        .lines()
        .find(|line| line.trim_start().starts_with("Include"));
    let include = include.expect("the line to copy").trim_end();
    assert!(
        include.ends_with("ssh-config.conf") || include.ends_with('"'),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("cannot be read ("),
        "{}",
        finished.stderr
    );
    assert!(!config(&story).exists());
}

#[test]
fn a_home_in_which_no_broker_can_start_is_said_before_anything_is_written() {
    let story = newcomer();
    for name in ["it's mine", "[a]"] {
        let home = story.laptop.home.join(name);
        std::fs::create_dir(&home).unwrap();
        let run = |words: &[&str]| {
            let mut command = story.laptop.epithet();
            command.args(words).env("HOME", &home);
            Finished::of(command, DEADLINE)
        };
        let flags = flags(&story);
        let words: Vec<_> = flags.iter().map(String::as_str).chain(["--yes"]).collect();
        let finished = run(&words);
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        for part in ["nothing was changed", "cannot be quoted", "use a path without"] {
            assert!(finished.stderr.contains(part), "{}", finished.stderr);
        }
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);

        std::fs::create_dir(home.join(".epithet")).unwrap();
        std::fs::write(
            home.join(".epithet/config.yaml"),
            format!("agent:\n  ca-url: {}\n", story.site.url()),
        )
        .unwrap();
        std::fs::create_dir(home.join(".ssh")).unwrap();
        let include = home.join(".epithet/run/*/ssh-config.conf");
        std::fs::write(
            home.join(".ssh/config"),
            format!("Include \"{}\"\n", include.display()),
        )
        .unwrap();
        let page = run(&["doctor"]);
        assert!(
            page.stdout.contains("the broker cannot start here: the path"),
            "{page:?}"
        );
    }
}
