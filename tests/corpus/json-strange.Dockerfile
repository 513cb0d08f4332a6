FROM alpine
RUN ["/bin/sh", "-c", "echo \"quoted\" > /q"]
RUN [ "$(id -u)" = 0 ] && echo root
RUN ['not', 'json']||true
CMD [ "echo" , "a" ]
ENTRYPOINT [ ]
VOLUME [/not/json]
