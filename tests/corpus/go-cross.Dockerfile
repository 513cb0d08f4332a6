# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM tonistiigi/xx:1.2.1 AS xx

FROM --platform=$BUILDPLATFORM golang:1.20-alpine AS base
COPY --from=xx / /
RUN apk add --no-cache file git
ENV GOFLAGS=-mod=vendor
ENV CGO_ENABLED=0
WORKDIR /src

FROM base AS version
RUN --mount=target=. \
    PKG=github.com/example/app VERSION=$(git describe --match 'v[0-9]*' --dirty='.m' --always --tags) \
    && echo "-X ${PKG}/version.Version=${VERSION}" | tee /tmp/.ldflags \
    && echo -n "${VERSION}" | tee /tmp/.version

FROM base AS build
ARG TARGETPLATFORM
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/var/cache/go-build \
    --mount=type=bind,from=version,source=/tmp/.ldflags,target=/tmp/.ldflags \
    set -x; GOCACHE=/var/cache/go-build xx-go build -ldflags "$(cat /tmp/.ldflags)" -o /usr/bin/app ./cmd/app && \
    xx-verify --static /usr/bin/app

FROM scratch AS binary-unix
COPY --link --from=build /usr/bin/app /

FROM binary-unix AS binary-darwin
FROM binary-unix AS binary-linux
FROM scratch AS binary-windows
COPY --link --from=build /usr/bin/app /app.exe

FROM binary-$TARGETOS AS binary
