FROM ubuntu:22.04 AS build
RUN apt-get update -qq && apt-get install -qq -y curl libncurses5 openjdk-17-jdk-headless
ARG KOTLIN=1.9.21
RUN curl -fsSL https://github.com/JetBrains/kotlin/releases/download/v${KOTLIN}/kotlin-native-linux-x86_64-${KOTLIN}.tar.gz \
    | tar -xz -C /opt && ln -s /opt/kotlin-native-linux-x86_64-${KOTLIN} /opt/kotlin
COPY src/nativeMain/kotlin /src
RUN /opt/kotlin/bin/kotlinc-native /src/*.kt -opt -o /out/app
FROM gcr.io/distroless/cc
COPY --from=build /out/app.kexe /app
ENTRYPOINT ["/app"]
