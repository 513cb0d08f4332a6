FROM selenium/standalone-chrome:119.0
USER root
RUN apt-get update -qqy && apt-get -qqy install python3-pip && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER seluser
COPY requirements-test.txt /opt/
RUN pip3 install --user -r /opt/requirements-test.txt
COPY tests /opt/tests
CMD ["python3", "-m", "pytest", "/opt/tests"]
