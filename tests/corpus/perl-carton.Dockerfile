FROM perl:5.36
WORKDIR /usr/src/app
COPY cpanfile cpanfile.snapshot ./
RUN cpanm Carton \
 && carton install --deployment
COPY . .
ENV PERL5LIB=/usr/src/app/local/lib/perl5
CMD [ "perl", "./app.psgi", "daemon" ]
