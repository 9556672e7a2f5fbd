#!/usr/bin/env bash
# Builds and publishes a release: image, charts, checksums and signatures.
#   release.sh --dry-run            builds all of it into $CARGO_TARGET_DIR/release-files and publishes nothing
#   release.sh REGISTRY TAG         publishes to REGISTRY, for example ghcr.io/example, for the tag vVERSION;
#                                   needs skopeo, helm and cosign on PATH, logged in to the registry
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$TRIMTAB_CACHE/target}"
OUT="$CARGO_TARGET_DIR/release-files"
VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)"
CHARTS=(trimtab-crds trimtab)

helm_bin() {
  command -v helm || find "$TRIMTAB_CACHE/cluster" -path '*/helm-*/helm' -type f 2>/dev/null | head -n 1
}

# Everything says the same version, or a cluster gets charts for another program.
check_versions() {
  local chart
  for chart in "${CHARTS[@]}"; do
    grep -qx "version: $VERSION" "$ROOT/charts/$chart/Chart.yaml" ||
      { fail "version $VERSION in charts/$chart/Chart.yaml" "write the version of Cargo.toml there"; return 1; }
  done
  [[ -z "${1:-}" || "$1" == "v$VERSION" ]] || fail "tag v$VERSION" "the tag is $1: tag the commit of version $VERSION, or change Cargo.toml"
}

build() {
  local chart helm
  helm="$(helm_bin)"
  [[ -n "$helm" ]] || { fail "helm" "put helm on PATH, or make deps"; return 1; }
  rm -rf "$OUT"
  mkdir -p "$OUT"
  "$ROOT/scripts/image.sh" "$OUT"
  for chart in "${CHARTS[@]}"; do
    "$helm" lint --quiet "$ROOT/charts/$chart"
    "$helm" package --destination "$OUT" "$ROOT/charts/$chart" >/dev/null
  done
  (cd "$OUT" && sha256sum ./*.tar ./*.tgz ./*.json >SHA256SUMS)
  say "release  $OUT:"
  sed 's/^/  /' "$OUT/SHA256SUMS"
}

# push REGISTRY: by digest, so that what is signed is what was pushed.
push() {
  local registry="$1" chart digest
  skopeo copy --digestfile "$OUT/digest" "oci:$OUT/oci:$VERSION" "docker://$registry/trimtab:$VERSION"
  digest="$(cat "$OUT/digest")"
  cosign sign --yes "$registry/trimtab@$digest"
  cosign attest --yes --type cyclonedx --predicate "$OUT/trimtab-$VERSION.cdx.json" "$registry/trimtab@$digest"
  for chart in "${CHARTS[@]}"; do
    "$(helm_bin)" push "$OUT/$chart-$VERSION.tgz" "oci://$registry/charts"
  done
}

case "${1:-}" in
  --dry-run)
    check_versions
    build
    say "nothing is published: this was a dry run"
    ;;
  "" | -*)
    say "usage: release.sh --dry-run | REGISTRY TAG" >&2
    exit 2
    ;;
  *)
    check_versions "${2:-}"
    build
    push "$1"
    ;;
esac
