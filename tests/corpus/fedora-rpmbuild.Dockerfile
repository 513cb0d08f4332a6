FROM registry.fedoraproject.org/fedora:39
RUN dnf -y install rpm-build rpmdevtools 'dnf-command(builddep)' && dnf clean all
WORKDIR /build
COPY *.spec .
RUN dnf -y builddep *.spec
COPY . SOURCES/
RUN rpmbuild --define "_topdir /build" -bb *.spec
