//! A host is set up and looked at by `epithet host`, and real sshds and logins say whether it was right.

#![cfg(test)]

mod accounts;
mod checking;
mod other_worlds;
mod published_keys;
mod setting_up;
mod stage;
mod systemd;
mod unwilling;
