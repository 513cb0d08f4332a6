FROM opensuse/leap:15.5
RUN zypper --non-interactive install --no-recommends gcc make && zypper clean -a
COPY . /src
RUN make -C /src
