//! What ssh is about to do, read from its command line: `ssh -G` and `ssh -O` log in nowhere, so nothing has to be got
//! for them.

use epithet_wire::broker::Purpose;

/// ssh's options that take a value (`getopt` in OpenSSH `ssh.c`, 8.0 to 10.2).
const WITH_VALUE: &[u8] = b"BDEFIJLOPQRSWbceilmopw";

/// Reads the words of ssh's command line, its own name first.
///
/// ssh reads options before and after the host; what follows after that is the remote command. A command line that is
/// not ssh's, or that cannot be read, is one that connects.
pub(crate) fn purpose(words: &[String]) -> Purpose {
    let mut words = words.iter().skip(1);
    let mut found = Purpose::Connect;
    let mut host_seen = false;
    while let Some(word) = words.next() {
        let options = match word.as_bytes() {
            // After `--`, the first word is the host and the rest the command.
            b"--" => break,
            [b'-', options @ ..] if !options.is_empty() => options,
            _ if host_seen => break,
            _ => {
                host_seen = true;
                continue;
            }
        };
        for (place, option) in options.iter().enumerate() {
            match option {
                b'G' => return Purpose::Print,
                b'O' => found = Purpose::Control,
                _ => {}
            }
            if WITH_VALUE.contains(option) {
                if place + 1 == options.len() {
                    words.next();
                }
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_s_command_line_tells_what_it_is_about_to_do() {
        let cases = [
            ("ssh web", Purpose::Connect),
            ("ssh -G web", Purpose::Print),
            ("ssh web -G", Purpose::Print),
            ("/usr/bin/ssh -vvG -p 22 web", Purpose::Print),
            ("ssh -F config -G web", Purpose::Print),
            ("ssh -O check web", Purpose::Control),
            ("ssh -Ocheck web", Purpose::Control),
            ("ssh -S path -O exit web", Purpose::Control),
            ("ssh web -O stop", Purpose::Control),
            // Values and remote commands are not options of ssh's.
            ("ssh -l -G web", Purpose::Connect),
            ("ssh -o -G web", Purpose::Connect),
            ("ssh -lG web", Purpose::Connect),
            ("ssh -i -O web", Purpose::Connect),
            ("ssh web ls -G", Purpose::Connect),
            ("ssh web ls -O check", Purpose::Connect),
            ("ssh -- web -G", Purpose::Connect),
            ("ssh -t web -v tmux -G", Purpose::Connect),
            ("sh -c ssh", Purpose::Connect),
            ("ssh -", Purpose::Connect),
            ("ssh", Purpose::Connect),
            ("", Purpose::Connect),
        ];
        for (line, expected) in cases {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(purpose(&words), expected, "{line}");
        }
    }
}
