FROM cm2network/steamcmd:root
ENV STEAMAPPID 740
ENV STEAMAPPDIR "${HOMEDIR:-/home/app}/csgo-dedicated"
COPY etc/entry.sh "${HOMEDIR:-/home/app}/entry.sh"
RUN set -x \
	&& apt-get update \
	&& mkdir -p "${STEAMAPPDIR}" \
	&& { \
		echo '@ShutdownOnFailedCommand 1'; \
		echo 'quit'; \
	   } > /etc/update.txt \
	&& chmod +x "${HOMEDIR:-/home/app}/entry.sh"
ENV SRCDS_FPSMAX=300 \
	SRCDS_TICKRATE=128 \
	SRCDS_HOSTNAME="New \"Server\""
WORKDIR ${HOMEDIR:-/home/app}
CMD ["bash", "entry.sh"]
EXPOSE 27015/tcp \
	27015/udp \
	27020/udp
