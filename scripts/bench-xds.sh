#!/usr/bin/env bash
# Builds the xDS benchmark and its peer, go-control-plane, and runs it: scripts/bench-xds.sh [--quick] [--only X1]...
# The results go to target/bench/xds.json.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
OUT="$ROOT/target/bench"
# Each of three servers has up to 5,000 connections, whose other ends are all in one process.
FILES=16000

# The go command of the system, or the one that `make cluster` fetched.
find_go() {
  command -v go && return 0
  [[ -x "$TRIMTAB_CACHE/go-toolchain/bin/go" ]] && say "$TRIMTAB_CACHE/go-toolchain/bin/go"
}

build_peer() {
  local go
  go="$(find_go)" || fail "Go 1.21 or newer (to build go-control-plane)" "install Go from https://go.dev/dl, or run make deps"
  mkdir -p "$OUT"
  (cd "$ROOT/bench/xds/peer-go" && GOMODCACHE="$TRIMTAB_CACHE/go/mod" GOCACHE="$TRIMTAB_CACHE/go/build" GOFLAGS=-modcacherw \
    "$go" build -trimpath -o "$OUT/xds-peer" .)
}

if (($(ulimit -n) < FILES)) && ! ulimit -n "$FILES"; then
  fail "$FILES open files (the limit is $(ulimit -n))" "raise it with ulimit -n $FILES"
fi
build_peer
cargo build --release -q -p trimtab-bench-xds --manifest-path "$ROOT/Cargo.toml"
exec "${CARGO_TARGET_DIR:-$ROOT/target}/release/bench-xds" run --peer "$OUT/xds-peer" --out "$OUT/xds.json" "$@"
