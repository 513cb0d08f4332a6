FROM cgr.dev/chainguard/go:latest AS build
WORKDIR /src
COPY . .
RUN go build -o /hello .
FROM cgr.dev/chainguard/static@sha256:1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809
COPY --from=build /hello /usr/bin/
CMD ["/usr/bin/hello"]
