FROM gcr.io/kaniko-project/executor:v1.19.2-debug AS kaniko
FROM alpine:3.19
COPY --from=kaniko /kaniko /kaniko
COPY --from=docker:24-cli /usr/local/bin/docker /usr/local/bin/
COPY --from=hashicorp/vault:1.15 /bin/vault /usr/local/bin/
ENV SSL_CERT_DIR=/kaniko/ssl/certs DOCKER_CONFIG=/kaniko/.docker/
WORKDIR /workspace
