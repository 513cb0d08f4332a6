"""Generated protobuf packages of buildgraph."""
