FROM debian:12-slim as build
ARG NGINX=1.25.3
RUN apt-get update && apt-get install -y --no-install-recommends curl gcc libc6-dev libpcre2-dev libssl-dev make zlib1g-dev
WORKDIR /tmp/nginx
RUN curl -fsSL https://nginx.org/download/nginx-$NGINX.tar.gz | tar xz --strip-components=1
RUN ./configure --prefix=/etc/nginx --sbin-path=/usr/sbin/nginx --with-http_ssl_module --with-http_v2_module \
 && make -j"$(nproc)" \
 && make install DESTDIR=/out
FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libpcre2-8-0 libssl3 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out /
RUN ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
EXPOSE 80 443
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
