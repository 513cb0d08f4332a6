FROM cosmtrek/air
FROM golang:1.19-bullseye AS dev
COPY --from=0 /go/bin/air /usr/local/bin/air
WORKDIR /app
COPY go.mod go.sum ./
RUN go mod download
VOLUME ["/app"]
EXPOSE 8080 2345
CMD ["air", "-c", ".air.toml"]
