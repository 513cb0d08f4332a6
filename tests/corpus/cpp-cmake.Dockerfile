FROM gcc:13 AS build
RUN apt-get update && apt-get install -y cmake ninja-build
COPY . /usr/src/app
WORKDIR /usr/src/app/build
RUN cmake -G Ninja -DCMAKE_BUILD_TYPE=Release .. && ninja && ctest --output-on-failure
FROM debian:bookworm-slim
COPY --from=build /usr/src/app/build/server /usr/local/bin/
EXPOSE 7/udp
CMD ["server"]
