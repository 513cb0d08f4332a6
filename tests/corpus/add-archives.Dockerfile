FROM scratch
ADD rootfs.tar.xz /
ADD --chown=0:0 extra.tar.gz /opt/
LABEL org.opencontainers.image.title="a base" org.opencontainers.image.licenses="MIT"
CMD ["/bin/bash"]
