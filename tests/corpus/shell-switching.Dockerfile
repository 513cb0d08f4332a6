FROM debian:12
RUN echo sh
SHELL ["/bin/bash", "-euxo", "pipefail", "-c"]
RUN [[ -d /etc ]] && echo bash
SHELL ["/usr/bin/python3", "-c"]
RUN import sys; print(sys.version)
SHELL ["/bin/sh", "-c"]
CMD exec sleep infinity
