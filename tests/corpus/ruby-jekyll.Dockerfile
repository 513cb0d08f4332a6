FROM ruby:2.7-alpine
RUN apk add --no-cache build-base gcc cmake git
RUN gem update bundler && gem install bundler jekyll:4.2.0
WORKDIR /srv/jekyll
COPY Gemfile* ./
RUN bundle install
COPY . .
EXPOSE 4000 35729
CMD bundle exec jekyll serve --host 0.0.0.0 --livereload
