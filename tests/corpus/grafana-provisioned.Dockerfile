FROM grafana/grafana-oss:10.2.2
ENV GF_PATHS_PROVISIONING=/etc/grafana/provisioning \
    GF_INSTALL_PLUGINS="grafana-clock-panel 1.0.1,grafana-piechart-panel"
COPY --chown=472:0 provisioning/ /etc/grafana/provisioning/
COPY --chown=472:0 dashboards/*.json /var/lib/grafana/dashboards/
