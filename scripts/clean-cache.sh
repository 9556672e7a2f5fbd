#!/usr/bin/env bash
# Removes what the other scripts installed and built: nothing of theirs is elsewhere.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# A folder that is not ours would be lost if TRIMTAB_CACHE named it by mistake.
for part in envoy prometheus kubectl thriftpy2 python3-dubbo dubbo-node redis tools linters image cluster go go-toolchain target; do
  [[ -e "$TRIMTAB_CACHE/$part" ]] || continue
  say "removing $TRIMTAB_CACHE/$part"
  rm -rf "${TRIMTAB_CACHE:?}/$part"
done
