"""What the label numbers of the 18 MedMNIST sets mean, and how each set is asked (medmnist/info.py, version 3.0.2)."""

from __future__ import annotations

from dataclasses import dataclass

BY, BY_NC = "CC BY 4.0", "CC BY-NC 4.0"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One of the 18 sets.

    Attributes:
        prompt: the question; for several findings a form with ``{}`` for the finding.
        answers: what each label number means, as an answer.
        modality: as DICOM names it where it does.
        findings: the labels are several findings of one picture, each 0 or 1.
    """

    prompt: str
    answers: tuple[str, ...]
    modality: str
    licence: str = BY
    findings: bool = False


_ORGANS = (
    "bladder", "left femur", "right femur", "heart", "left kidney", "right kidney", "liver", "left lung", "right lung",
    "pancreas", "spleen",
)  # fmt: skip
_ORGAN_PROMPT = "Which organ is in the middle of this {} crop of an abdominal CT?"
FLAGS: dict[str, Flag] = {
    "pathmnist": Flag(
        prompt="Which tissue does this patch of a colorectal histology slide show?",
        answers=(
            "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
            "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
        ),
        modality="SM",
    ),
    "chestmnist": Flag(
        prompt="Does this chest radiograph show {}?",
        answers=(
            "atelectasis", "cardiomegaly", "an effusion", "infiltration", "a mass", "a nodule", "pneumonia",
            "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural thickening", "a hernia",
        ),
        modality="DX",
        findings=True,
    ),
    "dermamnist": Flag(
        prompt="Which lesion does this dermatoscopic image show?",
        answers=(
            "actinic keratosis or intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesion",
            "dermatofibroma", "melanoma", "melanocytic nevus", "vascular lesion",
        ),
        modality="photo",
        licence=BY_NC,
    ),
    "octmnist": Flag(
        prompt="What does this optical coherence tomography of the retina show?",
        answers=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal retina"),
        modality="OPT",
    ),
    "pneumoniamnist": Flag(
        prompt="Does this chest radiograph of a child show pneumonia?", answers=("no", "yes"), modality="DX"
    ),
    "retinamnist": Flag(
        prompt="Which grade of diabetic retinopathy does this photograph show, from 0 (none) to 4 (proliferative)?",
        answers=("0", "1", "2", "3", "4"),
        modality="OP",
    ),
    "breastmnist": Flag(
        prompt="Does this breast ultrasound show a malignant lesion?", answers=("yes", "no"), modality="US"
    ),
    "bloodmnist": Flag(
        prompt="Which kind of blood cell is this?",
        answers=(
            "basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil",
            "platelet",
        ),
        modality="GM",
    ),
    "tissuemnist": Flag(
        prompt="Which kind of cell of the kidney cortex is this?",
        answers=(
            "collecting duct or connecting tubule", "distal convoluted tubule", "glomerular endothelial cell",
            "interstitial endothelial cell", "leukocyte", "podocyte", "proximal tubule segment", "thick ascending limb",
        ),
        modality="GM",
    ),
    "organamnist": Flag(prompt=_ORGAN_PROMPT.format("axial"), answers=_ORGANS, modality="CT"),
    "organcmnist": Flag(prompt=_ORGAN_PROMPT.format("coronal"), answers=_ORGANS, modality="CT"),
    "organsmnist": Flag(prompt=_ORGAN_PROMPT.format("sagittal"), answers=_ORGANS, modality="CT"),
    "organmnist3d": Flag(
        prompt="Which organ fills this crop of an abdominal CT?",
        answers=(
            "liver", "right kidney", "left kidney", "right femur", "left femur", "bladder", "heart", "right lung",
            "left lung", "spleen", "pancreas",
        ),
        modality="CT",
    ),
    "nodulemnist3d": Flag(prompt="Is this lung nodule malignant?", answers=("no", "yes"), modality="CT"),
    "adrenalmnist3d": Flag(
        prompt="Does this shape of an adrenal gland show hyperplasia?", answers=("no", "yes"), modality="SEG"
    ),
    "fracturemnist3d": Flag(
        prompt="Which kind of rib fracture is in the middle of this crop of a CT?",
        answers=("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
        modality="CT",
    ),
    "vesselmnist3d": Flag(
        prompt="Does this shape of a brain vessel show an aneurysm?", answers=("no", "yes"), modality="SEG"
    ),
    "synapsemnist3d": Flag(
        prompt="Is this synapse inhibitory or excitatory?", answers=("inhibitory", "excitatory"), modality="GM"
    ),
}  # fmt: skip
"""Answers are the authors' labels, in the singular and with the side first; label 12 of ChestMNIST ("pleural") is the
Pleural_Thickening of ChestX-ray14. OrganMNIST3D numbers its organs in another order than the 2D sets."""
