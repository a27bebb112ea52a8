"""How well two RadGraph graphs agree (Delbrouck et al. 2022); the graphs come from a model, the counting is here.

A graph is what the package radgraph writes of one report: ``{"entities": {id: {"tokens", "label", "relations": [[kind,
id], ...]}}}``, where the label says what it is and whether it is present, absent or uncertain.

Papers that write "RadGraph F1" mean "partial". ReXrank and RadCliQ mean the mean of an entity F1 and a relation F1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Set
from typing import Any

Graph = Mapping[str, Any]


def simple(graph: Graph) -> set[Hashable]:
    """RG_E: what is named, and its label."""
    return {(entity["tokens"], entity["label"]) for entity in graph["entities"].values()}


def partial(graph: Graph) -> set[Hashable]:
    """RG_ER: that, and whether it is related to anything."""
    return {(entity["tokens"], entity["label"], bool(entity["relations"])) for entity in graph["entities"].values()}


def complete(graph: Graph) -> set[Hashable]:
    """RG_ER with a bar: each relation with both its ends; what has no relation as in ``simple``."""
    found: set[Hashable] = set()
    for entity in graph["entities"].values():
        if not entity["relations"]:
            found.add((entity["tokens"], entity["label"]))
        for kind, other in entity["relations"]:
            end = graph["entities"][other]["tokens"].lower()
            found.add((entity["tokens"].lower(), entity["label"], kind, end))
    return found


def relations(graph: Graph) -> set[Hashable]:
    """Relations with label and words of both ends, as the reports' metric of Yu et al. 2023 counts them."""
    entities = graph["entities"]
    return {
        ((entity["tokens"], entity["label"]), (entities[other]["tokens"], entities[other]["label"]), kind)
        for entity in entities.values()
        for kind, other in entity["relations"]
        if other in entities
    }


def set_f1(answer: Set[Hashable], reference: Set[Hashable]) -> float:
    """Harmonic mean of precision and recall of a set; 0 when both are empty, as radgraph has it."""
    total = len(answer) + len(reference)
    return 2 * len(answer & reference) / total if total else 0.0


LEVELS: Mapping[str, Callable[[Graph], set[Hashable]]] = {"simple": simple, "partial": partial, "complete": complete}


def f1_of(answer: Graph, reference: Graph) -> dict[str, float]:
    """F1 by level, and "rexrank" = (entity F1 + relation F1) / 2. Any graph without entities scores 0 in all."""
    if not answer["entities"] or not reference["entities"]:
        return dict.fromkeys((*LEVELS, "rexrank"), 0.0)
    found = {name: set_f1(of(answer), of(reference)) for name, of in LEVELS.items()}
    of_relations = set_f1(relations(answer), relations(reference))
    return found | {"rexrank": (found["simple"] + of_relations) / 2}


def degenerate(answer: Graph, reference: Graph) -> list[str]:
    """Why the F1 of two graphs means little."""
    if not answer["entities"] and not reference["entities"]:
        return ["no entity in either graph: F1 is 0 by convention"]
    if not reference["entities"]:
        return ["no entity in the reference: F1 is 0 whatever is answered"]
    return []
