"""RadCliQ (Yu et al. 2023): how many errors a radiologist would count, foretold from four scores. LOWER IS BETTER.

Linear in the standardised scores (RadGraph as ReXrank has it, BERTScore, cosine of CheXbert embeddings, BLEU-2). The
numbers are those in the authors' repository (rajpurkarlab/CXR-Report-Metric at 9c9ecad: composite_metric_model,
normalizer and radcliq-v1). RadEval and the site of ReXrank show 1 / mean instead, for which higher is better only while
the mean is positive, and the mean of good reports is not: such a figure is never computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INPUTS = ("radgraph_rexrank", "bertscore", "semb", "bleu_2")


@dataclass(frozen=True, kw_only=True)
class Composite:
    """A linear model of standardised inputs, in the order of INPUTS."""

    intercept: float
    weights: tuple[float, float, float, float]
    means: tuple[float, float, float, float]
    scales: tuple[float, float, float, float]

    def __call__(self, inputs: Sequence[float]) -> float:
        """The value of one report.

        Raises:
            ValueError: not four inputs.
        """
        if len(inputs) != len(INPUTS):
            raise ValueError(f"RadCliQ is made of {', '.join(INPUTS)}, got {len(inputs)} numbers")
        parts = zip(self.weights, inputs, self.means, self.scales, strict=True)
        return self.intercept + sum(weight * (value - mean) / scale for weight, value, mean, scale in parts)


V0 = Composite(
    intercept=1.641666666666666,
    weights=(-0.4796252644863446, -0.6762170542369337, -0.46366575161751994, 0.2165861905287535),
    means=(0.5398376019082272, 0.6312549595000001, 0.7716797866672277, 0.4607372064809605),
    scales=(0.3018344440559102, 0.22466950746141123, 0.24750333805236252, 0.30336670936092264),
)
V1 = Composite(
    intercept=2.466552561323256e-10,
    weights=(-0.37708368261038905, -0.37030009974480316, -0.25261621789593225, 4.315048405024756e-12),
    means=(0.5379231241355762, 0.6175725628125001, 0.7647942121140658, 0.44738335396242174),
    scales=(0.3028258411486429, 0.22430938459304575, 0.2539439110169773, 0.2989271671041838),
)
