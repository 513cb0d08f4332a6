# escape=`

FROM mcr.microsoft.com/windows/servercore:ltsc2022 AS tools
SHELL ["powershell", "-Command", "$ErrorActionPreference = 'Stop';"]
RUN Invoke-WebRequest -UseBasicParsing `
      -Uri https://example.com/tool.zip `
      -OutFile C:\tool.zip; `
    Expand-Archive C:\tool.zip -DestinationPath C:\tool
ENV TOOL_HOME=C:\tool
COPY config.json C:/tool/
WORKDIR /app
ENTRYPOINT ["C:\\tool\\tool.exe"]
