import os

# PostgreSQL's programs are started under another user, which takes a fork. gRPC's own handlers of
# forks end the child while other threads are in calls.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
