"""Version 1 of buildgraph's wire forms; generated from the .proto files beside this by proto/generate.py."""
