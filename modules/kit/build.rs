//! Generates the metric discovery service. No `protoc` is needed: the compiler is a build dependency.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let file = "trimtab/mds/v1alpha1/mds.proto";
    println!("cargo:rerun-if-changed=proto/{file}");
    let descriptors = protox::compile([file], ["proto"])?;
    // The two well-known types are compiled too, which is smaller than one more dependency.
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .include_file("mds_protos.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
