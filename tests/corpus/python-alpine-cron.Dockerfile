FROM python:3.9-alpine3.18
LABEL maintainer="ops@example.com"
RUN apk add --no-cache --virtual .build-deps gcc musl-dev libffi-dev openssl-dev \
 && pip install --no-cache-dir ansible==8.5.0 \
 && apk del .build-deps \
 && apk add --no-cache openssh-client sshpass tzdata
ENV TZ Europe/Berlin
ADD crontab /etc/crontabs/root
ADD scripts /usr/local/scripts
RUN chmod +x /usr/local/scripts/*.sh
CMD crond -f -l 8
