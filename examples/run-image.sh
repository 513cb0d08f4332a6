#!/bin/sh
# run-image.sh NAME [ARGUMENT…]: run an image of the store on the host's network until it ends, its CMD or the arguments
# given. With podman where it works, else with crun or runc on the unpacked root filesystem. No root, no daemon needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
name=$1
shift
work=$(mktemp -d)
child=
leave() {
    if [ -n "$child" ]; then
        kill "$child" 2> /dev/null || true
        wait "$child" || true
    fi
    # Rootless podman's files belong to users of its namespace.
    rm -rf "$work" 2> /dev/null || podman unshare rm -rf "$work" || true
}
trap leave EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

wait_for() { # COMMAND…: in the background, so that a signal to this script ends it too
    "$@" &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
    exit "$status"
}

podman_here() { # podman with its files in our own directory and without cgroups, which not every machine lets us have
    podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs --log-level error "$@"
}

if [ "${RUN_IMAGE_WITH:-podman}" = podman ] && command -v podman > /dev/null; then
    buildgraph image export -o "type=oci,dest=$work/image,tar=false" "$name" 2> /dev/null
    if id=$(podman_here pull --quiet "oci:$work/image" 2> /dev/null) \
        && podman_here run --rm --cgroups=disabled --network=host --entrypoint= "$id" true 2> /dev/null; then
        wait_for podman_here run --rm --cgroups=disabled --network=host "$id" "$@"
    fi
fi

mkdir "$work/bundle"
buildgraph image export -o "type=local,dest=$work/bundle/rootfs" "$name" 2> /dev/null
buildgraph image inspect "$name" | python3 "$here/bundle.py" "$@" > "$work/bundle/config.json"

runtime=$(command -v crun || command -v runc) || { echo "there is no podman, crun or runc to run the image" >&2; exit 4; }
case $runtime in
    *crun) runtime="$runtime --cgroup-manager=disabled" ;;
esac
if [ "$(id -u)" = 0 ]; then alone="unshare --mount"; else alone="unshare --user --map-root-user --mount"; fi
# The runtime looks at the machine's cgroups even if it is to make none, and refuses some layouts: cover them.
# $runtime and $alone are lists of words.
# shellcheck disable=SC2086
wait_for $alone sh -c 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"' sh \
    $runtime --root "$work/state" run --bundle "$work/bundle" "buildgraph-example-$$"
