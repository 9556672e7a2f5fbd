#!/usr/bin/env bash
# Builds the container image without Docker, and without root: a static binary, an OCI image layout, an archive for
# `docker load`, `podman load` and `kind load image-archive`, and a bill of materials. The same sources should give the same bytes:
# test-image.sh --twice compares two builds.
#   image.sh [FOLDER]   writes FOLDER/{oci,trimtab-VERSION.tar,trimtab-VERSION.cdx.json}; default $CARGO_TARGET_DIR/image
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$TRIMTAB_CACHE/target}"
OUT="${1:-$CARGO_TARGET_DIR/image}"
TARGET="$(uname -m)-unknown-linux-gnu"
VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)"
# Times in the image are that of the last commit.
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
CREATED="$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
REVISION="$(git -C "$ROOT" rev-parse HEAD)"
# Of the image and of the pod in the chart.
USER_ID=65532

need_umoci() {
  [[ -x "$TRIMTAB_CACHE/image/usr/bin/umoci" ]] && return 0
  say "umoci and ca-certificates: unpacking the Debian packages into $TRIMTAB_CACHE/image (not installed)"
  unpack_debian image umoci ca-certificates || fail "umoci" "a system with apt-get is needed to build the image; or use the Dockerfile"
}

need_cyclonedx() {
  [[ -x "$TRIMTAB_CACHE/tools/bin/cargo-cyclonedx" ]] && return 0
  say "cargo-cyclonedx: building it into $TRIMTAB_CACHE/tools (some minutes, once)"
  CARGO_TARGET_DIR="$TRIMTAB_CACHE/tools/build" cargo install --quiet --locked cargo-cyclonedx --root "$TRIMTAB_CACHE/tools" ||
    { fail "cargo-cyclonedx" "cargo install --locked cargo-cyclonedx"; return 1; }
  rm -rf "$TRIMTAB_CACHE/tools/build"
}

# With a target named, the flags are not for build scripts and macros, which cannot be static. Paths of this machine stay out.
build_binary() {
  local home="${CARGO_HOME:-$HOME/.cargo}" maps
  maps="--remap-path-prefix=$ROOT=/src --remap-path-prefix=$home=/cargo --remap-path-prefix=$CARGO_TARGET_DIR=/target"
  say "trimtab $VERSION: building a static binary for $TARGET (some minutes)"
  (
    cd "$ROOT"
    TRIMTAB_COMMIT="$REVISION" RUSTFLAGS="-C target-feature=+crt-static $maps" CFLAGS="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$CARGO_TARGET_DIR=/target" \
      cargo build --quiet --locked --profile dist --target "$TARGET" --package trimtab
  )
  BINARY="$CARGO_TARGET_DIR/$TARGET/dist/trimtab"
}

build_sbom() {
  local made="$ROOT/operator/trimtab.cdx.json"
  (cd "$ROOT" && "$TRIMTAB_CACHE/tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --target "$TARGET" --spec-version 1.5 \
    --manifest-path operator/Cargo.toml --override-filename trimtab.cdx)
  find "$ROOT" -name 'trimtab.cdx.json' -not -path "$made" -delete
  sed "s|$ROOT|/src|g" "$made" >"$OUT/trimtab-$VERSION.cdx.json"
  rm -f "$made"
}

build_files() {
  local files="$1"
  install -D -m 0755 "$BINARY" "$files/usr/local/bin/trimtab"
  install -D -m 0644 "$ROOT/LICENSE" "$files/usr/share/doc/trimtab/LICENSE"
  install -D -m 0644 "$OUT/trimtab-$VERSION.cdx.json" "$files/usr/share/doc/trimtab/sbom.cdx.json"
  mkdir -p "$files/etc/ssl/certs"
  # For a Prometheus behind a public certificate.
  find "$TRIMTAB_CACHE/image/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs cat >"$files/etc/ssl/certs/ca-certificates.crt"
  printf 'trimtab:x:%s:%s::/:/sbin/nologin\n' "$USER_ID" "$USER_ID" >"$files/etc/passwd"
  printf 'trimtab:x:%s:\n' "$USER_ID" >"$files/etc/group"
}

# tar_of FOLDER ARCHIVE NAME...: the same bytes for the same content.
tar_of() {
  local folder="$1" archive="$2"
  shift 2
  tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar -C "$folder" -cf "$archive" "$@"
}

build_layout() {
  local work="$1" layout="$OUT/oci" image umoci="$TRIMTAB_CACHE/image/usr/bin/umoci"
  image="$layout:$VERSION"
  rm -rf "$layout"
  tar_of "$work/files" "$work/layer.tar" .
  "$umoci" init --layout "$layout"
  "$umoci" new --image "$image"
  "$umoci" raw add-layer --image "$image" --history.created "$CREATED" --history.created_by "scripts/image.sh" "$work/layer.tar"
  "$umoci" config --image "$image" --created "$CREATED" --history.created "$CREATED" --history.created_by "scripts/image.sh" \
    --config.user "$USER_ID:$USER_ID" --config.entrypoint /usr/local/bin/trimtab --config.workingdir / \
    --config.label "org.opencontainers.image.title=trimtab" \
    --config.label "org.opencontainers.image.description=Management plane for Istio" \
    --config.label "org.opencontainers.image.version=$VERSION" \
    --config.label "org.opencontainers.image.revision=$REVISION" \
    --config.label "org.opencontainers.image.created=$CREATED" \
    --config.label "org.opencontainers.image.licenses=Apache-2.0"
  "$umoci" gc --layout "$layout"
}

# Docker before version 25 reads manifest.json, newer ones and the others index.json; both are in one archive.
build_archive() {
  local work="$1"
  python3 - "$OUT/oci" "docker.io/library/trimtab:$VERSION" >"$work/manifest.json" <<'PYTHON'
import json, os, sys
layout, tag = sys.argv[1:]
blob = lambda digest: "blobs/" + digest.replace(":", "/")
read = lambda name: json.load(open(os.path.join(layout, name)))
manifest = read(blob(read("index.json")["manifests"][0]["digest"]))
layers = [blob(layer["digest"]) for layer in manifest["layers"]]
print(json.dumps([{"Config": blob(manifest["config"]["digest"]), "RepoTags": [tag], "Layers": layers}]))
PYTHON
  cp -r "$OUT/oci" "$work/archive"
  cp "$work/manifest.json" "$work/archive/"
  chmod -R u+rwX,go+rX "$work/archive"
  tar_of "$work/archive" "$OUT/trimtab-$VERSION.tar" blobs index.json manifest.json oci-layout
}

main() {
  local work
  mkdir -p "$OUT"
  need_umoci
  need_cyclonedx
  build_binary
  build_sbom
  work="$(mktemp -d)"
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  mkdir "$work/files"
  build_files "$work/files"
  build_layout "$work"
  build_archive "$work"
  say "binary   $(stat -c %s "$BINARY") bytes"
  say "image    $(du -sb "$OUT/oci" | cut -f 1) bytes, $OUT/oci (OCI layout, tag $VERSION)"
  say "archive  $OUT/trimtab-$VERSION.tar (docker load -i, podman load -i, kind load image-archive)"
  say "sha256   $(sha256sum "$OUT/trimtab-$VERSION.tar" | cut -d ' ' -f 1)"
}

main
