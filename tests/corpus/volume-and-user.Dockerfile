FROM mcr.microsoft.com/mssql/server:2022-latest
USER root
RUN mkdir -p /data && chown -R mssql /data
VOLUME ["/data", "/var/opt/mssql"]
USER mssql
ENV ACCEPT_EULA=Y MSSQL_PID=Developer
EXPOSE 1433
