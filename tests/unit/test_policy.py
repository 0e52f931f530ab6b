"""Every RPC names its limit and who may call it."""

import pytest

from identity import policy


def test_every_rpc_has_a_rule() -> None:
    policy.check(policy.methods_of(policy.SERVICES), policy.RULES)


@pytest.mark.parametrize(
    ("methods", "rules"),
    [
        pytest.param({"/a/B", "/a/C"}, {"/a/B"}, id="an RPC without a rule"),
        pytest.param({"/a/B"}, {"/a/B", "/a/C"}, id="a rule without an RPC"),
        pytest.param({"/a/C"}, {"/a/c"}, id="other letters"),
    ],
)
def test_one_without_stops_the_start(methods: set[str], rules: set[str]) -> None:
    with pytest.raises(policy.PolicyError, match=r"/a/[Cc]"):
        policy.check(frozenset(methods), rules)
