"""The HTTP client of an endpoint, which goes to the host that was named and nowhere else."""

from __future__ import annotations

import os
from typing import Any

from medvlm.eval.governance import is_local


def client_of(openai: Any, url: str, *, key_variable: str, timeout_s: float) -> Any:
    """A client of the openai package that neither follows a redirect nor takes this machine's own server to a proxy.

    Which host data may be sent to was checked for ``url`` (governance.py). A redirect would send them on to another,
    and so would HTTP_PROXY, which a client obeys for 127.0.0.1 too unless NO_PROXY says otherwise.

    Args:
        openai: the module.
        key_variable: environment variable that holds the key.
        timeout_s: for one answer.
    """
    return openai.OpenAI(
        base_url=url,
        api_key=os.environ.get(key_variable) or "none",
        timeout=timeout_s,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(follow_redirects=False, trust_env=not is_local(url)),
    )


def refuse_redirect(error: Any, url: str) -> None:
    """Raise ValueError where the server points to another address: no request will be answered here.

    Args:
        error: an APIStatusError.
    """
    if 300 <= error.status_code < 400:
        raise ValueError(
            f"{url} sends requests on to {error.response.headers.get('location', 'another address')!r}, which nobody "
            "has approved; name that address as the endpoint if the data may go there"
        ) from error
