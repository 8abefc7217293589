//! A host is set up and looked at by `epithet host`, and real sshds and logins say whether it was right.

#![cfg(test)]

mod checking;
mod published_keys;
mod setting_up;
mod stage;
