#!/usr/bin/env bash
# What the set-ups of this folder share: a cache outside the tree, steps that are bounded, parts that are whole or absent.
# Sourced, not run.
# Needs: `here` (this folder), `who` (whose messages these are), `limit` (seconds for the whole).

base=${XDG_CACHE_HOME:-${HOME:?needed for the cache, or XDG_CACHE_HOME}/.cache}/rollcall-lab

# hash FILE...: ten digits over names and contents.
hash() { (cd "${here:?}" && sha256sum "$@" | sha256sum | head -c 10); }

say() { echo "${who:?}: $*" >&2; }
# Part -> why it could not be had.
declare -A skipped=()
skip() {
    # shellcheck disable=SC2034 # read by whoever sources this
    skipped[$1]=$2
    say "skipping $1: $2"
}

# bounded SECONDS COMMAND...: within that time, and within what is left of the whole.
bounded() {
    local left=$((${limit:?} - SECONDS)) seconds=$1
    shift
    [ "$left" -gt 0 ] || { echo "the time is up (E2E_SETUP_SECONDS=$limit)" >&2; return 124; }
    local code=0
    timeout --kill-after=10 $((seconds < left ? seconds : left)) "$@" || code=$?
    [ "$code" -ne 124 ] || echo "not done within $((seconds < left ? seconds : left)) s: $*" >&2
    return "$code"
}

# make DIR PART FUNCTION: runs `FUNCTION TEMPORARY`, and puts the folder in place only when it succeeded.
make_part() {
    local dir=$1 part=$2 build=$3 started=$SECONDS
    [ -d "$dir" ] && return 0
    say "getting $part"
    # What an interrupted setup left: we hold the lock, so nobody is at it.
    rm -rf "$dir".??????
    local temporary
    temporary=$(mktemp -d "$dir.XXXXXX")
    if (set -e; "$build" "$temporary") >"$base/$part.log" 2>&1; then
        chmod 755 "$temporary"
        mv -T "$temporary" "$dir"
        say "$part made in $((SECONDS - started)) s"
    else
        rm -rf "$temporary"
        skip "$part" "failed, see $base/$part.log: $(tail -n 1 "$base/$part.log" | cut -c -200)"
    fi
}

# The steps of a build function are chained with `&&`, because `set -e` does not reach into a function called in a condition.
# `go` obeys the caller's GOFLAGS, GOMAXPROCS, GOPROXY and caches.
go_build() {
    local module=$1 out=$2 package=$3 ldflags=$4
    (cd "${here:?}/$module" && CGO_ENABLED=0 bounded 1200 go build -mod=readonly -buildvcs=false -trimpath \
        -ldflags "-s -w $ldflags" -o "$out" "$package")
}

# One set-up at a time. Takes $base/lock, for as long as this shell lives.
take_lock() {
    mkdir -p "$base"
    exec 9>"$base/lock"
    flock -n 9 || { say "waiting for another setup, which holds $base/lock"; flock -w 1500 9; } ||
        { say "another setup has held $base/lock for 25 minutes"; exit 1; }
    SECONDS=0
}
