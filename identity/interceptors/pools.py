"""Says whose threads run an RPC."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from identity.interceptors.wrapping import Behavior, Wrapping


class PoolInterceptor(Wrapping):
    """Gives some RPCs threads of their own. The outermost: there gRPC looks for them."""

    def __init__(self, pools: Mapping[str, ThreadPoolExecutor]) -> None:
        """`pools` by method; the others run in the server's."""
        super().__init__()
        self._pools = pools

    def around(self, behavior: Behavior, method: str) -> Behavior:
        if method in self._pools:
            behavior.experimental_thread_pool = self._pools[method]  # type: ignore[attr-defined]
        return behavior
