FROM continuumio/miniconda3:24.1.2-0
SHELL ["/bin/bash", "--login", "-c"]
COPY environment.yml /tmp/environment.yml
RUN conda env create -f /tmp/environment.yml && conda clean -afy
RUN echo "conda activate science" >> ~/.bashrc
ENV CONDA_DEFAULT_ENV=science
WORKDIR /notebooks
VOLUME /notebooks
EXPOSE 8888
ENTRYPOINT ["conda", "run", "--no-capture-output", "-n", "science"]
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--allow-root"]
