ARG CUDA=12.2.2
ARG CUDNN=8
ARG UBUNTU=22.04
FROM nvidia/cuda:${CUDA}-cudnn${CUDNN}-runtime-ubuntu${UBUNTU}

ARG DEBIAN_FRONTEND=noninteractive
ARG TORCH=2.1.0
# CUDA is a global argument: declare it again to see it here.
ARG CUDA
RUN apt-get update && \
    apt-get install -y --no-install-recommends \
      # interpreter
      python3 \
      python3-pip \

      # images
      libgl1 \
      libglib2.0-0 && \
    rm -rf /var/lib/apt/lists/*
RUN SHORT=$(echo ${CUDA} | cut -d. -f1,2 | tr -d .) && \
    pip3 install torch==${TORCH} --index-url https://download.pytorch.org/whl/cu$SHORT
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /workspace
COPY train.py model/ ./
ENTRYPOINT [ "python3", "train.py" ]
