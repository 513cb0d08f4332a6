#!/usr/bin/env bash
# The build tests and the demo as an ordinary user that this script makes, and the same image digest as root's.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "only root can make a user; run the tests themselves with make test"; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
user=buildgraph-test-$$
place=$(mktemp -d /var/tmp/buildgraph-rootless.XXXXXX)
as_user() { runuser -u "$user" -- env -i HOME="$place/home" USER="$user" LANG=C.UTF-8 XDG_RUNTIME_DIR="$place/run" \
  PATH="$place/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"; }
clean() { pkill -KILL -u "$user" || true; userdel "$user" 2>/dev/null || true; rm -rf "$place"; }
trap clean EXIT

# The interpreter of the path may live where others cannot look; the system's is for everybody.
python=/usr/bin/python3
[ -x "$python" ] && "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null; }
mkdir -m 755 "$place/source" && chmod 755 "$place"
install -d -m 700 "$place/run"
useradd --create-home --home-dir "$place/home" --shell /bin/bash "$user"
grep -q "^$user:" /etc/subuid || usermod --add-subuids 200000-265535 --add-subgids 200000-265535 "$user"
(cd "$here" && git ls-files -z | tar --null --files-from=- -cf -) | tar -C "$place/source" -xf -
"$python" -m venv "$place/venv"
"$place/venv/bin/pip" install --retries 10 --quiet --disable-pip-version-check --editable "$place/source[dev]"
chown -R "$user" "$place/source" "$place/home" "$place/run"

echo "== what the doctor says"
as_user buildgraph doctor
echo "== the demo"
as_user bash -c "cd '$place/source' && examples/demo/run.sh"
echo "== the build tests, and workers"
as_user bash -c "cd '$place/source' && python -m pytest -q -m 'not slow' tests/build tests/fleet/test_placed.py"
echo "== the same digest as root's"
as_user bash -c "cd '$place/home' && mkdir image && cd image && cp /bin/busybox . && printf '%s\n' \
  'FROM scratch' 'COPY busybox /bin/sh' 'WORKDIR /app' 'COPY Dockerfile .' \
  'RUN echo made > made && : > empty' 'RUN --network=none echo again >> made' > Dockerfile"
mine=$(as_user env SOURCE_DATE_EPOCH=1700000000 buildgraph build -q "$place/home/image" -o "type=oci,dest=$place/home/user.tar" -t x:1)
roots=$(SOURCE_DATE_EPOCH=1700000000 "$here/.venv/bin/buildgraph" build -q --store "$place/store" "$place/home/image" \
  -o "type=oci,dest=$place/root.tar" -t x:1)
echo "$mine by the user, $roots by root"
[ "$mine" = "$roots" ]
cmp "$place/home/user.tar" "$place/root.tar"
echo "1 passed, 0 failed"
