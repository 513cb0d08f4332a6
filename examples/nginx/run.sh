#!/usr/bin/env bash
# run.sh [DIR]: nginx from source, in one stage and in two, from nothing to a page that is served. The base and the
# source are kept in DIR (else in the user's cache directory) for the next run; all else is made anew and removed.
# Needs: mmdebstrap or debootstrap, apt sources, docker-registry, and podman, crun or runc.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kept=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/buildgraph-nginx-example}
mkdir -p "$kept"
kept=$(cd "$kept" && pwd)
work=$(mktemp -d)
started=()
leave() {
    for process in "${started[@]}"; do
        kill "$process" 2> /dev/null || true
        wait "$process" 2> /dev/null || true
    done
    # What a rootless build extracted belongs to users of its namespace.
    rm -rf "$work" 2> /dev/null || unshare --map-auto --map-root-user rm -rf "$work"
}
trap leave EXIT
export BUILDGRAPH_STORE="$work/store"
exec 2>&1

heading() { printf '\n── %s\n' "$*"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
fetch() { curl --noproxy '*' --silent --fail --retry 100 --retry-connrefused --retry-delay 1 "$1"; }
megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }

heading "a base image and nginx's source, from the machine's own apt sources"
test -e "$kept/base/index.json" || "$here/make-base.sh" "$kept/base"
test -e "$kept/source/version" || { version=$("$here/fetch-nginx.sh" "$kept/source") && echo "$version" > "$kept/source/version"; }
version=$(cat "$kept/source/version")
echo "nginx $version"

heading "a registry on the loopback interface"
port=$(free_port)
registry=127.0.0.1:$port
mkdir "$work/registry"
cat > "$work/registry.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "$registry"}
END
docker-registry serve "$work/registry.yml" > "$work/registry.log" 2>&1 &
started+=($!)
fetch "http://$registry/v2/" > /dev/null
echo "ready"

build() { # NAME
    time buildgraph build --progress quiet --network host -f "$here/Dockerfile.$1" \
        --build-arg "NGINX_VERSION=$version" \
        --build-context "base=oci-layout://$kept/base" \
        --build-context apt=/etc/apt \
        --build-context keyrings=/usr/share/keyrings \
        --build-context certificates=/etc/ssl/certs \
        -t "nginx:$1" -t "$registry/nginx:$1" "$kept/source"
}
TIMEFORMAT='%1R seconds'

heading "one stage"
build single
buildgraph cache du | grep total

heading "two stages: the first is known already"
build multi
buildgraph cache du | grep total

heading "sizes, layers not compressed"
echo 'FROM base' | buildgraph build -q --build-context "base=oci-layout://$kept/base" -t nginx:base -f - - > /dev/null
size() { # NAME: in bytes
    buildgraph image export -o "type=oci,dest=$work/$1,tar=false,compression=uncompressed,force-compression=true" \
        "nginx:$1" > /dev/null 2>&1
    find "$work/$1/blobs" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }'
    rm -r "${work:?}/$1"
}
base=$(size base)
echo "base    $(megabytes "$base")"
for name in single multi; do
    bytes=$(size "$name")
    printf "%-7s %s\n" "$name" "$(megabytes "$bytes"), $(megabytes $((bytes - base))) above the base"
done

heading "both pushed"
sent() { grep -c '"PUT /v2/nginx/blobs/uploads/[^"]*" 201 ' "$work/registry.log" || true; }
held() { find "$work/registry" -name data -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }'; }
for name in single multi; do
    blobs=$(sent)
    bytes=$(held)
    buildgraph image push "$registry/nginx:$name" > /dev/null 2>&1
    printf "%-7s %s\n" "$name" "$(($(sent) - blobs)) blobs, $(megabytes $(($(held) - bytes)))"
done

heading "the two-stage image, serving"
port=$(free_port)
# An ordinary user's container may have no other user than root.
if [ "$(id -u)" = 0 ]; then directives='daemon off;'; else directives='daemon off; user root;'; fi
"$here/../run-image.sh" nginx:multi sh -c "
    cd /usr/local/nginx
    sed 's/listen  *80;/listen 127.0.0.1:$port;/' conf/nginx.conf > conf/here.conf
    exec sbin/nginx -c conf/here.conf -g '$directives'" &
started+=($!)
fetch "http://127.0.0.1:$port/" | grep title
curl --noproxy '*' --silent --head "http://127.0.0.1:$port/" | grep -i '^server'
