FROM ocaml/opam:debian-12-ocaml-5.1 AS build
RUN sudo apt-get update && sudo apt-get install -yq --no-install-recommends libgmp-dev pkg-config
WORKDIR /src
COPY --chown=opam *.opam .
RUN opam install . --deps-only
COPY --chown=opam . .
RUN opam exec -- dune build --profile release ./bin/main.exe
FROM debian:12-slim
COPY --from=build /src/_build/default/bin/main.exe /usr/local/bin/app
CMD app
