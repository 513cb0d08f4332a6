FROM ghcr.io/cirruslabs/flutter:3.16.0 AS build
USER 1000
WORKDIR /app
COPY --chown=1000:1000 pubspec.* ./
RUN flutter pub get
COPY --chown=1000:1000 . .
RUN flutter build web --release
FROM nginx:alpine
COPY --from=build /app/build/web /usr/share/nginx/html
