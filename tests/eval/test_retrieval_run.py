"""medvlm eval retrieve: measures against trec_eval's, BM25 against bm25s', layouts, encoders, resuming, intervals."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from sklearn.metrics import ndcg_score

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import tiny_model
from evaluation_fixtures import a_sample, write_manifest, write_visuals

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question
from medvlm.eval.embeddings import embed_samples
from medvlm.eval.plan import read_items
from medvlm.eval.retrieval import pairs, run
from medvlm.eval.retrieval.bm25 import BM25, bigrams, words
from medvlm.eval.retrieval.checkpoint_encoder import CheckpointEncoder
from medvlm.eval.retrieval.corpus import Passage, read_collection
from medvlm.eval.retrieval.encoders import TransformersEncoder, pool
from medvlm.eval.retrieval.measures import measures_of, rank
from medvlm.eval.retrieval.tasks import TASKS, RetrievalTask, differs
from medvlm.eval.retrieval.vectors import VectorFile, embedded
from medvlm.eval.rows import read_rows
from medvlm.eval.scorers.retrieval import median_rank, ranks
from medvlm.model import save_checkpoint
from medvlm.model.heads import add_head

TEXTS = {
    "d1": "A nodule in the left upper lobe.", "d2": "Pleural effusion on the right side.", "d3": "The heart is normal.",
    "d4": "A fracture of the seventh rib.", "d5": "A nodule of the thyroid gland.", "d6": "Nothing was seen.",
}  # fmt: skip
QUERIES = {"q1": "nodule of the left lung", "q2": "pleural effusion", "q3": "broken rib", "q4": "who judged this?"}
QRELS = [("q1", "d1", 2), ("q1", "d5", 1), ("q1", "d3", 0), ("q2", "d2", 1), ("q3", "d4", 1), ("q4", "d6", 0)]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_beir(folder: Path, *, size: int = 0) -> Path:
    """The six documents above, or ``size`` made-up ones of which one is right for each of as many queries."""
    documents = [{"_id": name, "title": "", "text": text} for name, text in TEXTS.items()]
    queries, judged = [{"_id": name, "text": text} for name, text in QUERIES.items()], QRELS
    if size:
        documents = [{"_id": f"d{n}", "title": f"Title {n}", "text": f"text number {n}"} for n in range(size)]
        queries = [{"_id": f"q{n}", "text": f"which is {n}?"} for n in range(size)]
        judged = [(f"q{n}", f"d{n}", 1) for n in range(size)]
    write_lines(folder / "corpus.jsonl", documents)
    write_lines(folder / "queries.jsonl", queries)
    (folder / "qrels").mkdir(exist_ok=True)
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t{grade}" for query, document, grade in judged)]
    (folder / "qrels/test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def figures(out: Path) -> dict[str, float]:
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    return {f"{row['group']}/{row['metric']}" if row["group"] != "all" else row["metric"]: row["value"] for row in rows}


def retrieve(*arguments: object) -> int:
    return run.main([str(argument) for argument in arguments])


# --- Measures ----------------------------------------------------------------------------------------------------


def test_the_golden_case_of_trec_eval():
    """pytrec_eval-terrier 0.5.11 on the same scores: a judged document outside of the corpus counts in the ideal."""
    grades, scores = {0: 3, 1: 2, 2: 0, 3: 1}, np.array([0.2, 0.9, 0.8, 0.5, 0.7])
    found = measures_of(rank(scores, grades), grades, missing=(2,))
    assert found["ndcg_at_10"] == pytest.approx(0.6308673214599223, abs=1e-12)
    assert found["recall_at_1"] == 0.25 and found["recall_at_5"] == 0.75 and found["mrr"] == 1
    second = measures_of(rank(np.array([0.9, 0.8, 0.1]), {1: 1}), {1: 1})
    assert second["ndcg_at_10"] == pytest.approx(0.6309297535714575, abs=1e-12) and second["mrr"] == 0.5


def test_ndcg_is_that_of_scikit_learn_where_nothing_ties():
    generator = np.random.default_rng(0)
    for _ in range(20):
        grades = generator.integers(0, 4, 30)
        grades[0] = 1
        scores = generator.permutation(30) / 30
        held = dict(enumerate(grades.tolist()))
        expected = ndcg_score([grades], [scores], k=10)
        assert measures_of(rank(scores, held), held)["ndcg_at_10"] == pytest.approx(expected, abs=1e-12)


def test_ties_are_broken_against_the_model():
    grades = {1: 1, 2: 3}
    ranking = rank(np.zeros(5), grades)
    assert ranking.places.tolist() == [0, 3, 4, 1, 2] and ranking.first_right == 4
    found = measures_of(ranking, grades)
    assert found["recall_at_1"] == 0 and found["mrr"] == 1 / 4
    assert found["ndcg_at_10"] == pytest.approx((1 / math.log2(5) + 3 / math.log2(6)) / (3 + 1 / math.log2(3)))
    deep = rank(np.zeros(500), {0: 1})
    assert len(deep.places) == 100 and 0 not in deep.places and deep.first_right == 500
    assert rank(np.array([1.0, 1.0, 2.0]), {1: 1}, depth=2).places.tolist() == [2, 0], "a tie at the cut"


@pytest.mark.parametrize(("scores", "grades", "message"), [
    ([1.0, np.nan], {0: 1}, "not finite"), ([1.0, 2.0], {0: 0}, "no document is relevant"),
])  # fmt: skip
def test_what_cannot_be_ranked_is_refused(scores, grades, message):
    with pytest.raises(ValueError, match=message):
        rank(np.array(scores), grades)


# --- BM25 --------------------------------------------------------------------------------------------------------

CORPUS = (
    "a cat is a feline and likes to purr", "a dog is the human s best friend and loves to play",
    "a bird is a beautiful animal that can fly", "a fish is a creature that lives in water and swims a a a",
    "the cat and the dog play with the cat",
)  # fmt: skip


@pytest.mark.parametrize(("parameters", "expected"), [
    ({}, [1.7076382637, 0.5016028881, 0.1877727956, 0.2216800004, 1.5669834614]),
    ({"k1": 0.9, "b": 0.4}, [1.9019782543, 0.5972388387, 0.2021900415, 0.2391184717, 1.7049407959]),
])  # fmt: skip
def test_bm25_has_the_values_of_bm25s(parameters, expected):
    """bm25s 0.3.16, method="lucene", on the same words (float32); a word twice in the query, one that is unknown."""
    assert BM25(CORPUS, **parameters).scores("cat play a purr cat unknown") == pytest.approx(expected, abs=1e-6)


def test_words_and_bigrams():
    assert words("Ｔ1-weighted, 3.5 cm") == ["t1", "weighted", "3", "5", "cm"]
    assert bigrams("CT显示左肺结节3mm, 肺") == ["ct", "显示", "示左", "左肺", "肺结", "结节", "3mm", "肺"]
    chinese = ["左肺结节", "右肾结石"]
    assert BM25(chinese).scores("肺结节").tolist() == [0, 0], "without bigrams a sentence is one word"
    assert BM25(chinese, tokens="bigrams").scores("肺结节").argmax() == 0
    with pytest.raises(ValueError, match="k1=-1"):
        BM25(chinese, k1=-1)


# --- Layouts -----------------------------------------------------------------------------------------------------


def test_beir_is_read_and_unjudged_queries_are_counted(tmp_path):
    folder = write_beir(tmp_path)
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q5", "text": "never judged"}\n')
    held = read_collection(folder)
    assert [query.name for query in held.queries] == ["q1", "q2", "q3"]
    assert held.grades[0] == {0: 2, 4: 1, 2: 0}
    assert (held.unjudged, held.nothing_relevant, held.missing, held.has_images) == (1, 1, None, False)


def test_cmirb_and_r2med_are_read_alike(tmp_path):
    judged = [{"q_id": query, "p_id": document, "score": grade} for query, document, grade in QRELS]
    names = {"cmirb": ("queries.jsonl", "qrels/test.jsonl"), "r2med": ("query.jsonl", "qrels.jsonl")}
    beir = read_collection(write_beir(tmp_path / "beir"))
    for name, (queries, qrels) in names.items():
        folder = tmp_path / name
        write_lines(folder / "corpus.jsonl", [{"id": key, "text": text} for key, text in TEXTS.items()])
        write_lines(folder / queries, [{"id": key, "text": text} for key, text in QUERIES.items()])
        write_lines(folder / qrels, judged)
        held = read_collection(folder)
        assert (held.documents, held.queries, held.grades) == (beir.documents, beir.queries, beir.grades)
    (tmp_path / "r2med/qrels.jsonl").unlink()
    (tmp_path / "r2med/qrels.txt").write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in QRELS))
    assert read_collection(tmp_path / "r2med").grades == beir.grades


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda f: (f / "corpus.jsonl").unlink(), r"none of corpus\.jsonl is here"),
    (lambda f: (f / "query.jsonl").write_text("{}"), r"queries\.jsonl and query\.jsonl are both here"),
    (lambda f: (f / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n' * 2), "stands twice"),
    (lambda f: (f / "corpus.jsonl").write_text('{"_id": "a", "text": ""}\n'), "neither text nor picture"),
    (lambda f: (f / "corpus.jsonl").write_text('{"_id": "a", "image": "no.png"}\n'), "the picture no.png is missing"),
    (lambda f: (f / "qrels/test.tsv").write_text("q1\td1\t0.5\n"), "no whole number"),
    (lambda f: (f / "qrels/test.tsv").write_text("q1\td1\t1\nq1\td1\t1\n"), "judged twice"),
    (lambda f: (f / "qrels/test.tsv").write_text("q1\td9\t1\n"), "judges 0 queries and 1 documents"),
    (lambda f: (f / "qrels/test.tsv").write_text("q1\td1\t0\n"), "no query of"),
])  # fmt: skip
def test_damaged_folders_are_refused(spoil, message, tmp_path, capsys):
    spoil(write_beir(tmp_path / "data"))
    assert retrieve("--beir", tmp_path / "data", "--model", "oracle", "--out", tmp_path / "out") == 2
    assert message.replace("\\", "") in capsys.readouterr().err


def test_judged_documents_that_are_missing_count_against_the_model(tmp_path):
    folder = write_beir(tmp_path / "data")
    with (folder / "qrels/test.tsv").open("a") as file:
        file.write("q2\tgone\t1\n")
    assert retrieve("--beir", folder, "--model", "oracle", "--out", tmp_path / "out", "--partial") == 0
    assert figures(tmp_path / "out")["recall_at_5"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert json.loads((tmp_path / "out/metrics.json").read_text())["counts"]["judged_documents_missing"] == 1


# --- Self-test ---------------------------------------------------------------------------------------------------


def test_who_knows_the_judgements_is_perfect(tmp_path):
    assert retrieve("--beir", write_beir(tmp_path / "data"), "--model", "oracle", "--out", tmp_path / "out") == 0
    found = figures(tmp_path / "out")
    assert found.pop("recall_at_1") == pytest.approx((0.5 + 1 + 1) / 3), "two documents are right for one query"
    assert set(found.values()) == {1.0}
    assert read_rows(tmp_path / "out/rankings.jsonl")[0]["found"][0] == ["d1", 2.0, 2]


def test_random_order_is_at_chance_and_one_score_for_all_finds_nothing(tmp_path):
    size = 300
    folder = write_beir(tmp_path / "data", size=size)
    for model in ("random:0", "constant"):
        assert retrieve("--beir", folder, "--model", model, "--out", tmp_path / model) == 0
    chance, nothing = figures(tmp_path / "random:0"), figures(tmp_path / "constant")
    # One right of 300: a hit within k has the share k / 300; four standard errors of 300 queries.
    for k in (1, 5, 10, 100):
        share = k / size
        assert abs(chance[f"recall_at_{k}"] - share) < 4 * math.sqrt(share * (1 - share) / size)
    expected = np.mean([1 / place for place in range(1, size + 1)])
    assert abs(chance["mrr"] - expected) < 4 * 0.06 / math.sqrt(size)
    assert nothing["recall_at_100"] == nothing["ndcg_at_10"] == 0 and nothing["mrr"] == pytest.approx(1 / size)


def test_bm25_runs_end_to_end_and_twice_to_the_byte(tmp_path, capsys):
    folder = write_beir(tmp_path / "data")
    for out in ("a", "b"):
        assert retrieve("--beir", folder, "--model", "bm25:k1=0.9,b=0.4", "--out", tmp_path / out) == 0
    for name in ("metrics.json", "rankings.jsonl", "table.md", "run.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert figures(tmp_path / "a")["mrr"] == 1 and "ndcg_at_10" in capsys.readouterr().out
    counts = json.loads((tmp_path / "a/metrics.json").read_text())["counts"]
    assert counts["queries_without_relevant_document"] == 1
    assert json.loads((tmp_path / "a/run.json").read_text())["answering"] == {
        "variant": "lucene", "k1": 0.9, "b": 0.4, "tokens": "words",
    }  # fmt: skip
    assert retrieve("--beir", folder, "--model", "bm25", "--out", tmp_path / "a") == 2
    assert "is the run of answering" in capsys.readouterr().err
    assert retrieve("--beir", folder, "--model", "bm25:k2=1", "--out", tmp_path / "c") == 2
    assert not (tmp_path / "a/retrieve.lock").exists()


# --- Vectors -----------------------------------------------------------------------------------------------------


def test_vectors_of_others_rank_documents(tmp_path, capsys):
    folder, given = write_beir(tmp_path / "data"), tmp_path / "vectors"
    given.mkdir()
    corpus = np.eye(6, dtype=np.float32)
    queries = np.array([[9, 0, 0, 0, 8, 0], [0, 1, 0, 0, 0, 0], [2, 0, 0, 1, 0, 0]], np.float32)
    np.savez(given / "corpus.npz", ids=np.array(list(TEXTS)), vectors=corpus)
    np.save(given / "queries.npy", queries)
    (given / "queries.ids.json").write_text('["q1", "q2", "q3"]')
    assert retrieve("--beir", folder, "--model", f"embeddings:{given}", "--out", tmp_path / "out") == 0
    assert figures(tmp_path / "out")["mrr"] == pytest.approx((1 + 1 + 0.5) / 3)
    (given / "queries.ids.json").write_text('["q1", "q2", "q9"]')
    assert retrieve("--beir", folder, "--model", f"embeddings:{given}", "--out", tmp_path / "x") == 2
    assert "1 of 3 are not embedded ('q3' is one)" in capsys.readouterr().err
    (given / "queries.ids.json").write_text('["q1", "q2", "q3"]')
    np.save(given / "queries.npy", np.zeros_like(queries))
    assert retrieve("--beir", folder, "--model", f"embeddings:{given}", "--out", tmp_path / "x") == 2
    assert "has no direction" in capsys.readouterr().err
    np.save(given / "queries.npy", np.array([object()] * 3), allow_pickle=True)
    assert retrieve("--beir", folder, "--model", f"embeddings:{given}", "--out", tmp_path / "x") == 2
    assert "no objects" in capsys.readouterr().err


def test_a_killed_run_embeds_only_what_is_missing(tmp_path):
    asked: list[int] = []

    def embed(places: list[int]) -> np.ndarray:
        asked.extend(places)
        return np.array([[place, 1] for place in places], np.float32)

    keys = ["a", "b", "a", "c", "d"]
    steps = embedded(tmp_path, keys, embed, batch=2)
    assert next(steps) == (2, 4) and asked == [0, 1], "what stands twice is embedded once"
    steps.close()
    with (tmp_path / "embeddings.f32").open("ab") as file:  # killed between the numbers and their keys
        file.write(b"\0" * 11)
    with (tmp_path / "embeddings.keys.jsonl").open("a") as file:
        file.write('{"key": "c", "si')
    assert list(embedded(tmp_path, keys, embed, batch=2)) == [(2, 2)] and asked == [0, 1, 3, 4]
    assert VectorFile(tmp_path).read(keys).tolist() == [[0, 1], [1, 1], [0, 1], [3, 1], [4, 1]]
    with pytest.raises(ValueError, match="2 numbers expected"):
        VectorFile(tmp_path).add(["e"], np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="not finite"):
        VectorFile(tmp_path).add(["e"], np.array([[np.inf, 0]], np.float32))
    (tmp_path / "embeddings.f32").write_bytes(b"")
    with pytest.raises(ValueError, match="does not belong"):
        VectorFile(tmp_path)


# --- Encoders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A small BERT with random weights and the words of the texts, as a folder of transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    known = sorted({word for text in (*TEXTS.values(), *QUERIES.values()) for word in words(text)})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_pooling_by_hand_on_either_side_of_padding():
    states = torch.arange(2 * 4 * 1, dtype=torch.float32).reshape(2, 4, 1)
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])
    assert pool(states, mask, "mean").flatten().tolist() == [1, 6.5]
    assert pool(states, mask, "cls").flatten().tolist() == [0, 6]
    assert pool(states, mask, "last").flatten().tolist() == [2, 7]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_text_encoder_says_the_same_in_any_batch(pooling, bert):
    encoder = TransformersEncoder(str(bert), pooling=pooling, device="cpu", query_prefix="nodule ")
    passages = [Passage(name=name, text=text) for name, text in TEXTS.items()]
    together = encoder.embed(passages, "corpus")
    alone = np.concatenate([encoder.embed([passage], "corpus") for passage in passages])
    assert together.shape == (6, 32) and np.abs(together - alone).max() < 1e-5
    assert np.abs(encoder.embed(passages, "queries") - together).max() > 1e-3, "the prefix is read"
    assert encoder.cut(passages, "corpus") == 0
    assert TransformersEncoder(str(bert), pooling=pooling, max_length=5, device="cpu").cut(passages, "corpus") == 4


def test_transformers_end_to_end_and_again_without_embedding(bert, tmp_path, monkeypatch, capsys):
    folder, out = write_beir(tmp_path / "data"), tmp_path / "out"
    command = ["--beir", folder, "--model", f"transformers:{bert}", "--out", out, "--device", "cpu", "--max-length", 5]
    assert retrieve(*command) == 2 and "--pooling" in capsys.readouterr().err
    assert retrieve(*command, "--pooling", "mean", "--batch-size", 2) == 0
    before = {name: (out / name).read_bytes() for name in ("metrics.json", "rankings.jsonl", "table.md")}
    assert json.loads(before["metrics.json"])["counts"]["texts_cut_off_at_their_end"] == 4
    monkeypatch.setattr(TransformersEncoder, "embed", lambda *_: pytest.fail("it is embedded already"))
    assert retrieve(*command, "--pooling", "mean", "--batch-size", 3) == 0
    assert before == {name: (out / name).read_bytes() for name in before}
    assert retrieve(*command, "--pooling", "cls") == 2, "other vectors may not lie in the same folder"
    assert retrieve("--beir", folder, "--model", f"transformers:{tmp_path}", "--pooling", "cls", "--out", out) == 2


class EmbeddingServer:
    """Speaks POST /v1/embeddings over real HTTP: a text becomes the counts of its letters; fails as it is told."""

    def __init__(self) -> None:
        self.faults: list[int] = []
        self.texts: list[str] = []
        self.down_after: int | None = None
        self.shuffled = False

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        status = self.faults.pop(0) if self.faults else 200
        if self.down_after is not None and len(self.texts) >= self.down_after:
            status = 503
        if any(len(text) > 60 for text in body["input"]):
            status = 400
        answer: dict = {"error": {"message": f"told to say {status}"}}
        if status == 200:
            self.texts += body["input"]
            vectors = [[float(text.lower().count(letter)) for letter in "abcdefghijklmnop"] for text in body["input"]]
            data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            answer = {
                "object": "list", "data": data[::-1] if self.shuffled else data, "model": body["model"], "usage": usage,
            }  # fmt: skip
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def server() -> Iterator[tuple[EmbeddingServer, str]]:
    state = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            state.reply(self)

        def log_message(self, *_: object) -> None:
            pass

    held = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=held.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{held.server_address[1]}/v1"
    finally:
        held.shutdown()
        held.server_close()
        thread.join()


def test_an_endpoint_is_asked_again_and_an_outage_loses_nothing(server, tmp_path, capsys):
    pytest.importorskip("openai")
    state, url = server
    folder, out = write_beir(tmp_path / "data"), tmp_path / "out"
    command = ["--beir", folder, "--model", f"endpoint:{url}#m", "--out", out, "--batch-size", 2, "--retries", 1]
    state.faults, state.shuffled, state.down_after = [429], True, 5
    assert retrieve(*command) == 2 and "what was embedded is kept" in capsys.readouterr().err
    assert len(state.texts) == 5
    state.down_after = None
    assert retrieve(*command) == 0
    assert sorted(state.texts) == sorted([*list(QUERIES.values())[:3], *TEXTS.values()]), "each text once"
    held = VectorFile(out / "embeddings/corpus")
    assert len(held.places) == 6 and held.size == 16
    expected = [[text.lower().count(letter) for letter in "abcdefghijklmnop"] for text in TEXTS.values()]
    assert sorted(map(tuple, held.read(list(held.places)).tolist())) == sorted(map(tuple, expected))
    long = {**TEXTS, "d6": "a" * 100}
    write_lines(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in long.items()])
    other = [*command[:4], "--out", tmp_path / "long", "--batch-size", 2]
    assert retrieve(*other) == 2 and "give --max-characters" in capsys.readouterr().err
    other[5] = tmp_path / "cut"
    assert retrieve(*other, "--max-characters", 50) == 0
    assert json.loads((tmp_path / "cut/metrics.json").read_text())["counts"]["texts_cut_off_at_their_end"] == 1


def test_own_data_go_to_approved_hosts_only(tmp_path, capsys):
    pytest.importorskip("openai")
    folder = write_beir(tmp_path / "data")
    command = ["--beir", folder, "--model", "endpoint:https://vectors.example/v1#m", "--out", tmp_path / "out"]
    assert retrieve(*command) == 2
    assert "your own data would be sent to vectors.example" in capsys.readouterr().err
    assert not (tmp_path / "out/run.json").exists()


# --- Visuals and texts -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Twelve pairs of 2D and 3D of six patients, two of which say the same; one shows nothing."""
    folder = tmp_path_factory.mktemp("pairs")
    write_visuals(folder, 6)
    samples = [
        a_sample(patient, kind, "report", "Report?", Question(
            kind="report", answers=(f"A nodule of {min(patient, 4)} mm, {kind}.",), topic="report",
        ))
        for patient in range(6) for kind in ("image", "volume")
    ]  # fmt: skip
    bare = a_sample(0, "text", "q", "What?", Question(kind="open", answers=("this",)), shown=False)
    return write_manifest(folder / "test.jsonl", [*samples, bare])


