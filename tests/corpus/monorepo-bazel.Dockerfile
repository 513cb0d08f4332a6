FROM gcr.io/bazel-public/bazel:6.4.0 AS bazel
USER root
WORKDIR /src
COPY WORKSPACE .bazelrc .bazelversion ./
COPY third_party third_party
COPY --parents services/*/BUILD.bazel libs/**/BUILD.bazel ./
RUN --mount=type=cache,target=/var/cache/bazel bazel --output_user_root=/var/cache/bazel fetch //...
COPY . .
RUN --mount=type=cache,target=/var/cache/bazel \
    bazel --output_user_root=/var/cache/bazel build //services/api && \
    cp -L bazel-bin/services/api/api /api
FROM gcr.io/distroless/base
COPY --from=bazel /api /api
ENTRYPOINT ["/api"]
