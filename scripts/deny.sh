#!/usr/bin/env bash
# Licences, banned crates and sources of all dependencies; known vulnerabilities too when their database can be fetched.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

deny="$(find_cargo_deny)"
"$deny" --log-level error check licenses bans sources
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
# Fetched apart from the check, so that "no network" and "a vulnerable crate" cannot be taken for each other.
if timeout 60 "$deny" fetch db >"$log" 2>&1; then
  "$deny" --log-level error check --disable-fetch advisories
else
  say "advisories: NOT checked, the database cannot be fetched ($(grep -v '^ *$' "$log" | tail -n 1 | cut -c 1-160))"
fi
