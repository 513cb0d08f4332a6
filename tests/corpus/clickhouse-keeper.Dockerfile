FROM ubuntu:20.04
ARG repository="deb https://packages.clickhouse.com/deb stable main"
ARG VERSION="23.10.5.20"
ARG PACKAGES="clickhouse-keeper"
RUN apt-get update --yes \
    && env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        apt-transport-https \
        ca-certificates \
        gnupg \
    && for package in ${PACKAGES}; do \
         packages="${packages} ${package}=${VERSION}" \
    ; done \
    && echo "${repository}" > /etc/apt/sources.list.d/clickhouse.list \
    && apt-get update \
    && apt-get install --yes ${packages} \
    && apt-get clean
ENV LANG en_US.UTF-8
ENV TZ UTC
COPY --chmod=0755 entrypoint.sh /entrypoint.sh
EXPOSE 2181 10181 44444 9181
VOLUME /var/lib/clickhouse /var/log/clickhouse-keeper /etc/clickhouse-keeper
ENTRYPOINT ["/entrypoint.sh"]
