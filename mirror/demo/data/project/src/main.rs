//! Reads a query string with crates that came through the mirror.

use std::hash::Hasher;

fn main() {
    let query = std::env::args().nth(1).unwrap_or_default();
    let mut hash = fnv::FnvHasher::default();
    let mut numbers = itoa::Buffer::new();
    let mut count = 0;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        hash.write(key.as_bytes());
        hash.write(value.as_bytes());
        count += 1;
    }
    let digest = hex::encode(hash.finish().to_be_bytes());
    println!("{} pairs, fnv {}", numbers.format(count), digest);
}
