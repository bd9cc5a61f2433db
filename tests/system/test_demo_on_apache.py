"""A demo on Apache Kafka: of ``test_demo``, what the broker has a part in.

Static members of a group, broker time, topics with a configuration, fetches that end at the first byte: signing goes on
through the death of each signer and through new shares, large records come through, and nothing is left behind.
"""

import pytest

from tests.system.test_demo import (
    test_a_thousand_items_in_one_batch_are_signed_in_order,
    test_both_pods_sign_with_the_same_key,
    test_p5_no_request_fails_through_refreshes_and_the_public_key_stays,
    test_p6_kill_9_of_each_signer_in_turn_fails_no_request,
    test_sigterm_ends_everything_and_leaves_nothing,
)

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(300)]

__all__ = [
    "test_a_thousand_items_in_one_batch_are_signed_in_order",
    "test_both_pods_sign_with_the_same_key",
    "test_p5_no_request_fails_through_refreshes_and_the_public_key_stays",
    "test_p6_kill_9_of_each_signer_in_turn_fails_no_request",
    "test_sigterm_ends_everything_and_leaves_nothing",
]


@pytest.fixture(scope="module")
def on_broker(apache: str) -> tuple[str, ...]:
    """The demo's arguments that choose its broker."""
    return ("--kafka", apache)
