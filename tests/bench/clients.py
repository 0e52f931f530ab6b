"""Callers, as a program: reads its job from a file, connects, waits for a line, and calls."""

import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

from identity.v1 import identity_pb2, identity_pb2_grpc

_CAMEL = str.maketrans("", "", "_")


class _Caller:
    """One thread: its calls, one after the other."""

    def __init__(self, job: dict[str, Any], channel: grpc.Channel, number: int) -> None:
        self._call = getattr(identity_pb2_grpc.IdentityServiceStub(channel), job["rpc"])
        kind = getattr(identity_pb2, f"{job['rpc']}Request")
        threads = job["threads"]
        chosen = job["requests"][number::threads] or job["requests"][:1]
        self._requests = [kind.FromString(bytes.fromhex(one)) for one in chosen]
        self._calls = job["calls"] // threads + (number < job["calls"] % threads)
        self._pause = threads / job["per_second"] if job["per_second"] else 0.0
        self._client = job["client"]
        self._chance = random.Random(f"{job['seed']} {number}")
        self.latencies: list[float] = []
        self.codes: Counter[str] = Counter()

    def run(self) -> None:
        due = time.perf_counter()
        for count in range(self._calls):
            if self._pause:
                due += self._pause
                time.sleep(max(0.0, due - time.perf_counter()))
            self._make(self._requests[count % len(self._requests)])

    def _make(self, request: object) -> None:
        metadata = (("x-forwarded-for", self._client or self._one_of_many()),)
        begun = time.perf_counter()
        try:
            self._call(request, metadata=metadata, timeout=60)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name.title().translate(_CAMEL)  # as ghz spells it
        self.latencies.append(time.perf_counter() - begun)
        self.codes[code] += 1

    def _one_of_many(self) -> str:
        number = self._chance.randrange(100_000)
        return f"10.{number // 10_000}.{number // 100 % 100}.{number % 100}"


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    with grpc.insecure_channel(job["endpoint"]) as channel:
        grpc.channel_ready_future(channel).result(30)
        callers = [_Caller(job, channel, number) for number in range(job["threads"])]
        threads = [threading.Thread(target=caller.run) for caller in callers]
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        work = time.process_time() - begun
    latencies = [latency for caller in callers for latency in caller.latencies]
    codes = sum((caller.codes for caller in callers), Counter())
    print(json.dumps({"work": work, "latencies": latencies, "codes": codes}), flush=True)


if __name__ == "__main__":
    main()
