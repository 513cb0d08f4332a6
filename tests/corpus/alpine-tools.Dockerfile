FROM alpine:3
RUN apk add --update --no-cache \
      bash curl git jq \
      openssh-client
ENTRYPOINT ["/bin/bash"]
