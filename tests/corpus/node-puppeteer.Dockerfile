FROM node:14-buster

# See https://crbug.com/795759
RUN apt-get update && apt-get install -yq libgconf-2-4

# Latest chrome with every font
RUN apt-get update && apt-get install -y wget --no-install-recommends \
    && wget -q -O - https://dl-ssl.google.com/linux/linux_signing_key.pub | apt-key add - \
    && sh -c 'echo "deb [arch=amd64] http://dl.google.com/linux/chrome/deb/ stable main" >> /etc/apt/sources.list.d/google.list' \
    && apt-get update \
    && apt-get install -y google-chrome-unstable fonts-ipafont-gothic fonts-wqy-zenhei \
      --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* \
    && apt-get purge --auto-remove -y curl \
    && rm -rf /src/*.deb

ADD https_proxy.sh /usr/local/bin/
ENTRYPOINT ["dumb-init", "--"]
RUN npm i puppeteer \
    && groupadd -r pptruser && useradd -r -g pptruser -G audio,video pptruser \
    && mkdir -p /home/app/Downloads \
    && chown -R pptruser:pptruser /home/app
USER pptruser
CMD ["google-chrome-unstable"]
