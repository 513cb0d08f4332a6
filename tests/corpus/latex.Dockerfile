FROM texlive/texlive:latest
RUN tlmgr update --self && tlmgr install moderncv
WORKDIR /doc
COPY *.tex *.bib figures/ ./
RUN latexmk -pdf main.tex
FROM scratch
COPY --from=0 /doc/main.pdf /