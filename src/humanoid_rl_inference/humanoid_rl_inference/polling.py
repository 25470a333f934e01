"""Subscriptions that their owner polls: no executor waits for them, and a message is taken when it is wanted."""

from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.subscription import Subscription


class PolledGroup(CallbackGroup):
    """Keeps subscriptions out of the executor's wait set."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


def never_called(_message: Any) -> None:
    """Callback of a polled subscription: rclpy demands one."""
    raise AssertionError("a polled subscription got into the executor")


def take(subscription: Subscription) -> Any | None:
    """The oldest message not taken yet, serialized if the subscription is raw; None when there is no new one."""
    with subscription.handle:
        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    return None if taken is None else taken[0]
