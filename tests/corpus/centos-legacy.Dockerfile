FROM centos:7
RUN yum -y update; yum clean all
RUN yum -y install epel-release; yum -y install nginx supervisor; yum clean all
ADD ./nginx.repo /etc/yum.repos.d/nginx.repo
ADD start.sh /start.sh
RUN echo "daemon off;" >> /etc/nginx/nginx.conf \
    ; chmod 755 /start.sh
EXPOSE 80 22
CMD ["/start.sh"]
