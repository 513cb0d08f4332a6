FROM --platform=$BUILDPLATFORM rust:1.73 AS build
ARG TARGETPLATFORM
RUN case "$TARGETPLATFORM" in \
      "linux/amd64") echo x86_64-unknown-linux-musl ;; \
      "linux/arm64") echo aarch64-unknown-linux-musl ;; \
      *) exit 1 ;; \
    esac > /target
RUN rustup target add $(cat /target)
COPY . .
RUN cargo build --release --target $(cat /target) && cp target/$(cat /target)/release/app /app

FROM alpine AS variant-amd64
ENV ARCH=x86
FROM alpine AS variant-arm64
ENV ARCH=arm
ARG TARGETARCH
FROM variant-${TARGETARCH:-amd64}
COPY --from=build /app /app
