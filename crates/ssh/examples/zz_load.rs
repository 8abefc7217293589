//! temporary
use epithet_ssh::CaKey;
fn main() {
    for path in std::env::args().skip(1) {
        if let Err(error) = CaKey::load(&path, || None) {
            eprintln!("{path}: {error:?}");
        }
    }
}
