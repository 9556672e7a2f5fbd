#!/usr/bin/env bash
# Prints the path of one tool: find.sh envoy|prometheus|kubectl|cargo-deny. Exit 1 when it is not there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
  envoy) find_envoy ;;
  prometheus) find_prometheus ;;
  kubectl) find_kubectl ;;
  cargo-deny) find_cargo_deny ;;
  *)
    say "usage: find.sh envoy|prometheus|kubectl|cargo-deny" >&2
    exit 2
    ;;
esac
