FROM alpine
RUN adduser -D -u 1000 app
COPY --chown=app entrypoint.sh /
RUN chmod 755 /entrypoint.sh
WORKDIR /home/app
USER app
ENTRYPOINT ["/entrypoint.sh"]
CMD ["--help"]
