FROM hashicorp/terraform:1.6 AS terraform
FROM amazon/aws-cli:2.13.38
COPY --from=terraform /bin/terraform /usr/local/bin/
COPY modules /modules
WORKDIR /infra
ENTRYPOINT []
CMD ["terraform", "version"]
