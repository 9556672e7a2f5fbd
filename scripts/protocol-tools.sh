#!/usr/bin/env bash
# Installs the clients and servers of the protocol tests, once, into $TRIMTAB_CACHE (default ~/.cache/trimtab):
#   thriftpy2     Thrift client and server, from PyPI
#   python3-dubbo Dubbo client, from PyPI
#   dubbo-node    Dubbo server (dubbo-remoting) and client (dubbo2.js), from npm
#   redis         redis-server and redis-cli, unpacked from Debian's packages
# Nothing outside of that folder is changed.
# Each is pinned: the tests count calls, and another release may retry or reconnect at other times.
#   protocol-tools.sh [--optional]   with --optional a tool that cannot be installed is only reported
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

THRIFTPY2_VERSION=0.7.1
PYTHON3_DUBBO_VERSION=0.0.8
DUBBO_REMOTING_VERSION=2.1.4
HESSIAN_JS_VERSION=2.11.0
DUBBO2_JS_VERSION=2.3.9

# has_wheel ENVIRONMENT PACKAGE VERSION: whether that very release is installed.
has_wheel() {
  local info
  for info in "$TRIMTAB_CACHE/$1"/lib/python3*/site-packages/"$2-$3".dist-info; do
    [[ -d "$info" ]] && return 0
  done
  return 1
}

need_thriftpy2() {
  has_wheel thriftpy2 thriftpy2 "$THRIFTPY2_VERSION" && return 0
  say "thriftpy2 $THRIFTPY2_VERSION: installing from PyPI into $TRIMTAB_CACHE/thriftpy2"
  pip_install thriftpy2 "thriftpy2==$THRIFTPY2_VERSION" && has_wheel thriftpy2 thriftpy2 "$THRIFTPY2_VERSION"
}

need_python3_dubbo() {
  has_wheel python3-dubbo python3_dubbo "$PYTHON3_DUBBO_VERSION" && return 0
  say "python3-dubbo $PYTHON3_DUBBO_VERSION: installing from PyPI into $TRIMTAB_CACHE/python3-dubbo"
  pip_install python3-dubbo "python3-dubbo==$PYTHON3_DUBBO_VERSION" &&
    has_wheel python3-dubbo python3_dubbo "$PYTHON3_DUBBO_VERSION"
}

# has_module NAME VERSION: whether npm installed that very release.
has_module() {
  local file="$TRIMTAB_CACHE/dubbo-node/node_modules/$1/package.json"
  [[ -f "$file" ]] && grep -q "\"version\": *\"$2\"" "$file"
}

has_modules() {
  has_module dubbo-remoting "$DUBBO_REMOTING_VERSION" &&
    has_module hessian.js "$HESSIAN_JS_VERSION" &&
    has_module dubbo2.js "$DUBBO2_JS_VERSION"
}

need_dubbo_node() {
  has_modules && return 0
  if ! command -v npm >/dev/null; then
    fail "npm (to fetch dubbo-remoting and dubbo2.js)" "install Node.js 18 or newer, e.g. apt-get install nodejs npm"
    return 1
  fi
  local folder="$TRIMTAB_CACHE/dubbo-node" log
  log="$(mktemp)"
  say "dubbo-remoting $DUBBO_REMOTING_VERSION, dubbo2.js $DUBBO2_JS_VERSION: installing from npm into $folder"
  mkdir -p "$folder"
  # A file of our own keeps npm from looking for a project in the folders above.
  printf '{"private": true}\n' >"$folder/package.json"
  if ! npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --save-exact \
    "dubbo-remoting@$DUBBO_REMOTING_VERSION" "hessian.js@$HESSIAN_JS_VERSION" "dubbo2.js@$DUBBO2_JS_VERSION" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    fail "dubbo-remoting and dubbo2.js from npm" "see the lines above; access to an npm registry is needed"
    return 1
  fi
  rm -f "$log"
  has_modules
}

find_redis() {
  if [[ -x "$TRIMTAB_CACHE/redis/usr/bin/redis-server" && -x "$TRIMTAB_CACHE/redis/usr/bin/redis-cli" ]]; then
    return 0
  fi
  command -v redis-server >/dev/null && command -v redis-cli >/dev/null
}

# The programs need libraries that a base system may lack; they are beside them, and scripts of the programs' names say where.
redis_unpacked() {
  local bin="$TRIMTAB_CACHE/redis/usr/bin" program
  rm -rf "$TRIMTAB_CACHE/redis"
  unpack_debian redis redis-server redis-tools libatomic1 libjemalloc2 liblzf1 || return 1
  # redis-server is a link to redis-check-rdb: one program, which goes by its name.
  mkdir -p "$bin/programs"
  cp "$bin/redis-check-rdb" "$bin/programs/redis-server"
  mv "$bin/redis-cli" "$bin/programs/redis-cli"
  for program in redis-server redis-cli; do
    rm -f "${bin:?}/$program"
    cat >"$bin/$program" <<'SCRIPT'
#!/bin/sh
here="$(dirname "$(readlink -f "$0")")"
libraries="$(echo "$here"/../lib/*-linux-gnu)"
LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/programs/$(basename "$0")" "$@"
SCRIPT
    chmod +x "$bin/$program"
  done
}

need_redis() {
  find_redis && return 0
  if ! command -v apt-get >/dev/null; then
    fail "redis-server" "this system has no apt-get: install Redis 6 or newer with redis-cli and put both on PATH"
    return 1
  fi
  say "redis-server: unpacking the Debian packages into $TRIMTAB_CACHE/redis (not installed: no service, no root)"
  redis_unpacked || true
  find_redis || fail "redis-server" "see the lines above and try again, or put a Redis 6 or newer with redis-cli on PATH"
}

main() {
  local optional=no missing=0 tool
  case "${1:-}" in
    "") ;;
    --optional) optional=yes ;;
    *)
      say "usage: protocol-tools.sh [--optional]" >&2
      exit 2
      ;;
  esac
  mkdir -p "$TRIMTAB_CACHE"
  for tool in thriftpy2 python3_dubbo dubbo_node redis; do
    "need_$tool" || missing=$((missing + 1))
  done
  if [[ "$missing" -gt 0 && "$optional" == yes ]]; then
    say "going on without: what needs the missing tools is left out"
  elif [[ "$missing" -gt 0 ]]; then
    exit 1
  fi
}

main "$@"
