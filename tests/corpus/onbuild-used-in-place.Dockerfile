FROM node:18 AS toolchain
ONBUILD WORKDIR /app
ONBUILD COPY package.json ./
ONBUILD RUN npm install
ONBUILD ENV BUILT=1

FROM toolchain
COPY . .
CMD ["npm", "start"]
