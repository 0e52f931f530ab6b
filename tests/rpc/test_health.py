"""grpc.health.v1 on a real server."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.refusals import refused
from tests.requests import verification
from tests.rpc.conftest import Serve

SERVICES = ("", "identity.v1.IdentityService", "identity.v1.DeliveryService")
PATIENCE = 30  # seconds


def test_it_is_told_by_service_and_nothing_else_is(serve: Serve) -> None:
    health = HealthStub(serve().channel)
    for service in SERVICES:
        answer = health.Check(HealthCheckRequest(service=service))
        assert answer.status == HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as unknown:
        health.Check(HealthCheckRequest(service="identity"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(HealthCheckRequest(service="identity"), timeout=PATIENCE)
    assert next(watch).status == HealthCheckResponse.SERVICE_UNKNOWN


def test_watchers_take_no_threads_from_calls(serve: Serve) -> None:
    running = serve()
    health = HealthStub(running.channel)
    watches = [health.Watch(HealthCheckRequest(), timeout=PATIENCE) for _ in range(300)]
    for watch in watches:  # more than there are threads
        assert next(watch).status == HealthCheckResponse.SERVING
    assert refused(running.stub.VerifyEmail, verification("x"), timeout=10).reason
    for watch in watches:
        watch.cancel()


def test_watchers_that_come_and_go_do_not_stop_the_server(serve: Serve) -> None:
    running = serve()

    def come_and_go(_number: int) -> None:
        with grpc.insecure_channel(
            str(running.service.endpoint), options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            for count in range(50):
                watch = HealthStub(channel).Watch(HealthCheckRequest(), timeout=PATIENCE)
                if count % 2:
                    next(watch)
                watch.cancel()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    answer = HealthStub(running.channel).Check(HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == HealthCheckResponse.SERVING


def test_watchers_learn_of_the_end_and_do_not_hold_it_up(serve: Serve) -> None:
    running = serve()
    health = HealthStub(running.channel)
    watches = [
        health.Watch(HealthCheckRequest(service=name), timeout=PATIENCE) for name in SERVICES
    ]
    for watch in watches:
        assert next(watch).status == HealthCheckResponse.SERVING
    running.service.stop()
    for watch in watches:
        assert [answer.status for answer in watch] == [HealthCheckResponse.NOT_SERVING]
        assert watch.code() is grpc.StatusCode.OK
