//! What `--help` says besides options: examples, exit codes, environment.

/// Of the program.
pub const TRIMTAB: &str = "\
Examples:
  trimtab run --config config.yaml                    in a cluster, or with KUBECONFIG
  trimtab run --standalone objects                    without one, on a folder of YAML files
  trimtab translate -f objects --metric cpu=0.85      what would be written, and why
  trimtab check                                       what is wrong with a cluster
  trimtab describe servicefence reviews -n shop       what is in force, from a running operator

Exit codes: 0 well; 1 an object is refused, differs, or something failed; 2 wrong usage.
Environment: RUST_LOG sets what is logged, e.g. RUST_LOG=info,trimtab_limiter=debug; KUBECONFIG names the cluster.
Documents: README.md and docs/ of the source; the HTTP port has a status page at / and its API at /api/v1.";

/// Of `run`.
pub const RUN: &str = "\
Examples:
  trimtab run --config config.yaml
  trimtab run --standalone objects --out generated --serve-api 127.0.0.1:8001

Ctrl-C or SIGTERM stops it in order, a second one at once. Exit code 1: it could not start, or a part of it ended.
The configuration file is followed; keys that need a restart are logged. docs/configuration.md has all keys.";

/// Of `translate`.
pub const TRANSLATE: &str = "\
Example:
  trimtab translate -f examples/quickstart --metric cpu=0.85

Objects go to standard output, decisions and mistakes to standard error. Exit code 1: an object is refused.";

/// Of `bootstrap`.
pub const BOOTSTRAP: &str = "\
Example:
  trimtab bootstrap --node reviews-1 --xds 127.0.0.1:15010 > envoy.yaml && envoy -c envoy.yaml";

/// Of `aeraki-bootstrap`.
pub const AERAKI: &str = "\
Example:
  trimtab aeraki-bootstrap | kubectl apply -f -";

/// Of `fallback`.
pub const FALLBACK: &str = "\
Example:
  trimtab fallback --config config.yaml | kubectl apply -f -";

/// Of `describe`.
pub const DESCRIBE: &str = "\
Examples:
  trimtab describe metarouter thrift-demo -n shop --attribute method=sayHello
  trimtab describe pod front-5f6c -n shop -f objects          from files, without an operator

Exit code 1: there is no such object, or a file has an object that is refused.";

/// Of `check`.
pub const CHECK: &str = "\
Examples:
  trimtab check                                before and after helm install, with a kubeconfig
  trimtab check --config config.yaml -o json   also asks the metric sources of the file from here

Exit codes: 0 nothing as bad as --failure-threshold was found; 1 something was; 2 there is nothing to check, or wrong usage.
docs/check.md has each code: what it means and what to do.";

/// Of `version`.
pub const VERSION: &str = "\
Example:
  trimtab version --server                     also that of the operator, by a port-forward of the command's own

Exit code 1: the operator does not answer.";

/// Of `xds`.
pub const XDS: &str = "\
Examples:
  trimtab xds nodes
  trimtab xds diff reviews-1.shop";

/// Of `migrate`.
pub const MIGRATE: &str = "\
Examples:
  trimtab migrate slime --values values.yaml                reads the cluster of the kubeconfig
  trimtab migrate aeraki -f saved                           reads files
  trimtab migrate istio-ratelimit -f limits > limiters.yaml
  trimtab migrate ambient -f objects

It reads, prints, and changes nothing. Exit code 1: something could not be read, or a limit could not be expressed.";

/// Of `crds`.
pub const CRDS: &str = "\
Example:
  trimtab crds | kubectl apply --server-side -f -

With --first-form, `smartlimiters` is the original API for kubectl, and `sml` the present one.";

/// Of `prove-limit`.
pub const PROVE: &str = "\
Example:
  trimtab prove-limit http://orders.shop/ --allowed 5 --within 1m

Rounds of 20 requests, one after the other. The limit holds when requests passed before, no more than --allowed of a round
pass, and the others are answered with 429. Exit code 1: not in time; the message says what was seen.";

/// Of `completions`.
pub const COMPLETIONS: &str = "\
Example:
  source <(trimtab completions bash)";
