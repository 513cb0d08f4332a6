FROM registry.access.redhat.com/ubi9/ubi-minimal:9.3
LABEL name="example/operator" \
      vendor="Example" \
      version="0.1" \
      summary="An operator" \
      description="It operates."
ENV HOME=/opt/operator \
    USER_NAME=operator \
    USER_UID=1001
RUN microdnf install -y tar gzip && microdnf clean all
COPY build/_output/bin/operator /usr/local/bin/operator
COPY build/bin /usr/local/bin
RUN  /usr/local/bin/user_setup
ENTRYPOINT ["/usr/local/bin/entrypoint"]
USER ${USER_UID}
