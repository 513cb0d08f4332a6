FROM golang:1.22-alpine AS tools
RUN go install github.com/golangci/golangci-lint/cmd/golangci-lint@v1.55.2
RUN go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.31.0

FROM golang:1.22-alpine AS dev
COPY --from=tools /go/bin/ /go/bin/

FROM dev AS lint
WORKDIR /src
RUN --mount=target=. --mount=type=cache,target=/var/cache/lint \
    GOLANGCI_LINT_CACHE=/var/cache/lint golangci-lint run

FROM dev AS test
WORKDIR /src
RUN --mount=target=. --mount=type=tmpfs,target=/tmp,size=512m go test ./...

FROM scratch AS results
COPY --from=test /etc/hostname /test-ran
COPY --from=lint /etc/hostname /lint-ran
