"""What is wanted, on two cores that load generator, database and service share."""

from typing import Final

from tests.bench.figures import Target

TARGETS: Final = {
    "hashes": Target("Registers/s at cost 12, over bare bcrypt hashes/s on all cores", 0.95),
    "light": Target("light calls' p99 while Registers hash, over idle", 3, is_ceiling=True),
    "journeys": Target("journeys/s of two workers, over empty journeys/s", 0.20),
    "fresh": Target("VerifyEmail/s, fresh tokens, over empty calls/s", 0.40),
    "unsigned": Target("VerifyEmail/s, unsigned token, over empty calls/s", 0.75),
    "workers": Target("calls/s of two workers, over one", 1.4),
    "interceptors": Target("all interceptors, a call", 60, is_ceiling=True, unit=" us"),
    "limiter, some": Target("the limiter, some clients", 10, is_ceiling=True, unit=" us"),
    "limiter, many": Target("the limiter, many clients", 10, is_ceiling=True, unit=" us"),
    "size VerifyEmail": Target("VerifyEmail's time on a large table", 1.2, is_ceiling=True),
    "size Register": Target("Register's time on a large table", 1.2, is_ceiling=True),
    "size claim": Target("the claim's time on a large table", 1.2, is_ceiling=True),
    "size status": Target("the delivery status' time on a large table", 1.2, is_ceiling=True),
    "start": Target("start to the first answer", 1.0, is_ceiling=True, unit=" s"),
    "idle memory": Target("idle memory of one process", 90, is_ceiling=True, unit=" MB"),
    "growth": Target("its growth over calls of 100,000 clients", 60, is_ceiling=True, unit=" MB"),
    "mails": Target("mails/s of one deliverer", 300),
}
