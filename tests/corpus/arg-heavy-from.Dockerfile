ARG REGISTRY=docker.io
ARG NAMESPACE=library
ARG IMAGE=python
ARG TAG=3.12
ARG VARIANT
ARG SUFFIX=${VARIANT:+-${VARIANT}}
FROM ${REGISTRY}/${NAMESPACE}/${IMAGE}:${TAG}${SUFFIX} AS base
ARG TAG
ARG BUILD_DATE
ARG VCS_REF=unknown
LABEL org.opencontainers.image.version=$TAG \
      org.opencontainers.image.created=$BUILD_DATE \
      org.opencontainers.image.revision="$VCS_REF"
FROM base
ARG VCS_REF
RUN echo "$VCS_REF"
