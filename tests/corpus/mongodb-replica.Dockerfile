FROM mongo:6.0
COPY --chmod=400 --chown=999:999 keyfile /etc/mongo/keyfile
CMD ["mongod", "--replSet", "rs0", "--keyFile", "/etc/mongo/keyfile", "--bind_ip_all"]
