#!/usr/bin/env bash
# Tests what `make image` built: its binary is the one that the end-to-end tests run.
#   test-image.sh           unpacks the image and runs the tests
#   test-image.sh --twice   builds it once more, from a copy of the sources in another folder, and compares every byte
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$TRIMTAB_CACHE/target}"
IMAGE="$CARGO_TARGET_DIR/image"
VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)"

twice() {
  local work result=0
  work="$(mktemp -d)"
  git clone --quiet "$ROOT" "$work/sources"
  CARGO_TARGET_DIR="$work/target" "$work/sources/scripts/image.sh" "$work/image"
  diff -r "$IMAGE" "$work/image" || result=$?
  rm -rf "$work"
  [[ "$result" == 0 ]] || { fail "two equal builds" "see the differences above; both must be of the same commit"; return 1; }
  say "both builds are equal"
}

unpacked() {
  local work
  work="$(mktemp -d)"
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  "$TRIMTAB_CACHE/image/usr/bin/umoci" unpack --rootless --image "$IMAGE/oci:$VERSION" "$work/bundle"
  cd "$ROOT"
  TRIMTAB_BIN="$work/bundle/rootfs/usr/local/bin/trimtab" scripts/with-tools.sh cargo test -p trimtab --test e2e
}

[[ -d "$IMAGE/oci" ]] || fail "$IMAGE/oci" "make image"
case "${1:-}" in
  --twice) twice ;;
  "") unpacked ;;
  *)
    say "usage: test-image.sh [--twice]" >&2
    exit 2
    ;;
esac
