FROM node:18 AS deps
WORKDIR /ws
COPY package.json package-lock.json nx.json tsconfig.base.json ./
RUN npm ci
FROM deps AS build
ARG PROJECT
ENV PROJECT=${PROJECT:-api}
COPY --exclude=**/*.spec.ts --exclude=**/node_modules . .
RUN npx nx build $PROJECT --prod
FROM node:18-slim
COPY --from=build /ws/dist /app
CMD ["node", "/app/main.js"]
