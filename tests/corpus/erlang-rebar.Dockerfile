FROM erlang:26-alpine AS build
WORKDIR /buildroot
COPY rebar.config rebar.lock ./
RUN rebar3 compile
COPY apps apps
COPY config config
RUN rebar3 as prod release
FROM alpine:3.18
RUN apk add --no-cache openssl ncurses-libs libstdc++
COPY --from=build /buildroot/_build/prod/rel/node /node
EXPOSE 8080 4369/tcp 9100-9105
CMD ["/node/bin/node", "foreground"]
