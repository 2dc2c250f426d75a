# shellcheck shell=bash
# lib.sh: what cases use. Sourced before each, with `set -eu`: a command that fails ends the case.

# fail TEXT… : ends the case.
fail() { printf 'FAILED: %s\n' "$*" >&2; trace >&2; exit 1; }
trace() { local i; for ((i = 1; i < ${#FUNCNAME[@]} - 1; i++)); do printf '    at %s:%s\n' "${BASH_SOURCE[i + 1]##*/}" "${BASH_LINENO[i]}"; done; }

# assert_eq ONE OTHER [WHAT] ; assert_match GOT REGEX [WHAT] ; assert_has TEXT PART [WHAT] ; refute COMMAND…
assert_eq() { [ "$1" = "$2" ] || fail "${3-value}: '$1' is not '$2'"; }
assert_match() { [[ $1 =~ $2 ]] || fail "${3-value}: got '$1', wanted something like '$2'"; }
assert_has() { case $1 in *"$2"*) ;; *) fail "${3-text}: no '$2' in '$1'" ;; esac; }
refute() { if "$@"; then fail "succeeded, but must not: $*"; fi; }

# assert_status WANTED COMMAND… : the exact exit status.
assert_status() {
    local wanted=$1 got=0
    shift
    "$@" || got=$?
    [ "$got" -eq "$wanted" ] || fail "status $got, wanted $wanted: $*"
}

# eventually SECONDS COMMAND… : tries until it succeeds. always SECONDS COMMAND… : succeeds all that time.
eventually() {
    local until
    until=$(awk -v n="$1" -v t="$EPOCHREALTIME" 'BEGIN { printf "%.6f", t + n }')
    shift
    until "$@" >/run/holm-eventually.out 2>&1; do
        if awk -v u="$until" -v t="$EPOCHREALTIME" 'BEGIN { exit !(t > u) }'; then
            cat /run/holm-eventually.out >&2
            fail "did not come about in time: $*"
        fi
        sleep 0.05
    done
}
# eventually_eq SECONDS WANTED COMMAND… : tries until the command prints that.
eventually_eq() {
    local seconds=$1 wanted=$2
    shift 2
    # shellcheck disable=SC2317
    prints_wanted() { local got; got=$("$@") && [ "$got" = "$wanted" ] || { printf "'%s' is not '%s'\n" "$got" "$wanted"; return 1; }; }
    eventually "$seconds" prints_wanted "$@"
}
always() {
    local until
    until=$(awk -v n="$1" -v t="$EPOCHREALTIME" 'BEGIN { printf "%.6f", t + n }')
    shift
    while awk -v u="$until" -v t="$EPOCHREALTIME" 'BEGIN { exit !(t < u) }'; do
        "$@" >/dev/null 2>&1 || fail "did not stay so: $*"
        sleep 0.1
    done
}

# journal_tail [UNIT [LINES]] : the last lines of a unit's journal, of this boot.
journal_tail() { journalctl -b --no-pager -o cat -u "${1:-holmd.service}" | tail -n "${2:-30}"; }
# unit_property UNIT PROPERTY
unit_property() { systemctl show --value -p "$2" "$1"; }
# active_devices : the device-mapper devices of Holm, without its pool.
active_devices() { dmsetup ls 2>/dev/null | awk '$1 ~ /^holm-/ && $1 !~ /pool/ { print $1 }'; }
# note TEXT… : a line in the output that is shown when the case fails.
note() { printf '# %s\n' "$*"; }

# rust_tests PROGRAM [ARG…] : runs a test program of cargo (`# needs: programs`). Its tests count in the total, and none of them may be skipped.
rust_tests() {
    local program=$1 out=/run/holm-rust.out ran=/run/holm-rust.ran passed='' failed='' status=0
    shift
    HOLM_INIT=/host/programs/holm-init "/host/programs/$program" --show-output "$@" >"$out" 2>&1 || status=$?
    read -r passed failed < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$out") || true
    if [ -z "$failed" ]; then tail -n 100 "$out" >&2; fail "$program ended with status $status before its tests did"; fi
    printf '%s %s\n' "$passed" "$failed" >>/run/holm-counts
    if [ "$status" -ne 0 ]; then sed -n '/^failures:/,$p' "$out" >&2; fail "$failed tests of $program"; fi
    refute grep -a '^skipped:' "$out"
    [ "$passed" -gt 0 ] || fail "$program has no such tests: $*"
    # From the list at the end: what the children of a test say themselves goes between the halves of "test NAME ... ok".
    sed -n '/^successes:$/,/^test result:/p' "$out" | tac | sed -n '1,/^successes:$/ s/^    \([^ ]*\)$/\1/p' >"$ran"
    assert_eq "$(wc -l <"$ran")" "$passed" "names of tests of $program that passed"
    cat "$ran" >>/host/ran
}
