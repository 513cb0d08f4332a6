FROM buildpack-deps:bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG NODE_MAJOR=20
ARG GO_VERSION=1.21.5
ARG TERRAFORM_VERSION=1.6.5
RUN curl -fsSL https://deb.nodesource.com/setup_${NODE_MAJOR}.x | bash - && apt-get install -y nodejs
RUN curl -fsSL https://go.dev/dl/go${GO_VERSION}.linux-amd64.tar.gz | tar -C /usr/local -xz
RUN wget -qO /tmp/tf.zip https://releases.hashicorp.com/terraform/${TERRAFORM_VERSION}/terraform_${TERRAFORM_VERSION}_linux_amd64.zip \
  && unzip /tmp/tf.zip -d /usr/local/bin && rm /tmp/tf.zip
ENV PATH=$PATH:/usr/local/go/bin
RUN useradd --uid 3434 --user-group ci --create-home
USER ci