@pytest.fixture(scope="module")
def checkpoint(processor, tmp_path_factory) -> Path:
    """A tiny model with a contrastive head of random weights."""
    model = tiny_model(processor)
    add_head(model, "contrastive", size=16, pooling="mean", reads="mean", bias=False)
    return save_checkpoint(tmp_path_factory.mktemp("model") / "tiny", model, processor)


def test_a_checkpoint_is_measured_in_both_directions_and_dimensions(checkpoint, manifest, tmp_path):
    out = tmp_path / "out"
    command = ["--data", manifest, "--model", checkpoint, "--out", out, "--device", "cpu"]
    assert retrieve(*command) == 0
    found = figures(out)
    assert len(found) == 3 * 2 * 4, "all, 2d, 3d; both directions; three recalls and the median"
    encoder = CheckpointEncoder(str(checkpoint), device="cpu")
    samples = [item.sample for item in read_items([manifest])[0] if item.sample.visuals()]
    held = embed_samples(encoder.model, encoder.processor, samples, manifest.parent)
    assert found["text_for_visual_median_rank"] == median_rank(held.similarity(), held.right())
    assert found["visual_for_text_recall_at_5"] == (ranks(held.similarity().T, held.right().T) <= 5).mean()
    rows = {f"{row['group']}/{row['metric']}": row for row in json.loads((out / "metrics.json").read_text())["rows"]}
    row = rows["3d/text_for_visual_recall_at_1"]
    assert (row["n"], row["candidates"], row["clusters"], row["different_texts"]) == (6, 6, 6, 5)
    assert rows["all/text_for_visual_recall_at_1"]["clusters"] == 6, "two pairs a patient"
    assert json.loads((out / "metrics.json").read_text())["counts"] == {"left_out_shows nothing": 1}
    before = (out / "metrics.json").read_bytes(), (out / "rankings.jsonl").read_bytes()
    size = (out / "embeddings/pairs/embeddings.f32").stat().st_size
    assert retrieve(*command) == 0
    assert before == ((out / "metrics.json").read_bytes(), (out / "rankings.jsonl").read_bytes())
    assert (out / "embeddings/pairs/embeddings.f32").stat().st_size == size == 12 * 32 * 4


