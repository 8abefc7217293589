//! People whose ssh configuration names another agent, or none but certain keys, for every host.

use crate::support::Story;

impl Story {
    /// The person's configuration: ours at the top, the host, and `more` below.
    fn ssh_below(&self, more: &str) {
        self.laptop.ssh_config(&format!(
            "Host 127.0.0.* localhost\n  Port {}\n  User {}\n  KexAlgorithms curve25519-sha256\n\n{more}",
            self.sshd.port(),
            self.laptop.home.user().name()
        ));
    }

    fn doctor(&self) -> epithet_testkit::Finished {
        let config = self.laptop.home.join(".ssh/config").display().to_string();
        self.epithet(["doctor", "--ssh-config", &config])
    }
}

#[test]
fn a_line_that_takes_the_effect_of_ours_is_found_and_the_remedy_that_is_said_works() {
    let story = Story::begin();
    story.in_background();
    let other = story.laptop.home.join("other-agent.sock");
    let agent = format!("IdentityAgent {}", other.display());
    let config = story.laptop.home.join(".ssh/config").display().to_string();
    for (line, keyword) in [
        (agent.as_str(), "IdentityAgent"),
        ("IdentitiesOnly yes", "IdentitiesOnly"),
    ] {
        story.ssh_below(&format!("Host *\n  {line}\n"));

        let doctor = story.doctor();
        assert_eq!(doctor.code(), Some(2), "{keyword}: {}", doctor.stdout);
        let flat = doctor.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = std::fs::read_to_string(&config).unwrap();
        let at = text
            .lines()
            .position(|found| found.trim() == line)
            .expect("it was written")
            + 1;
        for words in [keyword, &format!("move line {at}"), "`Match final all`"] {
            assert!(flat.contains(words), "{words} is not in:\n{}", doctor.stdout);
        }
        let setup = story.epithet(["setup", "--yes", "--no-login", "--ssh-config", &config]);
        assert_eq!(setup.code(), Some(1), "{}", setup.stdout);
        assert!(!setup.stdout.contains("Set up"), "{}", setup.stdout);
        assert!(setup.stderr.contains("Match final all"), "{}", setup.stderr);

        story.ssh_below(&format!("Match final all\n  {line}\n"));
        let doctor = story.doctor();
        assert!(
            doctor.stdout.contains("asks the broker about"),
            "{keyword}: {}",
            doctor.stdout
        );
        story.laptop.log_in("127.0.0.1");
        let elsewhere = story.laptop.run_ssh(["-G", "other.example.com"]).success().stdout;
        assert!(
            elsewhere.contains(&line.replacen(keyword, &keyword.to_ascii_lowercase(), 1)),
            "{elsewhere}"
        );
        story
            .epithet(["setup", "--yes", "--no-login", "--ssh-config", &config])
            .success();
    }
}
