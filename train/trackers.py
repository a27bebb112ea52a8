"""TensorBoard, Weights & Biases and MLflow beside metrics.jsonl: told numbers and the configuration, never a sample."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from medvlm.train.config import TrackerName

_PACKAGES: dict[TrackerName, str] = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


class Tracker(Protocol):
    """Takes the numbers of each step of one stage."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of one optimizer step, by name."""

    def close(self) -> None:
        """Write what is held back."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse, before anything is trained, trackers whose package is not installed.

    Raises:
        ModuleNotFoundError: names the package and the command that installs it.
    """
    missing = [_PACKAGES[name] for name in names if find_spec(_PACKAGES[name]) is None]
    if missing:
        raise ModuleNotFoundError(
            f"tracking names {', '.join(missing)}, which is not installed; run `pip install {' '.join(missing)}`, or "
            "leave it out of tracking: metrics.jsonl and report.html need neither",
            name=missing[0],
        )


def open_trackers(
    names: Sequence[TrackerName],
    *,
    run: str,
    stage: str,
    output: Path,
    folder: Path,
    settings: Mapping[str, Any],
    start_step: int = 0,
) -> list[Tracker]:
    """The trackers of one stage.

    Args:
        run: name of the training: the project or experiment.
        output: run folder; ``folder``: of the stage, whose name is the name of the tracked run.
        settings: configuration as plain values.
        start_step: steps done before, when resuming; what was told of later ones is taken back where a tracker can.
    """
    made: list[Tracker] = []
    for name in names:
        match name:
            case "tensorboard":
                made.append(TensorBoard(output / "tensorboard" / folder.name, start_step))
            case "wandb":
                made.append(WeightsAndBiases(run, folder, output, settings))
            case "mlflow":
                made.append(MLflow(run, stage, folder, output, settings))
    return made


class TensorBoard:
    """Event files in output_dir/tensorboard/NN-stage, so that stages lie over each other under the same names."""

    def __init__(self, folder: Path, start_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run for each stage, in a group for each training; WANDB_MODE=offline keeps it in the run folder."""

    def __init__(self, run: str, folder: Path, output: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        output.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "medvlm"), group=run, name=f"{run}/{folder.name}", id=name,
            resume="allow", dir=str(output), config=dict(settings),
            # Nothing but the numbers: no code, no console, no git remote, no name of the machine, no command line.
            settings=wandb.Settings(
                save_code=False, console="off", disable_git=True, x_disable_meta=True, x_save_requirements=False,
                host="-",
            ),
        )  # fmt: skip

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run for each stage; at MLFLOW_TRACKING_URI, else in a SQLite file of the run folder."""

    def __init__(self, run: str, stage: str, folder: Path, output: Path, settings: Mapping[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        output.mkdir(parents=True, exist_ok=True)
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(output / 'mlflow.db').resolve()}"
        self.client = MlflowClient(tracking_uri=place)
        known = self.client.get_experiment_by_name(run)
        experiment = self.client.create_experiment(run) if known is None else known.experiment_id
        key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        found = self.client.search_runs([experiment], f"tags.medvlm_stage_folder = '{key}'", max_results=1)
        if found:
            self.name = found[0].info.run_id
            return
        made = self.client.create_run(experiment, run_name=stage, tags={"medvlm_stage_folder": key})
        self.name = made.info.run_id
        for setting, value in flat(settings).items():
            self.client.log_param(self.name, setting, str(value)[:500])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.name, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

    def close(self) -> None:
        self.client.set_terminated(self.name)


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; members of a list by their place."""
    if isinstance(settings, Mapping):
        items = [(str(key), value) for key, value in settings.items()]
    elif isinstance(settings, list | tuple):
        items = [(str(number), value) for number, value in enumerate(settings)]
    else:
        return {prefix.removesuffix("."): settings}
    found: dict[str, Any] = {}
    for key, value in items:
        found |= flat(value, f"{prefix}{key}.")
    return found
