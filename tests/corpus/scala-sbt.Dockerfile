FROM hseeberger/scala-sbt:11.0.14.1_1.6.2_2.13.8 AS sbt
WORKDIR /project
ADD project/build.properties project/plugins.sbt project/
ADD build.sbt .
RUN sbt update
ADD . .
RUN sbt stage
FROM openjdk:11-jre-slim
COPY --from=sbt /project/target/universal/stage /opt/docker
WORKDIR /opt/docker
RUN ["chown", "-R", "daemon:daemon", "."]
USER daemon
ENTRYPOINT ["bin/service"]
CMD []
