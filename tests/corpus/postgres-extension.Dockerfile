FROM postgres:15-bookworm AS build
RUN apt-get update && apt-get install -y build-essential postgresql-server-dev-15 git
WORKDIR /ext
COPY Makefile *.c *.sql *.control ./
RUN make && make install DESTDIR=/out

FROM postgres:15-bookworm
COPY --from=build /out/ /
COPY docker-entrypoint-initdb.d/ /docker-entrypoint-initdb.d/
