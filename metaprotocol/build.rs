//! Generates the messages of Aeraki's proxies. Envoy's own messages come from `envoy-types`.

use std::error::Error;
use std::path::Path;

use prost::Message;

const FILES: [&str; 8] = [
    "aeraki/meta_protocol/codec.proto",
    "aeraki/meta_protocol_proxy/admin/v1alpha/config_dump.proto",
    "aeraki/meta_protocol_proxy/filters/istio_stats/v1alpha/istio_stats.proto",
    "aeraki/meta_protocol_proxy/filters/local_ratelimit/v1alpha/local_ratelimit.proto",
    "aeraki/meta_protocol_proxy/filters/metadata_exchange/v1alpha/metadata_exchange.proto",
    "aeraki/meta_protocol_proxy/filters/ratelimit/v1alpha/ratelimit.proto",
    "aeraki/meta_protocol_proxy/filters/router/v1alpha/router.proto",
    "aeraki/meta_protocol_proxy/v1alpha/meta_protocol_proxy.proto",
];
// For the check of configurations inside an Any; no message of ours names it.
const CHECKED: &str = "envoy/used.extensions.access_loggers.file.v3.proto";
// Routes of Envoy's own filters: only their descriptors are used.
const STOCK: [&str; 6] = [
    "thrift.proto",
    "dubbo.proto",
    "generic.proto",
    "generic_action.proto",
    "generic_matcher.proto",
    "typed_struct.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES.into_iter().chain([CHECKED]), ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    let stock = protox::compile(STOCK, ["proto/stock"])?;
    std::fs::write(Path::new(&out).join("stock.bin"), stock.encode_to_vec())?;
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .extern_path(".envoy", "::envoy_types::pb::envoy")
        .include_file("aeraki_protos.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
