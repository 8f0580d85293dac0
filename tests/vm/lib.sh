# For the scripts beside this one, which run in the VM as root: checks, and bundles of busybox. A check that fails is told and counted;
# `verdict` is the script's end.
failed=0
# check WHAT EXPECTED ACTUAL
check() {
    if [ "$2" = "$3" ]; then
        echo "ok   $1"
    else
        printf 'FAIL %s\n  expected: %s\n  got:      %s\n' "$1" "$2" "$3"
        failed=$((failed + 1))
    fi
}
# like WHAT PATTERN ACTUAL: a shell pattern
like() {
    # shellcheck disable=SC2254
    case $3 in
    $2) echo "ok   $1" ;;
    *) check "$1" "$2" "$3" ;;
    esac
}
# eventually SECONDS COMMAND…: until it succeeds
eventually() {
    end=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt $end ] || return 1
        sleep 0.2
    done
}
verdict() {
    [ $failed = 0 ] || { echo "$failed checks failed"; exit 1; }
    exit 0
}
# bundle DIR JQ-FILTER: a bundle that sleeps, changed by the filter
bundle() {
    mkdir -p "$1/rootfs/bin" "$1/rootfs/proc" "$1/rootfs/sys" "$1/rootfs/dev" "$1/rootfs/tmp"
    cp /bin/busybox "$1/rootfs/bin/"
    for applet in sh sleep cat ls; do ln -sf busybox "$1/rootfs/bin/$applet"; done
    rm -f "$1/config.json"
    (cd "$1" && runc spec) || return 1
    jq '.process.terminal = false | .process.args = ["/bin/sleep", "10000"] | '"$2" "$1/config.json" >"$1/new" && mv "$1/new" "$1/config.json"
}
