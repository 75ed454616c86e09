"""What every service stands on.

Importing it comes before importing gRPC, whose handlers for fork now and then crash a child that
is about to become another program; gRPC reads the variable when it is imported.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
