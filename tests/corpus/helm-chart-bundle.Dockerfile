FROM alpine/helm:3.13.2 AS package
WORKDIR /charts
COPY charts/ .
RUN for chart in */; do helm package "$chart" -d /out; done && helm repo index /out
FROM scratch AS bundle
COPY --from=package /out /
