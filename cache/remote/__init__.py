"""The client of a cache server: ours in full, any other that speaks the Remote Execution API as far as it goes."""

import os

# gRPC reads it when it is imported. Its own lines on standard error are no messages for a user.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
