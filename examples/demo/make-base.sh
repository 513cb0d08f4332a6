#!/bin/sh
# make-base.sh DIR: make an OCI layout with the system's static busybox (Debian: busybox-static) in DIR, without network.
set -eu
directory=$1
busybox=$(command -v busybox) || { echo "there is no busybox: apt install busybox-static" >&2; exit 4; }
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

mkdir -p "$files/bin" "$files/etc" "$files/tmp"
cp "$busybox" "$files/bin/busybox"
for applet in $("$busybox" --list); do
    test "$applet" = busybox || ln -s busybox "$files/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' > "$files/etc/passwd"
echo 'root:x:0:' > "$files/etc/group"
chmod 1777 "$files/tmp"

rm -rf "$directory"
buildgraph build --progress quiet --build-context files="$files" -o "type=oci,dest=$directory,tar=false" -f - - <<'END' > /dev/null
FROM scratch
COPY --from=files / /
ENV PATH=/bin
CMD ["sh"]
END
