#!/usr/bin/env bash
# run-image.sh NAME [ARGUMENT…]: run an image of the store on the host's network until it ends, its CMD or the arguments
# given: with podman where it works, else with crun or runc on the unpacked files. Needs neither root nor a daemon.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$1
shift
work=$(mktemp -d)
child=
end=(true)
leave() {
    if [ -n "$child" ]; then
        # The first process of a container may ignore a polite signal.
        kill "$child" 2> /dev/null || true
        for _ in $(seq 30); do
            kill -0 "$child" 2> /dev/null || break
            sleep 0.1
        done
        "${end[@]}" > /dev/null 2>&1 || true
        wait "$child" || true
    fi
    # Rootless podman's files belong to users of its namespace.
    rm -rf "$work" 2> /dev/null || podman unshare rm -rf "$work" || true
}
trap leave EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# Podman and crun look at the machine's cgroups even if they are to make none, and refuse some layouts.
# So cover them, in a mount namespace of our own; and do without where that is not allowed.
without_cgroups=(sh -c 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"' sh)
private=(unshare --mount)
if [ "$(id -u)" != 0 ]; then private=(unshare --user --map-root-user --mount); fi

until_it_ends() { # COMMAND…: in the background, so that a signal to this script ends it too
    "$@" &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
    exit "$status"
}

podman=(podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs --log-level error)
# Its own defaults may be above what this machine lets us have.
limits=(--ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
podman_run=("${podman[@]}" run --rm --cgroups=disabled --network=host "${limits[@]}")
if [ "$(id -u)" = 0 ]; then podman_run=("${private[@]}" "${without_cgroups[@]}" "${podman_run[@]}"); fi

if [ "${RUN_IMAGE_WITH:-podman}" = podman ] && command -v podman > /dev/null; then
    buildgraph image export -o "type=oci,dest=$work/image,tar=false" "$name" > /dev/null 2>&1
    # The image's name in podman is made of the path, so that must be short and of small letters.
    cd "$work"
    if id=$("${podman[@]}" pull --quiet oci:image 2> /dev/null) \
        && "${podman_run[@]}" --entrypoint= "$id" true 2> /dev/null; then
        end=("${podman[@]}" kill --all)
        until_it_ends "${podman_run[@]}" "$id" "$@"
    fi
fi

mkdir "$work/bundle"
buildgraph image export -o "type=local,dest=$work/bundle/rootfs" "$name" > /dev/null 2>&1
buildgraph image inspect "$name" | python3 "$here/bundle.py" "$@" > "$work/bundle/config.json"
if command -v crun > /dev/null; then
    runtime=("${private[@]}" "${without_cgroups[@]}" crun --cgroup-manager=disabled)
elif command -v runc > /dev/null; then
    runtime=("${private[@]}" runc)  # makes cgroups where it may, and knows no other way
else
    echo "there is no podman, crun or runc to run the image with" >&2
    exit 4
fi
end=("${runtime[@]}" --root "$work/state" delete --force "buildgraph-example-$$")
until_it_ends "${runtime[@]}" --root "$work/state" run --bundle "$work/bundle" "buildgraph-example-$$"
