FROM registry.k8s.io/pause:3.9
LABEL role=pause
