FROM rust:1.74 AS build
WORKDIR /src
ENV CARGO_TARGET_DIR=/target
RUN --mount=type=bind,source=src,target=src \
    --mount=type=bind,source=Cargo.toml,target=Cargo.toml \
    --mount=type=bind,source=Cargo.lock,target=Cargo.lock \
    --mount=type=cache,target=/target/,sharing=locked \
    --mount=type=cache,target=/usr/local/cargo/registry/ \
    <<EOF
set -e
cargo build --locked --release
cp /target/release/server /bin/server
EOF

FROM debian:bullseye-slim
ARG UID=10001
RUN adduser --disabled-password --gecos "" --no-create-home --uid "${UID}" appuser
USER appuser
COPY --from=build /bin/server /bin/
EXPOSE 8000
CMD ["/bin/server"]