def test_texts_that_say_the_same_are_all_right_and_equals_find_nothing(manifest, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    names = [item.sample.sample_id for item in read_items([manifest])[0] if item.sample.visuals()]
    turned = np.eye(12, dtype=np.float32)
    np.savez(given / "queries.npz", ids=np.array(names), vectors=turned)
    np.savez(given / "corpus.npz", ids=np.array(names), vectors=turned)
    command = ["--data", manifest, "--model", f"embeddings:{given}", "--out"]
    assert retrieve(*command, tmp_path / "own") == 0
    assert set(figures(tmp_path / "own").values()) == {1.0}
    places = {name: place for place, name in enumerate(names)}
    swapped = turned.copy()  # the texts of patients 4 and 5 say the same: each finds the other's, and is right
    for kind in ("image", "volume"):
        four, five = places[f"4-{kind}-report"], places[f"5-{kind}-report"]
        swapped[[four, five]] = swapped[[five, four]]
    np.savez(given / "corpus.npz", ids=np.array(names), vectors=swapped)
    assert retrieve(*command, tmp_path / "swapped") == 0
    assert set(figures(tmp_path / "swapped").values()) == {1.0}
    np.savez(given / "corpus.npz", ids=np.array(names), vectors=np.ones_like(turned))
    assert retrieve(*command, tmp_path / "same") == 0
    alike = figures(tmp_path / "same")
    assert alike["text_for_visual_recall_at_5"] == 0 and alike["text_for_visual_median_rank"] == 12
    assert retrieve(*command[:3], "bm25", "--out", tmp_path / "no") == 2


def test_the_median_has_an_interval_over_patients():
    generator = np.random.default_rng(1)
    found = generator.integers(1, 2000, 3000)
    estimate = pairs.median(found, np.arange(3000).astype(str))
    assert estimate.value == np.median(found) and estimate.low < estimate.value < estimate.high
    # Of 3,000 uniform ranks the median varies with a standard error of 2000 / (2 * sqrt(3000)), about 18.
    assert 2 * 1.4 * 18 < estimate.high - estimate.low < 2 * 2.6 * 18
    clustered = pairs.median(np.repeat(found[:100], 30), np.repeat(np.arange(100), 30).astype(str))
    assert clustered.high - clustered.low > 2 * (estimate.high - estimate.low), "thirty copies say nothing more"


def test_pictures_and_texts_of_a_collection_are_fused(checkpoint, tmp_path, capsys):
    folder = write_beir(tmp_path / "data")
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        Pil.fromarray(generator.integers(0, 255, (24, 32), dtype=np.uint8)).save(folder / f"{name}.png")
    rows = [{"_id": name, "text": text} for name, text in TEXTS.items()]
    rows[0]["image"], rows[1]["image_path"] = "a.png", ["a.png", "b.png"]
    rows[2] = {"_id": "d3", "image": "b.png"}
    write_lines(folder / "corpus.jsonl", rows)
    out = tmp_path / "out"
    assert retrieve("--beir", folder, "--model", checkpoint, "--out", out, "--device", "cpu") == 0
    encoder = CheckpointEncoder(str(checkpoint), device="cpu")
    both, shown, said = encoder.embed(
        [
            Passage(name="x", text=TEXTS["d1"], images=(folder / "a.png",)),
            Passage(name="y", text="", images=(folder / "a.png",)), Passage(name="z", text=TEXTS["d1"]),
        ],
        "corpus",
    )  # fmt: skip
    assert np.allclose([np.linalg.norm(one) for one in (both, shown, said)], 1, atol=1e-5)
    assert np.abs(both - (shown + said) / np.linalg.norm(shown + said)).max() < 1e-5
    assert retrieve("--beir", folder, "--model", "bm25", "--out", tmp_path / "words") == 2
    assert "1 queries or documents are pictures alone ('d3')" in capsys.readouterr().err
    rows[2]["text"] = "words"
    write_lines(folder / "corpus.jsonl", rows)
    assert retrieve("--beir", folder, "--model", "bm25", "--out", tmp_path / "words") == 0
    assert json.loads((tmp_path / "words/metrics.json").read_text())["counts"][
        "passages_whose_pictures_were_not_seen"
    ] == 3  # fmt: skip


# --- Benchmarks --------------------------------------------------------------------------------------------------


def test_benchmarks_say_how_large_they_are(tmp_path, capsys, monkeypatch):
    assert sum(t.queries for n, t in TASKS.items() if n.startswith("r2med") and t.queries) == 876
    assert len([name for name in TASKS if name.startswith("cmirb")]) == 10
    for task in TASKS.values():
        assert task.source and task.licence and task.figures
        assert (task.queries is None) == ("NOT VERIFIED" in task.source)
        assert all(0 < value < 1 for _, value in task.ndcg_at_10)
    folder = write_beir(tmp_path / "data")
    command = ["--beir", folder, "--model", "bm25", "--out", tmp_path / "out", "--task"]
    assert retrieve(*command, "r2med/Biology") == 2
    assert "4 queries instead of 103 and 6 documents instead of 57,359" in capsys.readouterr().err
    assert retrieve(*command, "r2med/Biology", "--partial") == 0
    assert "These are no figures of r2med/Biology" in (tmp_path / "out/table.md").read_text()
    assert retrieve(*command, "r2med/Chemistry") == 2
    small: RetrievalTask = TASKS["cmirb/CovidRetrieval"]
    assert differs(small, 949, 100001) == "" and "948 queries" in differs(small, 948, 100001)


def test_a_damaged_row_of_a_manifest_is_counted(manifest, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"sample_id": 3}\n' + manifest.read_text().replace('"path": "', f'"path": "{manifest.parent}/'))
    held = pairs.read_pairs([path], limit=5)
    assert len(held.items) == 5 and sum(held.left_out.values()) == 2
    with pytest.raises(ValueError, match="stands twice"):
        pairs.read_pairs([path, path])
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match="at least two are needed"):
        pairs.read_pairs([tmp_path / "none.jsonl"])
    with pytest.raises(BadSample):
        pairs.from_folder(held, tmp_path)
