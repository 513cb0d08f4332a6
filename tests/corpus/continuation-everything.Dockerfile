FROM ubuntu:22.04
RUN apt-get update && \
# a comment between
    apt-get install -y \

    # and an empty line above
    curl \
	wget \  
    git && \
    true
ENV A=1 \
    # first
    B=2 \
    C="three \
four"
LABEL a.b=c \
      d.e="f g" \
      "h i"='j k'
EXPOSE 1 \
       2
