//! Compiles the descriptors of the messages that proxies are served.

use std::error::Error;
use std::path::Path;

use prost::Message;

/// Listeners, clusters, endpoints and HTTP routes: only their descriptors are used.
const FILES: [&str; 5] = [
    "listener.proto",
    "cluster.proto",
    "endpoint.proto",
    "route.proto",
    "typed_struct.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    Ok(())
}
