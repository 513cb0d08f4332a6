FROM alpine:3.19 AS build
RUN apk add --no-cache zig
WORKDIR /src
COPY build.zig build.zig.zon ./
COPY src src
RUN zig build -Doptimize=ReleaseSafe --prefix /out
FROM scratch
COPY --from=build /out/bin/server /server
ENTRYPOINT ["/server"]
