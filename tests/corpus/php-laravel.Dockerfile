FROM composer:2 AS vendor
WORKDIR /app
COPY database/ database/
COPY composer.json composer.json
COPY composer.lock composer.lock
RUN composer install \
    --ignore-platform-reqs \
    --no-interaction \
    --no-plugins \
    --no-scripts \
    --prefer-dist

FROM node:18 AS frontend
WORKDIR /app
COPY package.json vite.config.js ./
COPY resources/ resources/
RUN npm install && npm run build

FROM php:8.2-fpm-alpine
RUN docker-php-ext-install pdo pdo_mysql opcache
COPY docker/php.ini /usr/local/etc/php/conf.d/99-app.ini
WORKDIR /var/www/html
COPY . .
COPY --from=vendor /app/vendor/ vendor/
COPY --from=frontend /app/public/build/ public/build/
RUN chown -R www-data:www-data storage bootstrap/cache
EXPOSE 9000
