//! Clients of the agent's socket that are not the newest OpenSSH: libraries, and an ssh that does not bind its
//! connections. Each logs in at a real sshd; none of them can lend the certificate to the host that it logs in to.

#![cfg(test)]

#[path = "../shared/laptop.rs"]
#[expect(dead_code, reason = "shared with other stories")]
mod laptop;
#[path = "../shared/site.rs"]
#[expect(dead_code, reason = "shared with other stories")]
mod site;

#[path = "../ssh_stories/support.rs"]
#[expect(dead_code, reason = "shared with other stories")]
mod support;

mod libraries;
mod old_ssh;
