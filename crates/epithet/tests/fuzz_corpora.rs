//! The fuzzers' corpora, replayed: what a fuzzer once reached stays as it should be, without a fuzzer.

#![cfg(test)]

#[path = "../../../fuzz/src/targets.rs"]
#[expect(dead_code, reason = "the fuzzers call targets by their names")]
mod targets;

use std::path::Path;

#[test]
fn every_input_of_the_corpora_holds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let corpus = corpora.join(name);
        let entries =
            std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
        let mut inputs = 0;
        for entry in entries {
            let path = entry.expect("a file").path();
            let bytes = std::fs::read(&path).expect("a file that can be read");
            assert!(
                bytes.len() <= 16 * 1024,
                "{} is too large to be kept",
                path.display()
            );
            if let Err(panic) = std::panic::catch_unwind(|| target(&bytes)) {
                eprintln!("{} does not hold", path.display());
                std::panic::resume_unwind(panic);
            }
            inputs += 1;
        }
        assert!(inputs >= 3, "{name} has {inputs} inputs");
    }
}

#[test]
fn every_target_has_a_program_of_its_name() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut found: Vec<String> = std::fs::read_dir(programs)
        .expect("the programs")
        .map(|entry| {
            entry
                .expect("a file")
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let mut named: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    found.sort_unstable();
    named.sort_unstable();
    assert_eq!(found, named);
}
