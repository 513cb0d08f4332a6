#!/bin/sh
# make-base.sh DIR: make an OCI layout with a minimal Debian (or Ubuntu) of this machine's own release in DIR, from the
# machine's own apt sources. They and its other settings are used for this only, and not left in the image.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
directory=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

. "$here/thrice.sh"

. /etc/os-release
suite=$VERSION_CODENAME
"$here/sources.sh" deb > "$work/sources.list"
apt-config dump Acquire > "$work/acquire.conf"

if command -v mmdebstrap > /dev/null; then
    thrice mmdebstrap --quiet --variant=minbase --aptopt="$work/acquire.conf" \
        --customize-hook='chroot "$1" apt-get clean' \
        --customize-hook='cd "$1" && rm -rf etc/apt/sources.list etc/apt/sources.list.d/* etc/apt/apt.conf.d/99mmdebstrap' \
        --customize-hook='cd "$1" && rm -rf etc/hostname etc/resolv.conf var/lib/apt/lists/* var/log/*' \
        --format=tar "$suite" "$work/base.tar" "$work/sources.list"
elif command -v debootstrap > /dev/null; then
    mirror=$(awk -v suite="$suite" '$(NF - 1) == suite { print $(NF - 2); exit }' "$work/sources.list")
    thrice debootstrap --variant=minbase "$suite" "$work/files" "$mirror" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    cd "$work/files"
    rm -rf etc/apt/sources.list etc/hostname etc/resolv.conf var/cache/apt/* var/lib/apt/lists/* var/log/* dev/*
    tar --create --numeric-owner --file "$work/base.tar" .
    cd "$work"
else
    echo "there is neither mmdebstrap nor debootstrap: apt install mmdebstrap" >&2
    exit 4
fi

mkdir "$work/context"
mv "$work/base.tar" "$work/context"
rm -rf "$directory"
# The tar goes into the image as it is. BUILDGRAPH_STORE is a directory of its own: the store is not to hold it twice.
BUILDGRAPH_STORE="$work/store" buildgraph build --progress quiet \
    -o "type=oci,dest=$directory,tar=false" -f - "$work/context" << 'END' > /dev/null
FROM scratch
ADD base.tar /
CMD ["bash"]
END
