"""Asking a judge: from the cache where it has judged before, else in chunks, each kept before the next is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, Turn
from medvlm.eval.endpoint import EndpointModel
from medvlm.eval.metric import Answered, Marks
from medvlm.eval.models import Interrupted, Request, Response
from medvlm.eval.rows import Row, append_rows, drop_torn_line, read_rows
from medvlm.eval.scorers.judge import MAX_NEW_TOKENS, Judge, marks_of_reply, prompt_of

_NONE = Question(kind="open", answers=("not told",))
"""A request carries a question for stand-ins; no endpoint reads it: the judge is shown the reference in words."""

_CHUNKS_AT_ONCE = 4


def judgements(
    judge: Judge, endpoint: EndpointModel, answers: Sequence[tuple[int, Answered]], cache: Path
) -> Iterator[list[tuple[int, Marks]]]:
    """Marks of ``answers``, chunk by chunk.

    Args:
        endpoint: asks the judge.
        answers: (place, answer).
        cache: JSONL of judgements, {"key", "judge", "reply"}; appended to before a chunk is handed on.

    Raises:
        ValueError: the judge stays away, or refuses the key; what it had judged is in the cache and was handed on.
    """
    cache.parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(cache)
    known = {row["key"]: row["reply"] for row in read_rows(cache)}
    silent = [(place, one) for place, one in answers if not (one.value or "").strip()]
    if silent:
        wrong = {"judged_correct": False, "flags": ["no answer to judge: wrong without being asked"]}
        yield [(place, dict(wrong)) for place, _ in silent]
    prompts = {place: prompt_of(one) for place, one in answers if (one.value or "").strip()}
    keys = {place: judge.key(prompt) for place, prompt in prompts.items()}
    ready = [place for place in prompts if keys[place] in known]
    if ready:
        yield [(place, marks_of_reply(known[keys[place]])) for place in ready]
    rest = [place for place in prompts if keys[place] not in known]
    size = _CHUNKS_AT_ONCE * endpoint.concurrency
    for start in range(0, len(rest), size):
        yield from _chunk(judge, endpoint, rest[start : start + size], prompts, keys, cache)


def _chunk(
    judge: Judge,
    endpoint: EndpointModel,
    places: Sequence[int],
    prompts: dict[int, str],
    keys: dict[int, str],
    cache: Path,
) -> Iterator[list[tuple[int, Marks]]]:
    first = {keys[place]: place for place in reversed(places)}  # the same question and answer is judged once
    asked = list(first.items())
    fault: Interrupted | None = None
    try:
        replies = dict(enumerate(endpoint.answer([_request(key, prompts[place]) for key, place in asked])))
    except Interrupted as away:
        replies, fault = away.answered, away
    of: dict[str, Marks] = {}
    rows: list[Row] = []
    for number, reply in replies.items():
        key = asked[number][0]
        if isinstance(reply, BadSample):
            of[key] = {"judged_correct": None, "flags": [f"unscored: the judge refused it ({reply.reason[:120]})"]}
        else:
            of[key] = _read(reply)
            if reply.finish_reason == "stop":  # one that was cut off may fare better another time
                rows.append({"key": key, "judge": judge.model, "reply": reply.text})
    append_rows(cache, rows)
    yield [(place, dict(of[keys[place]])) for place in places if keys[place] in of]
    if fault is not None:
        raise ValueError(f"the judge has gone away: {fault}") from fault


def _read(reply: Response) -> Marks:
    if reply.finish_reason == "length":
        return {"judged_correct": None, "flags": [f"unscored: the judge was cut off after {MAX_NEW_TOKENS} tokens"]}
    return marks_of_reply(reply.text)


def _request(key: str, prompt: str) -> Request:
    return Request(
        request_id=key[:24],
        sample_id=key[:24],
        turns=(Turn(role="user", content=(prompt,)),),
        question=_NONE,
        visuals=(),
        max_new_tokens=MAX_NEW_TOKENS,
    )
