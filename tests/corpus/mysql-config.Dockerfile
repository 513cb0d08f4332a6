FROM mysql:8.0
ENV MYSQL_DATABASE=app
ENV MYSQL_ALLOW_EMPTY_PASSWORD yes
COPY my.cnf /etc/mysql/conf.d/
COPY ./sql/*.sql /docker-entrypoint-initdb.d/
HEALTHCHECK --interval=5s --timeout=2s --retries=20 CMD mysqladmin ping --silent
