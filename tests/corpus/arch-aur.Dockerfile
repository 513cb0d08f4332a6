FROM archlinux:base-devel
RUN pacman -Syu --noconfirm git \
 && useradd -m builder \
 && echo 'builder ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/builder
USER builder
WORKDIR /build
ARG PKG
COPY --chown=builder PKGBUILD .
RUN makepkg -si --noconfirm
