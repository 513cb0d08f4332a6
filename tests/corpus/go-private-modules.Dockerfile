FROM golang:1.21 AS build
ENV GOPRIVATE=git.example.com/*
RUN mkdir -p -m 0700 ~/.ssh && ssh-keyscan git.example.com >> ~/.ssh/known_hosts
RUN git config --global url."ssh://git@git.example.com/".insteadOf "https://git.example.com/"
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=ssh go mod download
COPY . .
RUN --network=none go build -o /out/service ./cmd/service

FROM debian:bookworm-slim
RUN useradd -r service
COPY --from=build /out/service /usr/bin/service
USER service
STOPSIGNAL SIGINT
ENTRYPOINT ["/usr/bin/service"]
