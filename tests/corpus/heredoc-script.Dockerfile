# syntax=docker/dockerfile:1.4
FROM debian:bookworm

RUN <<EOT bash
  set -ex
  apt-get update
  apt-get install -y vim
  mkdir -p /foo/bar
EOT

RUN <<EOT
#!/usr/bin/env python3
print("hello world")
EOT

COPY <<-"EOT" /script.sh
	echo "hello ${FOO}"
EOT

COPY <<robots.txt <<humans.txt /usr/share/nginx/html/
User-agent: *
robots.txt
We are people
humans.txt
ENTRYPOINT ash /script.sh
