FROM python:3.11-slim AS pio
RUN pip install platformio==6.1.11
WORKDIR /fw
COPY platformio.ini .
RUN pio pkg install
COPY include include
COPY lib lib
COPY src src
ARG BOARD=esp32dev
RUN pio run -e ${BOARD} && cp .pio/build/${BOARD}/firmware.bin /firmware-${BOARD}.bin
FROM scratch
ARG BOARD=esp32dev
COPY --from=pio /firmware-${BOARD}.bin /
