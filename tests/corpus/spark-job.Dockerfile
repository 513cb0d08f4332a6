ARG SPARK_IMAGE=apache/spark-py:v3.4.0
FROM ${SPARK_IMAGE}
USER root
ENV SPARK_HOME=/opt/spark
RUN rm ${SPARK_HOME}/jars/guava-14.0.1.jar
COPY jars/*.jar ${SPARK_HOME}/jars/
COPY jobs ${SPARK_HOME}/jobs
ARG spark_uid=185
USER ${spark_uid}
