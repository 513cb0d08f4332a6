FROM buildpack-deps:buster
ENV PATH /usr/local/bin:$PATH
ENV LANG C.UTF-8
ENV GPG_KEY E3FF2839C048B25C084DEBE9B26995E310250568
ENV PYTHON_VERSION 3.9.18
ENV A=${PYTHON_VERSION%.*} B="${PYTHON_VERSION%%.*}" C=${PYTHON_VERSION#*.}
ENV D=${UNSET:-default} E=${PYTHON_VERSION:+set} F=pre${PYTHON_VERSION}post
ENV url=https://www.python.org/ftp/python/${PYTHON_VERSION%%[a-z]*}/Python-$PYTHON_VERSION.tar.xz
ENV QUOTED="a \"b\" c" SINGLE='$not expanded' ESC=a\ b
RUN wget -O python.tar.xz "$url"
