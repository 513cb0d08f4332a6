#!/bin/sh
# run.sh [DIR]: the demo from an empty store to a running container. DIR is a place to work in, else a temporary one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    work=$(cd "$1" && pwd)
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
export BUILDGRAPH_STORE="$work/store"
exec 2>&1
heading() { printf '\n── %s\n' "$*"; }

heading "a base image out of the system's busybox"
"$here/make-base.sh" "$work/busybox"
demo() { # COMMAND OPTION…
    command=$1
    shift
    buildgraph "$command" --build-context "busybox=oci-layout://$work/busybox" "$@" "$here"
}
ls "$work/busybox"

heading "what a build would do"
demo plan

heading "the build: two stages at the same time, then the last one"
demo build --progress plain -t demo

heading "what a build would do now"
demo plan

heading "the same build again"
demo build --progress plain -t demo

heading "another ARG: the compiled program is taken from the cache"
demo build --progress plain -t demo:eo --build-arg LANGUAGE=eo

heading "the image as an OCI layout"
rm -rf "$work/image"
buildgraph image export -o "type=oci,dest=$work/image,tar=false" demo
ls "$work/image"

heading "the image, running"
"$here/../run-image.sh" demo
"$here/../run-image.sh" demo:eo
"$here/../run-image.sh" demo it "from the inside"
