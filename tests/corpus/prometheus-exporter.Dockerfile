ARG ARCH="amd64"
ARG OS="linux"
FROM quay.io/prometheus/busybox-${OS}-${ARCH}:latest
LABEL maintainer="The Authors <developers@example.com>"

ARG ARCH="amd64"
ARG OS="linux"
COPY .build/${OS}-${ARCH}/exporter /bin/exporter

EXPOSE      9100
USER        nobody
ENTRYPOINT  [ "/bin/exporter" ]
