ARG BASE=debian:bookworm-slim

FROM ${BASE} AS common
RUN useradd --system service
COPY libs/common /opt/common

FROM golang:1.21 AS go-deps
WORKDIR /src
COPY go.work go.work.sum ./
COPY services/auth/go.mod services/auth/go.sum services/auth/
COPY services/billing/go.mod services/billing/go.sum services/billing/
RUN go mod download -x

FROM go-deps AS auth-build
COPY services/auth services/auth
RUN go build -o /out/auth ./services/auth

FROM go-deps AS billing-build
COPY services/billing services/billing
RUN go build -o /out/billing ./services/billing

FROM node:20 AS web-build
WORKDIR /web
COPY web/package.json web/package-lock.json ./
RUN npm ci
COPY web .
RUN npm run build

FROM common AS auth
COPY --from=auth-build /out/auth /usr/local/bin/
USER service
ENTRYPOINT ["auth"]

FROM common AS billing
COPY --from=billing-build /out/billing /usr/local/bin/
USER service
ENTRYPOINT ["billing"]

FROM nginx:alpine AS web
COPY --from=web-build /web/dist /usr/share/nginx/html

FROM common AS all
COPY --from=auth /usr/local/bin/auth /usr/local/bin/
COPY --from=billing /usr/local/bin/billing /usr/local/bin/
COPY --from=web /usr/share/nginx/html /srv/web
CMD ["sh", "-c", "auth & billing & wait"]
