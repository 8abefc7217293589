#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| epithet_fuzz::run("client_config", bytes));
