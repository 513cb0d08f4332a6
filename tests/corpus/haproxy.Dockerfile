FROM haproxy:2.8-alpine
USER root
RUN apk add --no-cache socat
USER haproxy
COPY haproxy.cfg /usr/local/etc/haproxy/haproxy.cfg
COPY certs/*.pem /usr/local/etc/haproxy/certs/
STOPSIGNAL SIGUSR1
