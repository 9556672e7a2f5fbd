#!/usr/bin/env bash
# Runs a command with ENVOY_BIN, PROMETHEUS_BIN and KUBECTL set to the tools that deps.sh installed.
# A tool that is not there leaves its variable unset.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if path="$(find_envoy)"; then export ENVOY_BIN="$path"; fi
if path="$(find_prometheus)"; then export PROMETHEUS_BIN="$path"; fi
if path="$(find_kubectl)"; then export KUBECTL="$path"; fi
exec "$@"
