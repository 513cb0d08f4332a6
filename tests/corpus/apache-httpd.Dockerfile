FROM httpd:2.4
COPY ./public-html/ /usr/local/apache2/htdocs/
RUN sed -i \
        -e 's/^#\(Include .*httpd-ssl.conf\)/\1/' \
        -e 's/^#\(LoadModule .*mod_ssl.so\)/\1/' \
        conf/httpd.conf
COPY server.crt server.key /usr/local/apache2/conf/
