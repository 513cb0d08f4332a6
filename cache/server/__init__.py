"""The cache server: the Remote Execution API's storage services, and the team's own, over one store."""

import os

# gRPC reads it when it is imported. What goes wrong is told by the server's own messages and its log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
