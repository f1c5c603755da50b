#!/bin/bash
# Does the project hold on every Python of this host?
#
#     scripts/check.sh [PYTHON ...]
#
# Each one that is named, or else found (python3 and python3.N on PATH, and
# those of pyenv), runs the suite and CPython's own tests of socketserver with
# our classes, with -X dev -W error.  The oldest, or of two the newest, also
# runs the suite under -bb -OO, and the tests of the scripts.
# mypy --strict reads the package, the scripts and the README's Python.
#
# A run of tests fails, too, for what unittest forgives: few tests (it says OK
# to none), a complaint that Python prints where it cannot raise it, no end,
# and a process left behind.  What is skipped is told with its reason.  The
# last line is "N passed, N failed"; the exit status is 1 if anything failed.

set -u -o pipefail
if [[ ${1-} == -* ]]; then sed -n '2,/^$/s/^# \?//p' "$0"; exit; fi
cd "$(dirname "$0")/.." || exit 1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export folder

# Of what unittest -v has printed: how many tests passed and failed.
export judge='
    /Exception ignored|ResourceWarning: |^Exception in thread / { leak = 1 }
    /^Ran [0-9]+ tests? in / { ran = $2 }
    /^(FAILED|OK)( \(|$)/ {
        gsub(/expected failures/, "expected")
        gsub(/unexpected successes/, "errors")
        gsub(/[(),]/, " ")
        for (i = 1; i <= NF; i++)
            if (split($i, pair, "=") == 2) count[pair[1]] += pair[2]
    }
    END {
        failed = count["failures"] + count["errors"]
        bad = failed + leak + (ran < least)
        if (!least) { ran = !status; failed = 0 }
        print ran - failed - count["skipped"], bad ? bad : (status != 0)
    }'

# Run a check and count.  Its arguments are a title, the least number of tests
# (0 for what is no run of tests, and counts as one), and a command.
run() {
    local title=$1 least=$2 log passed failed status
    shift 2
    log=$(mktemp -p "$folder")
    # The pipe ends with the last process that holds it.
    timeout -k 9 900 bash -o pipefail -c '"$@" 2>&1 | cat' _ "$@" \
        > "$log" < /dev/null &
    trap "kill $!" INT TERM     # its process group is not the terminal's
    wait $!
    status=$?
    read -r passed failed < <(
        awk -v least="$least" -v status="$status" "$judge" "$log")
    echo "$passed $failed" >> "$folder/sums"
    printf '%-24s %5d passed  %3d failed\n' "$title" "$passed" "$failed"
    sed -n "s/.* skipped ['\"]\(.*\)['\"]$/skipped: \1/p" "$log" | sort | uniq -c
    ((failed == 0)) || sed -n '/^=====/,$p;/Exception ignored\|ResourceW/p' "$log" |
        grep . || tail -n 30 "$log"
}
export -f run

# Print "VERSION PATH" of each Python from 3.6 on among these, the oldest first.
ask() {
    local path
    for path; do
        "$path" -c 'import os, sys
if sys.version_info >= (3, 6):
    print("%d.%d.%d" % sys.version_info[:3], os.path.realpath(sys.executable))
' 2> /dev/null
    done | sort -u -V
}

candidates() {
    local name
    compgen -c python3 | grep -x 'python3\(\.[0-9]*t\?\)\?'
    for name in $(pyenv versions --bare 2> /dev/null); do
        echo "$(pyenv prefix "$name")/bin/python"
    done
}

# Print for each check, a line each, how long it takes (1 is long, 3 short), and
# the arguments of run().
jobs() {
    local version path
    while read -r version path; do
        set -- "$path" -X dev -W error -m unittest
        echo "2 '$version suite' 300 $* -v"
        echo "3 '$version conformance' 1 $* -v tests.conformance"
        [[ $version == "$extra" ]] || continue
        echo "1 '$version scripts' 1 $* discover -v -s tests/scripts"
        echo "2 '$version suite -bb -OO' 300 $path -bb -OO -m unittest -v"
    done <<< "$pythons"
    if ! command -v mypy > /dev/null; then
        echo "mypy --strict: skipped: mypy is not installed" >&2
        return
    fi
    echo "3 'mypy --strict' 0 mypy --strict"
    sed -n '/^```python$/,/^```$/{/^```/!p}' README.md > "$folder/readme.py"
    echo "3 'mypy README' 0 mypy --strict --config-file= $folder/readme.py"
}

pythons=$(if (($#)); then ask "$@"; else ask $(candidates); fi)
extra=$(awk '{ version[NR] = $1 } END { print version[(NR > 2) ? 1 : NR] }' \
    <<< "$pythons")
if [[ -z $pythons ]] || (($# > $(wc -l <<< "$pythons"))); then
    echo "no Python 3.6 or newer, or the same one twice: ${*-}"
    echo "0 1" >> "$folder/sums"
else
    # The longest begin first, so that none is left alone at the end; and more
    # than there are CPUs, since a test that waits needs none.
    jobs | sort -s -n -k 1,1 | cut -d ' ' -f 2- |
        xargs -d '\n' -P "$(($(nproc) * 3 / 2))" -n 1 bash -c '
        said=$(eval "run $1"); echo "$said"' _
fi
awk '{ passed += $1; failed += $2 }
    END { print passed " passed, " failed " failed"; exit failed != 0 }' \
    "$folder/sums"
