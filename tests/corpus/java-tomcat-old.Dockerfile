FROM tomcat:8.5-jdk8
MAINTAINER Web Team <web@example.com>

ENV CATALINA_OPTS -Xms512m -Xmx1024m -Djava.awt.headless=true
RUN rm -rf $CATALINA_HOME/webapps/*
ADD conf/server.xml $CATALINA_HOME/conf/
ADD shop.war /usr/local/tomcat/webapps/ROOT.war
VOLUME ["/usr/local/tomcat/logs"]
EXPOSE 8080 8009
CMD ["catalina.sh", "run"]
