"""Retrieval: visuals and texts that find each other, or documents that are found for queries.

    medvlm eval retrieve --data MANIFEST ... --model CHECKPOINT --out RUN
    medvlm eval retrieve --beir FOLDER --model bm25 --out RUN

Writes run.json, rankings.jsonl, metrics.json and table.md. Embeddings are kept batch by batch: the same command goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of, write_atomic
from medvlm.data_recipes.one_writer import one_writer
from medvlm.eval.endpoint import EndpointOptions, endpoint_from
from medvlm.eval.retrieval import pairs as paired
from medvlm.eval.retrieval import retrievers, search
from medvlm.eval.retrieval.checkpoint_encoder import CheckpointEncoder
from medvlm.eval.retrieval.corpus import Collection, read_collection
from medvlm.eval.retrieval.encoders import POOLINGS, Encoder, TransformersEncoder
from medvlm.eval.retrieval.endpoint_encoder import EndpointEncoder
from medvlm.eval.retrieval.measures import DEPTH
from medvlm.eval.retrieval.retrievers import Retriever, Similarity
from medvlm.eval.retrieval.tasks import TASKS, differs
from medvlm.eval.rows import Row, write_json, write_rows

Told = Callable[[str], None]
MODELS = """a checkpoint with a contrastive head; embeddings:FOLDER; with --beir also bm25[:k1=1.2,b=0.75,tokens=words],
transformers:ID_OR_FOLDER, endpoint:URL#MODEL_ID, oracle, constant, random:SEED"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medvlm eval retrieve", description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", nargs="+", type=Path, help="manifests whose visuals and texts are to find each other")
    what.add_argument("--beir", type=Path, help="folder with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    parser.add_argument("--task", help=f"which benchmark --beir is: {', '.join(list(TASKS)[:2])}, ...")
    parser.add_argument("--partial", action="store_true", help="go on with another number of queries or documents")
    parser.add_argument("--model", required=True, help=MODELS)
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--similarity", choices=get_args(Similarity), default="cosine", help="of vectors (--beir)")
    parser.add_argument("--limit", type=int, help="samples of --data; the number of candidates decides the recall")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help="cuda, cpu, ...; the GPU when there is one by default")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals")
    texts = parser.add_argument_group("of transformers: and endpoint: models")
    texts.add_argument("--pooling", choices=POOLINGS, help="how states become a vector; needed for transformers:")
    texts.add_argument("--query-prefix", default="", help="put before every query")
    texts.add_argument("--document-prefix", default="", help="put before every document")
    texts.add_argument("--max-length", type=int, default=512, help="tokens read by transformers: models")
    texts.add_argument("--max-characters", type=int, help="sent to endpoint: models; the rest is cut off and counted")
    texts.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    texts.add_argument("--timeout", type=float, default=300, help="seconds for one answer of an endpoint")
    texts.add_argument("--retries", type=int, default=6, help="of a request that failed in a way that may pass")
    texts.add_argument("--key-variable", default="OPENAI_API_KEY", help="environment variable that holds the key")
    texts.add_argument(
        "--approved-endpoint", nargs="*", default=[], metavar="HOST", help="may get data not open to all"
    )
    return parser


def _encoder(args: argparse.Namespace) -> Encoder:
    kind, _, rest = args.model.partition(":")
    if kind == "transformers":
        if args.pooling is None:
            raise ValueError(f"how do the states of {rest} become a vector? Say --pooling mean, cls or last (its card)")
        return TransformersEncoder(
            rest, pooling=args.pooling, query_prefix=args.query_prefix, document_prefix=args.document_prefix,
            max_length=args.max_length, batch=args.batch_size, device=args.device,
            trust_remote_code=args.trust_remote_code,
        )  # fmt: skip
    if kind == "endpoint":
        url, model = endpoint_from(rest)
        options = EndpointOptions(
            timeout_s=args.timeout, retries=args.retries, key_variable=args.key_variable,
            approved=tuple(args.approved_endpoint),
        )  # fmt: skip
        return EndpointEncoder(
            url, model, options, access=TASKS[args.task].access if args.task else None,
            query_prefix=args.query_prefix, document_prefix=args.document_prefix, max_characters=args.max_characters,
            batch=args.batch_size,
        )  # fmt: skip
    return CheckpointEncoder(args.model, batch=args.batch_size, device=args.device)


def _retriever(args: argparse.Namespace, collection: Collection, run: Row, told: Told) -> Retriever:
    """Who finds; ``run`` is completed, and the run folder claimed before anything is embedded."""
    kind, _, rest = args.model.partition(":")
    if kind == "bm25":
        found = retrievers.lexical(collection, rest)
    elif kind in ("oracle", "constant", "random"):
        found = retrievers.known(collection, args.model)
    elif kind == "embeddings":
        found = retrievers.precomputed(collection, Path(rest), args.similarity)
    else:
        encoder = _encoder(args)
        _claim(args.out, run | {"model": encoder.name, "answering": encoder.settings | {"similarity": args.similarity}})
        found = retrievers.encoded(collection, encoder, args.out, args.similarity, told=told)
    run |= {"model": found.name, "answering": found.settings}
    _claim(args.out, run)
    return found


def _claim(out: Path, run: Row) -> None:
    """Make ``out`` the folder of ``run``, or refuse when it is another's: embeddings and figures would be mixed.

    Raises:
        ValueError: it holds another model, the same one with other settings or weights, or other data.
    """
    path = out / "run.json"
    if not path.exists():
        write_json(path, run)
        return
    owner = json.loads(path.read_text(encoding="utf-8"))
    for key in ("model", "answering", "task", "data", "limit"):
        if owner.get(key) != run.get(key):
            raise ValueError(
                f"{out} is the run of {key} {owner.get(key)!r}, not of {run.get(key)!r}; give another folder with --out"
            )


