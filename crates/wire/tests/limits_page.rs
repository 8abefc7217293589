//! The page about limits names every limit.

const SOURCE: &str = include_str!("../src/limits.rs");
const PAGE: &str = include_str!("../../../docs/limits.md");

#[test]
fn every_limit_is_on_the_page_and_nothing_else_is() {
    let declared = SOURCE
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let listed = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(declared.collect::<Vec<_>>(), listed.collect::<Vec<_>>());
}
