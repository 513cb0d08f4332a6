FROM julia:1.9-bookworm
ENV JULIA_DEPOT_PATH=/opt/julia
COPY Project.toml Manifest.toml /app/
RUN julia --project=/app -e 'using Pkg; Pkg.instantiate(); Pkg.precompile()'
COPY . /app
WORKDIR /app
CMD ["julia", "--project=.", "-t", "auto", "main.jl"]
