//! `ForwardAgent yes` hands the connection's own agent to the remote host. That host must get nothing from it.

use crate::support::Story;
use epithet_testkit::{Finished, Sshd};

/// What a curious remote host tries with the agent that it was given: list, log in further, sign a file.
fn curious(story: &Story, behind: &Sshd) -> String {
    let home = &story.laptop.home;
    home.trust(behind);
    format!(
        "test -S \"$SSH_AUTH_SOCK\" && echo has an agent; ssh-add -L; echo list $?; \
         ssh -F {config} -o IdentityAgent=SSH_AUTH_SOCK -o IdentityFile=none -p {port} -l {user} 127.0.0.1 echo got further; \
         echo login $?; \
         echo text | ssh-keygen -Y sign -n file -f {certificate}; echo signature $?",
        config = home.join(".ssh/remote-config").display(),
        port = behind.port(),
        user = home.user().name(),
        certificate = home.join("certificate.pub").display(),
    )
}

/// Logs in with a forwarded agent and lets the host try it. The host's own ssh knows nothing of Epithet.
fn forwarded(story: &Story, behind: &Sshd) -> Finished {
    let home = &story.laptop.home;
    let known_hosts = home.join(".ssh/known_hosts");
    home.write(
        ".ssh/remote-config",
        format!(
            "UserKnownHostsFile {}\nBatchMode yes\nKexAlgorithms curve25519-sha256\n",
            known_hosts.display()
        ),
    );
    let script = curious(story, behind);
    story.laptop.run_ssh(["-A", "127.0.0.1", &script])
}

#[test]
fn a_remote_host_can_neither_list_nor_log_in_nor_sign_with_a_forwarded_agent() {
    let story = Story::begin();
    let broker = story.broker();
    let behind = story.site.host(&story.laptop.other_key);
    story.laptop.log_in("127.0.0.1");
    // The remote host has even been told which certificate it is.
    assert_eq!(story.laptop.certificates(&broker).len(), 1);

    let finished = forwarded(&story, &behind);

    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("has an agent"), "{said}");
    assert!(finished.stdout.contains("The agent has no identities."), "{said}");
    for line in ["list 1", "login 255", "signature 255"] {
        assert!(finished.stdout.contains(line), "{line} is not in: {said}");
    }
    assert!(!said.contains("got further"), "{said}");
    assert!(!behind.log().contains("Accepted"), "{}", behind.log());
}

#[test]
fn a_person_who_allows_it_can_log_in_further_as_the_same_user_and_still_sign_nothing_else() {
    let story = Story::begin();
    let broker = story.broker_with(["--match", "127.0.0.*", "--allow-forwarding"]);
    let behind = story.site.host(&story.laptop.other_key);
    story.laptop.log_in("127.0.0.1");
    assert_eq!(story.laptop.certificates(&broker).len(), 1);

    let finished = forwarded(&story, &behind);

    let said = format!("{}{}", finished.stdout, finished.stderr);
    for line in ["list 0", "got further", "login 0", "signature 255"] {
        assert!(finished.stdout.contains(line), "{line} is not in: {said}");
    }
    behind.wait_for_log("Accepted publickey");
}
