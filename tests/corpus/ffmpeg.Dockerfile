FROM ubuntu:22.04 AS build
WORKDIR /tmp/workdir
ENV FFMPEG_VERSION=6.1 PREFIX=/opt/ffmpeg MAKEFLAGS="-j4"
RUN buildDeps="autoconf automake cmake curl g++ gcc git libtool make nasm perl pkg-config yasm" && \
    apt-get -yqq update && apt-get install -yq --no-install-recommends ${buildDeps}
RUN \
        DIR=/tmp/x264 && \
        mkdir -p ${DIR} && cd ${DIR} && \
        curl -sL https://code.videolan.org/videolan/x264/-/archive/master/x264-master.tar.bz2 | \
        tar -jx --strip-components=1 && \
        ./configure --prefix="${PREFIX}" --enable-shared && make && make install && \
        rm -rf ${DIR}
RUN ldconfig && \
    find ${PREFIX}/lib -name '*.so*' -type f -print0 | xargs -r -0 strip --strip-unneeded || true
FROM ubuntu:22.04 AS release
ENV LD_LIBRARY_PATH=/usr/local/lib:/usr/local/lib64
CMD         ["--help"]
ENTRYPOINT  ["ffmpeg"]
COPY --from=build /opt/ffmpeg/ /usr/local/
