"""Benchmarks of retrieval: how many queries and documents they have, who says so, and what others have reached."""

from __future__ import annotations

from dataclasses import dataclass

from medvlm.eval.task import Access


@dataclass(frozen=True, kw_only=True)
class RetrievalTask:
    """One data set of a benchmark.

    Attributes:
        name: on the command line, "BENCHMARK/DATASET".
        queries, documents: how many there are; None: nobody whom we could read says so.
        source: who says so.
        ndcg_at_10: model -> as published, 0 to 1.
        figures: where those figures stand and how they were measured; differences to ours first.
        access: whether its texts may be sent to an endpoint, see governance.py.
    """

    name: str
    about: str
    queries: int | None
    documents: int | None
    source: str
    url: str
    licence: str
    citation: str
    language: str
    access: Access = "open"
    ndcg_at_10: tuple[tuple[str, float], ...] = ()
    figures: str = ""
    faults: tuple[str, ...] = ()


_R2MED_SOURCE = "table in README.md of github.com/R2MED/R2MED; 876 queries in all eight, as in arXiv:2505.14558"
_R2MED_FIGURES = (
    "results/base retriever of github.com/R2MED/R2MED; bm25 differs: words are stemmed and stop words left out by "
    "Lucene's English analyzer (k1=0.9, b=0.4), ours keeps every word; ties in the order of the corpus"
)
_R2MED = (
    ("Biology", 103, 57359, 0.19188, 0.12706), ("Bioinformatics", 77, 47473, 0.21548, 0.27039),
    ("Medical-Sciences", 88, 34810, 0.19683, 0.27762), ("MedXpertQA-Exam", 97, 61379, 0.00659, 0.04103),
    ("MedQA-Diag", 118, 56250, 0.02551, 0.08328), ("PMC-Treatment", 150, 28954, 0.23692, 0.26454),
    ("PMC-Clinical", 114, 60406, 0.21662, 0.15060), ("IIYi-Clinical", 129, 10449, 0.12024, 0.14724),
)  # fmt: skip
"""Data set, queries, documents, nDCG@10 of bm25 and of bge."""

_CMIRB_SOURCE = "table in README.md of github.com/CMIRB-benchmark/CMIRB"
_CMIRB_FIGURES = (
    "table in README.md of github.com/CMIRB-benchmark/CMIRB; how bm25 cuts Chinese texts is not said (here: "
    "bm25:tokens=bigrams)"
)
_CMIRB = (
    ("MedExamRetrieval", 697, 27871, 0.3195, 0.5861), ("DuBaikeRetrieval", 318, 56441, 0.1789, 0.4426),
    ("DXYDiseaseRetrieval", 1255, 54021, 0.4012, 0.7171), ("MedicalRetrieval", 1000, 100999, 0.2933, 0.5960),
    ("CmedqaRetrieval", 3999, 100001, 0.0683, 0.4257), ("DXYConsultRetrieval", 943, 12577, 0.1778, 0.4773),
    ("CovidRetrieval", 949, 100001, 0.7890, 0.7333), ("IIYiPostRetrieval", 789, 27570, 0.6695, 0.6713),
    ("CSLCiteRetrieval", 573, 36703, 0.3374, 0.4327), ("CSLRelatedRetrieval", 439, 36758, 0.2997, 0.4579),
)  # fmt: skip
"""Data set, queries, documents, nDCG@10 of bm25 and of bge-large-zh-v1.5."""

_M3_FIGURES = (
    "table in README.md of github.com/AkashGhosh/M3Retrieve: means over data sets of a task, which it does not list"
)
_M3 = (
    ("VisualContext", "picture and caption -> passage", (("BM25", 0.3807), ("NV-Embed", 0.4328), ("MM-Embed", 0.4547))),
    ("Summary", "picture and text -> summary", (("BM25", 0.1816), ("NV-Embed", 0.8973), ("MM-Embed", 0.7627))),
    ("QueryToImage", "picture and text -> picture", (("MedImageInsight", 0.4353), ("MM-Embed", 0.2949))),
    ("CaseStudy", "picture and history -> case study", (("BM25", 0.1150), ("NV-Embed", 0.1099), ("MM-Embed", 0.0991))),
)

TASKS: dict[str, RetrievalTask] = {
    task.name: task
    for task in (
        *(
            RetrievalTask(
                name=f"r2med/{name}", about="questions and cases -> passages that a reasoning answer needs",
                queries=queries, documents=documents, source=_R2MED_SOURCE,
                url=f"https://huggingface.co/datasets/R2MED/{name}", licence="MIT (repository); data: see its page",
                citation="Li et al., arXiv:2505.14558 (2025)", language="en",
                ndcg_at_10=(("bm25", bm25), ("bge", bge)), figures=_R2MED_FIGURES,
                faults=("Queries are named 0, 1, 2, ...; a document of the same name would be no copy of the query.",),
            )
            for name, queries, documents, bm25, bge in _R2MED
        ),
        *(
            RetrievalTask(
                name=f"cmirb/{name}", about="Chinese medical questions, titles and entities -> passages",
                queries=queries, documents=documents, source=_CMIRB_SOURCE,
                url=f"https://huggingface.co/datasets/CMIRB/{name}", licence="Apache-2.0, as its pages state",
                citation="Li et al., AutoMIR, arXiv:2410.20050 (EMNLP 2025)", language="zh",
                ndcg_at_10=(("bm25", bm25), ("bge-large-zh-v1.5", bge)), figures=_CMIRB_FIGURES,
                faults=(
                    "In MedExam and DuBaike the judged documents were first found by BM25 and then chosen by GPT-4o "
                    "mini; what BM25 does not find can not be relevant.",
                ),
            )
            for name, queries, documents, bm25, bge in _CMIRB
        ),
        *(
            RetrievalTask(
                name=f"m3retrieve/{name}", about=about, queries=None, documents=None,
                source="NOT VERIFIED per task: the paper and README.md say 164K queries and 1.2M documents in all 22 "
                "data sets of 16 fields",
                url="https://github.com/AkashGhosh/M3Retrieve", licence="various, see its page",
                citation="Acharya et al., arXiv:2510.06888 (EMNLP 2025)", language="en", ndcg_at_10=published,
                figures=_M3_FIGURES,
                faults=(
                    "One folder in the layout of MTEB for every field; how pictures stand in its rows was not seen. "
                    'Here they are read from "image", "image_path" or "images".',
                ),
            )
            for name, about, published in _M3
        ),
    )
}  # fmt: skip
"""By name."""


def differs(task: RetrievalTask, queries: int, documents: int) -> str:
    """How a folder differs from the published data set; "" when it does not, or when its size is not known."""
    said = [
        f"{have:,} {what} instead of {published:,}"
        for what, have, published in (("queries", queries, task.queries), ("documents", documents, task.documents))
        if published is not None and have != published
    ]
    return f"{' and '.join(said)} ({task.source})" if said else ""