def _finish(out: Path, run: Row, rankings: list[Row], rows: list[Row], counts: Row, about: Row) -> list[Row]:
    run = {
        **run,
        "versions": {name: version(name) for name in ("medvlm", "numpy", "torch", "transformers")}
        | {"python": platform.python_version()},
    }
    write_rows(out / "rankings.jsonl", rankings)
    write_json(out / "metrics.json", {"rows": rows, "counts": counts, **about})
    write_atomic(out / "table.md", table(run, rows, counts, about))
    write_json(out / "run.json", run)
    return rows


def table(run: Row, rows: Sequence[Row], counts: Row, about: Row) -> str:
    """The figures as Markdown, with what must be known to read them."""
    lines = [f"# {run['model']}", "", f"{about['what']}; 95 % intervals over {about['cluster']}.", ""]
    lines += ["| group | measure | value | interval | n | candidates |", "|---|---|---|---|---|---|"]
    for row in rows:
        low, high = (("–" if row[key] is None else f"{row[key]:.4g}") for key in ("low", "high"))
        value = "–" if row["value"] is None else f"{row['value']:.4g}"
        lines.append(
            f"| {row['group']} | {row['metric']} | {value} | {low} to {high} | {row['n']:,} | {row['candidates']:,} |"
        )
    lines += ["", *(f"- {name.replace('_', ' ')}: {value}" for name, value in counts.items())]
    if about.get("differs"):
        lines += ["", f"These are no figures of {run['task']}: {about['differs']}."]
    for model, value in about.get("published", []):
        lines += ["", f"Published nDCG@10 of {model}: {value:.4g} ({about['figures']})."]
    return "\n".join(lines) + "\n"


def run_beir(args: argparse.Namespace, told: Told) -> list[Row]:
    """Documents for queries."""
    collection = read_collection(args.beir, partial=args.partial)
    asked = len(collection.queries) + collection.unjudged + collection.nothing_relevant
    task = TASKS[args.task] if args.task else None
    other = differs(task, asked, len(collection.documents)) if task else ""
    if other and not args.partial:
        raise ValueError(f"{args.beir} is not {args.task}: {other}; get all of it, or go on with --partial")
    run: Row = {"task": args.task, "data": collection.sha256, "partial": args.partial, "seed": args.seed}
    retriever = _retriever(args, collection, run, told)
    found = list(search.search(collection, retriever))
    rows = search.rows_of(collection, found, seed=args.seed)
    missing = collection.missing
    counts = {
        "queries_without_judgement": collection.unjudged,
        "queries_without_relevant_document": collection.nothing_relevant,
        "judged_queries_missing": missing.queries if missing else 0,
        "judged_documents_missing": missing.documents if missing else 0,
        **retriever.counts,
    }
    about: Row = {"what": "Documents found for queries", "cluster": "queries", "differs": other}
    if task:
        about |= {"published": [list(one) for one in task.ndcg_at_10], "figures": task.figures}
    return _finish(args.out, run, found, rows, counts, about)


def run_pairs(args: argparse.Namespace, told: Told) -> list[Row]:
    """Visuals and texts."""
    pairs = paired.read_pairs(args.data, args.limit)
    kind, _, rest = args.model.partition(":")
    if kind in ("bm25", "transformers", "endpoint", "oracle", "constant", "random"):
        raise ValueError(
            f"{args.model} sees no visuals; give a checkpoint with a contrastive head or embeddings:FOLDER"
        )
    hashes = {path.name: sha256_of(path) for path in args.data}
    run: Row = {"model": args.model, "task": None, "data": hashes, "limit": args.limit, "seed": args.seed}
    if kind == "embeddings":
        run["answering"] = {path.name: sha256_of(path) for path in sorted(Path(rest).glob("*.np[yz]"))}
        held = paired.from_folder(pairs, Path(rest))
    else:
        encoder = CheckpointEncoder(args.model, batch=args.batch_size, device=args.device)
        run["answering"] = encoder.settings
        _claim(args.out, run)
        held = paired.embed(pairs, encoder.pairs, args.out, batch=4 * args.batch_size, told=told)
    _claim(args.out, run)
    rows = paired.rows_of(pairs, held, seed=args.seed)
    counts = {f"left_out_{reason}": number for reason, number in pairs.left_out.items()}
    about: Row = {"what": "Visuals and texts that find each other", "cluster": "patients"}
    return _finish(args.out, run, paired.ranking_rows(pairs, held, depth=DEPTH), rows, counts, about)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 when it cannot be done as asked."""
    args = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        if args.task and (args.data or args.task not in TASKS):
            raise ValueError(f"--task names the benchmark of --beir, one of {', '.join(TASKS)}; got {args.task!r}")
        for path in args.data or ():
            if not path.is_file():
                raise ValueError(f"--data {path} is no file; give a manifest (JSON lines)")
        if args.out.exists() and not args.out.is_dir():
            raise ValueError(f"--out {args.out} is a file; give a folder")
        args.out.mkdir(parents=True, exist_ok=True)
        with one_writer(args.out / "retrieve.lock"):
            rows = (run_pairs if args.data else run_beir)(
                args, lambda text: console.print(text, highlight=False, markup=False)
            )
    except (BadSample, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        print(f"{row['group']:6} {row['metric']:34} {_shown(row)}   n {row['n']}, candidates {row['candidates']}")
    print(f"written to {args.out}")
    return 0


def _shown(row: dict[str, Any]) -> str:
    value = "  –  " if row["value"] is None else f"{row['value']:8.4f}"
    return value if row["low"] is None else f"{value} ({row['low']:.4f} to {row['high']:.4f})"


if __name__ == "__main__":
    raise SystemExit(main())
