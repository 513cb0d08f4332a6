# syntax=docker/dockerfile:1.4
FROM node:20 AS build
WORKDIR /app
COPY --link package*.json ./
RUN --mount=type=secret,id=npmrc,target=/usr/local/etc/npmrc \
    --mount=type=cache,target=/var/cache/npm \
    npm ci --cache /var/cache/npm
COPY --link . .
RUN npm run build

FROM gcr.io/distroless/nodejs20-debian12:nonroot
COPY --from=build --link /app/dist /app
WORKDIR /app
CMD ["server.js"]
