FROM rocker/shiny:4.3.1
RUN apt-get update && apt-get install -y --no-install-recommends \
    libcurl4-gnutls-dev \
    libssl-dev \
    && rm -rf /var/lib/apt/lists/*
RUN R -e 'install.packages(c("dplyr", "ggplot2"), repos = "https://cloud.r-project.org/")'
COPY app.R /srv/shiny-server/
USER shiny
EXPOSE 3838
CMD ["/usr/bin/shiny-server"]
