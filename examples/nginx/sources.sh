#!/bin/sh
# sources.sh deb|deb-src: print this machine's own apt sources of its distribution, one a line. Other sources are left
# out: they may need packages or keys that a new root filesystem does not have.
set -eu
. /etc/os-release
keyring=/usr/share/keyrings/$ID-archive-keyring.gpg
if [ -e "$keyring" ]; then options="[signed-by=$keyring] "; else options=; fi
sources=$(apt-get indextargets --format "\$(ORIGIN) $1 $options\$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
    'Created-By: Packages' | sed -n "s/^$ID //Ip" | sort -u)
test -n "$sources" || { echo "apt knows no sources of $ID: run apt-get update" >&2; exit 4; }
echo "$sources"
