#!/bin/sh
# fetch-nginx.sh DIR: put the source that this machine's release has of nginx into DIR as nginx-VERSION.tar.gz, and
# print VERSION. The list of sources that this takes is made for the purpose; nothing in /etc/apt or /var/lib/apt changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
directory=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/tarball"
"$here/sources.sh" deb-src > "$work/sources.list"
own_apt() {
    apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User= "$@"
}
. "$here/thrice.sh"
# apt takes a part of the lists for a success otherwise.
thrice own_apt -o APT::Update::Error-Mode=any update
cd "$work/tarball"
thrice own_apt source --tar-only --download-only nginx > /dev/null
for tarball in nginx_*.orig.tar.gz; do
    version=${tarball#nginx_}
    version=${version%.orig.tar.gz}
    mv "$tarball" "$directory/nginx-$version.tar.gz"
    echo "$version"
done
