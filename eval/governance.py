"""Which data may leave this machine: open benchmarks anywhere, all else only to where somebody said that it may go."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit


def is_local(url: str) -> bool:
    """Whether ``url`` is this machine itself (a loopback address); a private network is not."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if "@" in parts.netloc:  # readers of URLs disagree about the host of http://a\\@b
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_may_leave(access: str | None, url: str, approved: Sequence[str] = ()) -> None:
    """Refuse to send data to ``url`` that nobody has approved it for.

    Args:
        access: of the task, see task.Access; None: own data, of which nobody knows who may see them.
        approved: hosts that the terms of the data, or the owner, allow.

    Raises:
        ValueError: the data are not open, ``url`` is another machine, and its host is not approved.
    """
    host = urlsplit(url).hostname or ""
    if access == "open" or is_local(url) or host in approved:
        return
    whose = "your own data" if access is None else f"{access} data"
    raise ValueError(
        f"{whose} would be sent to {host}: its terms must allow that (PhysioNet forbids it for credentialed data "
        f"unless the service keeps nothing). If they do, say --approved-endpoint {host}; run.json then keeps that word"
    )
