FROM confluentinc/cp-kafka-connect-base:7.5.0
ENV CONNECT_PLUGIN_PATH="/usr/share/java,/usr/share/confluent-hub-components"
RUN confluent-hub install --no-prompt confluentinc/kafka-connect-jdbc:10.7.4 \
    && confluent-hub install --no-prompt debezium/debezium-connector-postgresql:2.2.1
COPY connectors/*.json /etc/connectors/
