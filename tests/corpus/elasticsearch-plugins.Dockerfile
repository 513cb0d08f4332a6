FROM docker.elastic.co/elasticsearch/elasticsearch:8.11.1
RUN bin/elasticsearch-plugin install --batch analysis-icu analysis-phonetic
COPY --chown=elasticsearch:elasticsearch elasticsearch.yml /usr/share/elasticsearch/config/
