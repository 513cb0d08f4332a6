FROM debian:bullseye

ARG GCC_VERSION=12.2.0
ARG JOBS=4
ENV PREFIX=/opt/cross TARGET=i686-elf
RUN apt-get update && apt-get install -y build-essential bison flex libgmp3-dev libmpc-dev libmpfr-dev texinfo wget

RUN set -ex; \
    mkdir -p /tmp/src; \
    cd /tmp/src; \
    wget -q https://ftp.gnu.org/gnu/gcc/gcc-$GCC_VERSION/gcc-$GCC_VERSION.tar.gz; \
    tar xf gcc-${GCC_VERSION}.tar.gz; \
    mkdir build-gcc; cd build-gcc; \
    ../gcc-$GCC_VERSION/configure --target=$TARGET --prefix="$PREFIX" --disable-nls --enable-languages=c,c++; \
    make -j$JOBS all-gcc; \
    make install-gcc; \
    rm -rf /tmp/src
ENV PATH="${PREFIX}/bin:${PATH}"
WORKDIR /src
CMD ["bash"]
