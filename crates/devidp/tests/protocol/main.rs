//! The provider from outside, with nothing but HTTP: what a client that knows the RFCs would see.

#![cfg(test)]

mod app;
mod device;
mod login;
mod provider;
mod tokens;
