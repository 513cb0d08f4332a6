FROM busybox:1.36
WORKDIR /a
COPY one two/ ./
COPY three /b/three
COPY four* /c/
COPY --chmod=0700 five /usr/local/bin/
COPY [ "with space", "/d/" ]
COPY ./six/. .
COPY ../seven ./eight/
