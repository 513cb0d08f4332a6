FROM node:18-alpine AS pruner
RUN npm install -g turbo@1
WORKDIR /repo
COPY . .
ARG APP=web
RUN turbo prune --scope=${APP} --docker

FROM node:18-alpine AS installer
WORKDIR /repo
COPY --from=pruner /repo/out/json/ .
COPY --from=pruner /repo/out/yarn.lock ./yarn.lock
COPY turbo.json turbo.json
RUN yarn install
COPY --from=pruner /repo/out/full/ .
ARG APP=web
ARG TURBO_TEAM
ARG TURBO_TOKEN
RUN yarn turbo run build --filter=${APP}...

FROM node:18-alpine
ARG APP=web
WORKDIR /srv
COPY --from=installer /repo/apps/${APP}/dist ./dist
USER 1000:1000
CMD node dist/index.js
