FROM openresty/openresty:1.21.4.1-0-alpine-fat
RUN /usr/local/openresty/luajit/bin/luarocks install lua-resty-http
COPY nginx.conf /usr/local/openresty/nginx/conf/nginx.conf
COPY lua/ /usr/local/openresty/lualib/app/
