# shellcheck shell=bash
# common.sh: what the scripts of the test host share. Sourced, never run.
# Where the cache is, how an artefact is built once under a lock and renamed into place, how old ones go,
# and where apt finds its packages.

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" LC_ALL=C.UTF-8
umask 022
host_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top_dir=$(cd "$host_dir/../.." && pwd)
cache=${HOLM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/holm}/test-host
mkdir -p "$cache/run"
cache=$(cd "$cache" && pwd -P)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

# hash_of TEXT… : a short key of strings; hash_files FILE… : of the contents and names of files.
hash_of() { printf '%s\0' "$@" | sha256sum | cut -c1-16; }
hash_files() { (cd "$top_dir" && sha256sum -- "$@") | sha256sum | cut -c1-16; }

# build_once KIND KEY FUNCTION [ARG…] : prints the path of $cache/KIND/KEY, made by `FUNCTION TEMP ARG…` when it is missing.
# To be called by itself, never in a condition. One builder at a time for each kind and key; a killed one leaves a temporary that the next removes.
build_once() {
    local kind=$1 key=$2 make=$3 dir=$cache/$1 lock failed
    shift 3
    mkdir -p "$dir"
    if [ ! -e "$dir/$key" ]; then
        exec {lock}>"$dir/.$key.lock"
        flock "$lock"
        if [ ! -e "$dir/$key" ]; then
            rm -rf "$dir/.$key.tmp"
            # Not as part of a condition: there `set -e` would mean nothing inside.
            set +e
            (set -e; "$make" "$dir/.$key.tmp" "$@") {lock}>&- >&2
            failed=$?
            set -e
            if [ "$failed" -ne 0 ]; then rm -rf "$dir/.$key.tmp"*; exit "$failed"; fi
            mv -T "$dir/.$key.tmp" "$dir/$key"
            touch "$dir/$key"
            prune "$kind" "${key%%-*}"
        fi
        exec {lock}>&-
    fi
    touch -c "$dir/$key"
    printf '%s\n' "$dir/$key"
}

# prune KIND PREFIX [KEEP] : keeps the KEEP (2) most recently used artefacts PREFIX-*, of others those used in the last week, and those that a test host is just about to use or holds the lock of.
prune() {
    local kind=$1 prefix=$2 keep=${3:-2} old
    {
        find "$cache/$kind" -mindepth 1 -maxdepth 1 -name "$prefix-*" -printf '%T@ %p\n' | sort -rn | tail -n "+$((keep + 1))"
        # Of other suites and variants, what nobody has used for a week.
        find "$cache/$kind" -mindepth 1 -maxdepth 1 ! -name '.*' -mtime +7 -printf '%T@ %p\n'
    } |
        while read -r _ old; do
            [ -e "$old" ] || continue
            [ -n "$(find "$old" -maxdepth 0 -mmin +1)" ] && flock -n "$old" true || continue
            rm -rf "$old" "${old%/*}/.${old##*/}.lock"
        done
    # What a killed builder left, and locks of what is long gone; builders hold theirs.
    find "$cache/$kind" -mindepth 1 -maxdepth 1 -name '.*.lock' -mmin +60 | while read -r old; do
        local key=${old##*/.}
        key=${key%.lock}
        if [ ! -e "$cache/$kind/$key" ] && [ "$key" != fetch ] && flock -n "$old" true; then rm -rf "$old" "$cache/$kind/.$key.tmp"*; fi
    done
}

# mirror : the archive that this machine's own apt uses (no name of a mirror is written here).
mirror() {
    local found
    if [ -n "${HOLM_MIRROR-}" ]; then printf '%s\n' "$HOLM_MIRROR"; return; fi
    found=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | sort -u | head -n 1)
    [ -n "$found" ] || found=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | grep -v security | sort -u | head -n 1)
    [ -n "$found" ] || die "apt knows no package archive: run 'apt-get update', or set HOLM_MIRROR to the address of a Debian archive"
    printf '%s\n' "$found"
}

# apt_private DIR SUITE COMMAND… : apt-get with a state of its own in DIR, for SUITE; the machine's own sources stay as they are.
apt_private() {
    local dir=$1 suite=$2
    shift 2
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$(mirror)" "$suite" >"$dir/sources.list"
    apt-get -q -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Dir::Etc::sourcelist="$dir/sources.list" \
        -o Dir::Etc::sourceparts=- -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o APT::Sandbox::User=root -o APT::Get::List-Cleanup=false "$@"
}
