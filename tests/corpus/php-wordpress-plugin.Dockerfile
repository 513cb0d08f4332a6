ARG WP_VERSION
FROM wordpress:${WP_VERSION:-6.4}-php8.1-apache
ARG PLUGIN=shop
COPY ./ /var/www/html/wp-content/plugins/${PLUGIN}
RUN set -eux; \
	cd /var/www/html/wp-content/plugins/${PLUGIN}; \
	composer install --no-dev; \
	chown -R www-data:www-data .
