"""A stage trains from shards as from the manifest that they were made of: the same packs, to the bit."""

import hashlib
from pathlib import Path

import pytest
from tiny_curriculum import write_config

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.data_recipes.shards import shard
from medvlm.train import run


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "data"
    write_phantoms(folder, patients=12, seed=3)
    return folder


def trained(config: str, capsys) -> str:
    assert run.main([config, "--stage", "align"]) == 0
    capsys.readouterr()
    weights = Path(config).with_suffix("") / "stages" / "01-align" / "checkpoint" / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def test_shards_train_the_same_weights_as_their_manifest(phantoms, tmp_path, capsys):
    out = phantoms / "shards" / "captions_2d"
    arguments = [str(phantoms / "train_captions_2d.jsonl"), "--out", str(out), "--size", "source", "--keep-order"]
    assert shard.main([*arguments, "--rows-per-shard", "3"]) == 0
    old = "manifest: train_captions_2d.jsonl"
    plain = trained(write_config(tmp_path / "plain.yaml", phantoms), capsys)
    sharded = trained(write_config(tmp_path / "sharded.yaml", phantoms, old, "manifest: shards/captions_2d"), capsys)
    assert plain == sharded


def test_a_damaged_shard_is_quarantined_with_its_name(phantoms, tmp_path, capsys):
    out = tmp_path / "shards"
    arguments = [
        str(phantoms / "train_captions_2d.jsonl"),
        "--out",
        str(out),
        "--size",
        "source",
        "--rows-per-shard",
        "3",
    ]
    assert shard.main(arguments) == 0
    first = sorted(out.glob("*.tar"))[0]
    damaged = bytearray(first.read_bytes())
    place = damaged.index(b'{"sample_id"')
    damaged[place : place + 4] = b"XXXX"
    first.write_bytes(damaged)
    config = write_config(tmp_path / "a.yaml", phantoms, "manifest: train_captions_2d.jsonl", f"manifest: {out}")
    assert run.main([config, "--stage", "align"]) == 0
    written = (tmp_path / "a" / "stages" / "01-align" / "quarantine.jsonl").read_text()
    assert first.name in written and "have changed since the shard was built" in written
    assert len(written.splitlines()) == 1
