"""The findings that rules know by name, each with its part of the body: a closed vocabulary of English reports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from medvlm.data_recipes.pairs.english import Sentence


@dataclass(frozen=True, kw_only=True)
class FindingName:
    """One finding.

    Attributes:
        key: its name; findings of one ``group`` may be words for the same thing.
        region: lung, pleura, heart, mediastinum, bone, abdomen, brain, vessel, device.
        salient: reports that do not name it imply that it is not there. Slight findings of age are often left out.
    """

    key: str
    region: str
    group: str
    salient: bool
    pattern: re.Pattern[str]


def _name(key: str, region: str, pattern: str, group: str | None = None, *, salient: bool = True) -> FindingName:
    return FindingName(
        key=key, region=region, group=group or key, salient=salient,
        pattern=re.compile(rf"(?<![\w-])(?:{pattern})(?![\w])", re.I),
    )  # fmt: skip


_OPACITY = "lung opacity"
FINDINGS: tuple[FindingName, ...] = (
    _name("pneumothorax", "pleura", r"(?:hydro)?pneumothora(?:x|ces)|ptx"),
    _name("pericardial effusion", "heart", r"pericardial (?:effusions?|fluid)|h(?:a)?emopericardium"),
    _name(
        "pleural effusion",
        "pleura",
        r"(?<!pericardial )(?<!joint )effusions?|pleural fluid|hydrothora(?:x|ces)|"
        r"h(?:a)?emothorax",
    ),
    _name("blunted angle", "pleura", r"blunting|blunted", "pleural effusion"),
    _name("pleural thickening", "pleura", r"pleural (?:\w+ )?thickening|pleural plaques?", salient=False),
    _name(
        "consolidation",
        "lung",
        r"consolidations?|consolidative \w+|air ?space (?:disease|"
        r"opacit\w+|consolidations?)",
        _OPACITY,
    ),
    _name("pneumonia", "lung", r"(?:broncho)?pneumonia|pneumonitis", _OPACITY),
    _name(
        "opacity",
        "lung",
        r"opacit(?:y|ies)|opacification|infiltrat\w+|"
        r"ground[- ]glass \w+|densit(?:y|ies)",
        _OPACITY,
    ),
    _name("atelectasis", "lung", r"atelecta\w+|lung collapse|collapse of the \w+ (?:lobe|lung)", _OPACITY),
    _name(
        "edema",
        "lung",
        r"(?:pulmonary|interstitial|alveolar|lung) (?:o)?edema|vascular congestion|"
        r"congestive (?:heart )?failure|(?:o)?edema",
        _OPACITY,
    ),
    _name(
        "interstitial disease",
        "lung",
        r"interstitial (?:lung )?(?:disease|changes?|"
        r"markings?|thickening|opacit\w+|"
        r"prominence|fibrosis|infiltrat\w+)|pulmonary fibrosis|fibrosis|honeycombing|"
        r"bronchiectasis",
        _OPACITY,
    ),
    _name("scarring", "lung", r"scar(?:ring|s)?", _OPACITY, salient=False),
    _name(
        "emphysema",
        "lung",
        r"(?<!subcutaneous )emphysema(?:tous)?|hyperinflat\w+|hyperexpan\w+|copd|"
        r"chronic obstructive \w+(?: \w+)?|bullae?|bullous",
        "lung volume",
    ),
    _name(
        "low volumes",
        "lung",
        r"(?:low|decreased|small|diminished) lung volumes?|hypoinflat\w+|hypoventilat\w+|"
        r"bronchovascular crowding",
        "lung volume",
        salient=False,
    ),
    _name("nodule", "lung", r"(?:pulmonary |lung )?nodul(?:es?|ar)", "lung mass"),
    _name(
        "mass",
        "lung",
        r"mass(?:es)?(?! effect)|tumou?rs?|neoplasms?|"
        r"malignan\w+|carcinoma|metasta\w+",
        "lung mass",
    ),
    _name("cavity", "lung", r"cavit(?:y|ies|ary)|cavitat\w+|abscess(?:es)?"),
    _name("granuloma", "lung", r"granulom\w+|calcified (?:\w+ )?nod\w+", salient=False),
    _name(
        "cardiomegaly",
        "heart",
        r"cardiomegaly|cardiac enlargement|enlarged (?:heart|"
        r"cardiac silhouette|cardiomediastinal silhouette)|"
        r"(?:heart|cardiac silhouette|heart size|cardiomediastinal silhouette)(?: size)? (?:is |"
        r"appears |remains |at )?(?:\w+ ){0,3}(?:enlarged|enlargement)|enlargement of the (?:heart|"
        r"cardiac\w*)(?: silhouette)?|(?:ventricular|atrial) (?:enlargement|hypertrophy|"
        r"dilat\w+)",
    ),
    _name(
        "wide mediastinum",
        "mediastinum",
        r"(?:widen\w+|prominen\w+|enlarge\w+)(?: of)?(?: the)?(?: \w+)? mediastin\w+"
        r"|mediastinal (?:widening|prominence|enlargement|mass)",
    ),
    _name("adenopathy", "mediastinum", r"(?:lymph)?adenopathy|enlarged (?:\w+ )?(?:lymph )?nodes"),
    _name(
        "hilar enlargement",
        "mediastinum",
        r"hilar (?:prominence|enlargement|"
        r"fullness|mass)|prominent hil\w+",
        "adenopathy",
    ),
    _name("hernia", "abdomen", r"hernias?|herniation"),
    _name(
        "aortic change",
        "vessel",
        r"tortuo\w+|ectatic|ectasia|unfold\w+|aortic (?:calcifi\w+|atheroscl\w+)|"
        r"atheroscl\w+|uncoil\w+",
        salient=False,
    ),
    _name("aneurysm", "vessel", r"aneurysm\w*|dissection"),
    _name("embolism", "vessel", r"embol(?:ism|us|i)|thromb(?:us|osis|i)"),
    _name("stenosis", "vessel", r"stenos[ie]s|occlusion|occluded"),
    _name("calcification", "other", r"calcifi\w+", salient=False),
    _name(
        "elevated diaphragm",
        "other",
        r"(?:elevat\w+)(?: of)?(?: the)?(?: \w+)? (?:hemi)?diaphragm|"
        r"(?:hemi)?diaphragm (?:is |"
        r"remains )?(?:\w+ )?elevat\w+|eventration",
        salient=False,
    ),
    _name("free air", "abdomen", r"free (?:\w+ )?air|pneumoperitoneum"),
    _name("subcutaneous air", "other", r"subcutaneous (?:emphysema|air|gas)|pneumomediastinum"),
    _name("fracture", "bone", r"fractur\w+|compression deformit\w+|wedging|dislocat\w+"),
    _name(
        "degenerative change",
        "bone",
        r"degenerat\w+|osteophyt\w+|spondylo\w+|arthr\w+|"
        r"spurring|disc space narrowing|"
        r"dish",
        salient=False,
    ),
    _name(
        "curved spine",
        "bone",
        r"(?:dextro|levo)?scoliosis|kyphos[ie]s|"
        r"kyphotic|(?:dextro|levo)?curvature",
        salient=False,
    ),
    _name("osteopenia", "bone", r"osteopeni\w+|osteoporo\w+|demineraliz\w+", salient=False),
    _name("bone lesion", "bone", r"(?:lytic|sclerotic|blastic|bon[ey]) (?:\w+ )?lesions?"),
    _name("lesion", "other", r"lesions?"),
    _name("stone", "abdomen", r"stones?|calcul(?:us|i)|cholelithiasis|nephrolithiasis|urolithiasis"),
    _name("hydronephrosis", "abdomen", r"hydronephrosis|hydroureter"),
    _name("obstruction", "abdomen", r"(?<!without )obstruction|dilated (?:\w+ )*(?:loops?|bowel)|ileus"),
    _name("appendicitis", "abdomen", r"appendicitis|diverticulitis|cholecystitis|pancreatitis|colitis"),
    _name("ascites", "abdomen", r"ascites|free fluid"),
    _name("cyst", "abdomen", r"cysts?|cystic"),
    _name("fatty liver", "abdomen", r"steatosis|fatty (?:liver|infiltration)|cirrhosis|hepatomegaly|splenomegaly"),
    _name("haemorrhage", "brain", r"h(?:a)?emorrhag\w+|hematomas?|haematomas?|bleed(?:ing)?"),
    _name("infarct", "brain", r"infarct\w*|stroke|isch(?:a)?emi[ac]"),
    _name("midline shift", "brain", r"midline shift|mass effect|herniation"),
    _name("hydrocephalus", "brain", r"hydrocephalus|ventriculomegaly|dilated ventricles"),
    _name("atrophy", "brain", r"atroph\w+|volume loss", salient=False),
    _name("enhancement", "brain", r"(?:ring|abnormal)[- ]enhanc\w+"),
    _name("wall motion", "heart", r"(?:hypo|a|dys)kine\w+|reduced (?:\w+ )?motion"),
    _name(
        "device",
        "device",
        r"pacemakers?|(?:central |picc |venous )?(?:lines?|catheters?)|port(?:-a-cath|"
        r"acath)?|picc|(?:endotracheal|nasogastric|feeding|chest|enteric|tracheostomy) tubes?|"
        r"tubing|stents?|clips|sternotomy|wires|anchor|prosthe\w+|hardware|drains?|"
        r"leads?",
        salient=False,
    ),
)

_BY_KEY = {name.key: name for name in FINDINGS}


@lru_cache(maxsize=1 << 15)
def mentioned(text: str) -> tuple[str, ...]:
    """Keys of every finding that ``text`` names, asserted or not; earlier names take their words from later ones."""
    rest, found = text, []
    for name in FINDINGS:
        if name.pattern.search(rest):
            found.append(name.key)
            rest = name.pattern.sub(lambda match: "\0" * len(match[0]), rest)
    return tuple(found)


def asserted(sentence: Sentence) -> tuple[str, ...]:
    """Keys that ``sentence`` states without denial or doubt."""
    return () if sentence.doubtful or not sentence.asserted else mentioned(sentence.said)


def group_of(key: str) -> str:
    """Findings of one group may be words for the same thing ("infiltrate", "airspace disease")."""
    return _BY_KEY[key].group


def region_of(key: str) -> str:
    """The part of the body where the finding is."""
    return _BY_KEY[key].region


def is_salient(key: str) -> bool:
    """Whether silence about it means that it is not there."""
    return _BY_KEY[key].salient
