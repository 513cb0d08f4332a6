FROM ubuntu:18.04
MAINTAINER someone
ENV DEBIAN_FRONTEND noninteractive
ENV HOME /home/app
ENV DISPLAY :1
RUN apt-get update
RUN apt-get install -y xfce4 xfce4-goodies tightvncserver
RUN apt-get install -y firefox \
	supervisor
RUN useradd -m app
ADD supervisord.conf /etc/supervisor/conf.d/
EXPOSE 5901 6901
CMD /usr/bin/supervisord -n
