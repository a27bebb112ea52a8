"""The words in which radiologists name findings: data of the rule labeller in labeller.py."""

from __future__ import annotations

import re
from dataclasses import dataclass

FINDINGS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
"""The findings of CheXpert (Irvin et al. 2019, arXiv:1901.07031), without "No Finding", which is none."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """How one finding is named.

    Attributes:
        kind: what is told apart; None for words that look like a finding and are none: later terms may not use them.
        finding: one of FINDINGS, or None where CheXpert has no such class.
        pattern: of the whole name, as it stands in a lower-case sentence.
        needs: at least one of these stands in every match: a quick way to leave the pattern out.
        present: what the words themselves say: True of a name that cues around it may deny, False where they deny
            ("heart size is normal"), None where they leave it open.
    """

    kind: str | None
    finding: str | None
    pattern: re.Pattern[str]
    needs: tuple[str, ...]
    present: bool | None = True


def _term(
    kind: str | None,
    finding: str | None,
    needs: str,
    pattern: str,
    *,
    present: bool | None = True,
) -> Term:
    return Term(
        kind=kind,
        finding=finding,
        pattern=re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)"),
        needs=tuple(needs.split("|")),
        present=present,
    )


_SILHOUETTE = r"cardio[- ]?mediastinal (?:silhouettes?|contours?)"
_HEART = (
    r"(?:heart(?: size)?|cardiac silhouettes?|cardiac size|cardiac shadow|cardiac contours?|heart shadow|"
    rf"heart silhouette|heart x{{4}}|{_SILHOUETTE})"
)
_HEART_NEEDS = "heart|cardi"
_MOTION = r"(?:(?:wall|ventricular|cardiac|heart|myocardial|systolic|left|right)[ -])*(?:motion|contractility)"
_REDUCED = r"(?:reduced|decreased|impaired|diminished|poor)"
_BE = r"(?:(?:is|are|appears?|remains?|not|no longer|again|slightly|mildly|moderately|markedly|severely|somewhat) )"
_MEDIASTINUM = (
    r"(?:(?:superior|upper) )?(?:mediastinum|mediastinal (?:contours?|silhouettes?|shadow|width)|"
    rf"{_SILHOUETTE}|cardio[- ]?mediastinum)"
)
_WIDE = r"(?:widened|wide|enlarged|prominent|increased)"
_AIR_SPACE = r"air[- ]?space"

IGNORED: tuple[Term, ...] = (
    _term(None, None, "mass", r"mass effect|body mass|muscle mass|bone mass"),
    _term(None, None, "densit", r"(?:bone|bony|mineral|osseous|metallic|soft[- ]tissue|fat|breast) densit(?:y|ies)"),
    _term(None, None, "effusion",
        r"(?:joint|knee|hip|elbow|ankle|shoulder|middle ear|subdural|suprapatellar) effusions?",
    ),
    _term(None, None, "edema",
        r"(?:soft[- ]tissue|subcutaneous|cerebral|brain|vasogenic|marrow|bone marrow|leg|pedal|"
        r"peripheral|bowel wall|laryngeal) o?edema",
    ),
    _term(None, None, "collapse", r"(?:vertebral|circulatory|cardiovascular|tracheal|airway)(?: body)? collapse"),
    _term(None, None, "infection",
        r"(?:granulomatous|tuberculosis|mycobacterial|tuberculous|urinary|wound|sinus|fungal|"
        r"histoplasm\w+) infections?",
    ),
    _term(None, None, "line", r"(?:mid|axillary|clavicular|joint|fat|septal|kerley|fracture|suture) ?lines?"),
    _term(None, None, "device", r"(?:no|without) (?:implanted )?device complication"),
    _term(None, None, "pneumon", r"pneumonectom\w+|pneumonitis"),
)  # fmt: skip
"""Words that are no finding although they hold one's name; tried first."""

NAMES: tuple[Term, ...] = (
    _term("cardiomegaly", "Cardiomegaly", "megal|enlarge",
        rf"cardiomegaly|(?:cardiac|heart) enlargement|{_HEART}(?: [\w-]+){{0,5}} enlarged",
    ),
    _term("cardiomegaly", "Cardiomegaly", _HEART_NEEDS,
        rf"{_HEART}(?: (?:is|appears|remains|not|no longer|again|[a-z]+ly)){{1,3}} (?:increased|large|"
        rf"prominent)",
    ),
    _term("cardiomegaly", "Cardiomegaly", _HEART_NEEDS,
        rf"(?:enlarged|large) {_HEART}|(?:enlargement|prominence) of the {_HEART}|prominent (?:heart|"
        rf"cardiac silhouette)",
    ),
    _term("reduced motion", None, "motion|contractil",
        rf"{_REDUCED} {_MOTION}|{_MOTION}(?: (?:is|are|was|appears|not|[a-z]+ly)){{1,3}} {_REDUCED}",
    ),
    _term("reduced motion", None, "kine", r"(?:hypo|a)kine(?:sis|sia|tic)"),
    _term("pleural thickening", "Pleural Other", "pleur",
        r"pleural(?:[- ](?:based|parenchymal))? (?:thickening|scars?|scarring|plaques?|fibrosis|"
        r"calcifications?|reaction)|"
        r"pleuro-?(?:parenchymal|pericardial) scar\w*|thickening of the (?:\w+ )?pleura|"
        r"calcified pleural plaques?",
    ),
    _term("pleural thickening", "Pleural Other", "fibrothorax|apical",
        r"fibrothorax|apical (?:pleural )?cap(?:ping)?",
    ),
    _term("ground-glass opacity", "Lung Opacity", "ground|ggo",
        r"ground[- ]glass(?: (?:opacit\w+|opacification|attenuation|densit\w+|changes?))?|ggos?",
    ),
    _term("mass", "Lung Lesion", "mass", r"mass[- ]?like (?:densit\w+|opacit\w+|lesions?|consolidations?)"),
    _term("nodule", "Lung Lesion", "nodul",
        r"nodules?|nodular (?:densit\w+|opacit\w+|opacification|lesions?)|nodularity",
    ),
    _term("consolidation", "Lung Opacity", "disease|process", rf"{_AIR_SPACE} (?:disease|process)(?:es)?"),
    _term("consolidation", "Consolidation", "consolidat",
        rf"consolidations?|consolidative (?:opacit\w+|changes?|process)|{_AIR_SPACE} consolidations?",
    ),
    _term("mass", "Lung Lesion", "mass", r"mass(?:es)?"),
    _term("mass", "Lung Lesion", "carcinoma|neoplas|tumo|lesion",
        r"carcinomas?|neoplasms?|tumou?rs?|(?:cavitary|lung|pulmonary|parenchymal) lesions?",
    ),
    _term("pericardial effusion", None, "pericard", r"pericardial (?:effusions?|fluid)|ha?emopericardium"),
    _term("pleural effusion", "Pleural Effusion", "effusion|fluid|hydrothora",
        r"pleural (?:effusions?|fluid)|hydrothora(?:x|ces)|fluid in the (?:[\w-]+ )?fissures?|"
        r"(?:pleural )?effusions?",
    ),
    _term("pneumothorax", "Pneumothorax", "pneumothora|ptx",
        r"(?:hydro)?pneumothora(?:x|ces|xes)|ptx|pleural air collections?",
    ),
    _term("atelectasis", "Atelectasis", "atelecta", r"atelecta\w+"),
    _term("atelectasis", "Atelectasis", "collaps",
        r"(?:lung|lobe|lobar|pulmonary) collapse|collapse of (?:[\w-]+ ){0,5}(?:lungs?|lobes?)|"
        r"collapsed (?:[\w-]+ ){0,2}(?:lung|lobe)",
    ),
    _term("edema", "Edema", "edema", r"o?edema(?:tous)?"),
    _term("vascular congestion", "Edema", "congesti|engorge|cephali|overload|failure|chf",
        r"(?:(?:pulmonary|central|venous|perihilar|mild|vascular|pulmonary vascular|"
        r"central vascular) )?"
        r"(?:congestion|engorgement)|(?:vascular )?cephali[sz]ation|(?:volume|fluid) overload|"
        r"(?:congestive )?(?:heart|cardiac) failure|chf|congestive (?:changes?|pattern)",
    ),
    _term("vascular congestion", "Edema", "vascula",
        r"(?:pulmonary |central )*vascular prominence|prominen(?:t|ce of the) (?:central |pulmonary |"
        r"perihilar )*(?:vasculature|vascularity|vascular markings?)|"
        r"indistinct (?:pulmonary )*vascul\w+",
    ),
    _term("interstitial markings", "Lung Opacity", "interstiti|reticul",
        r"interstitial (?:markings?|patterns?|(?:lung )?(?:disease|changes?)|prominence|thickening|"
        r"infiltrates?|process)|"
        r"reticular (?:patterns?|markings?|changes)|reticulations?|reticulonodular (?:patterns?|"
        r"opacities)",
    ),
    _term("interstitial markings", "Lung Opacity", "markings",
        r"(?:increased|prominent|coarse|coarsened|accentuated) (?:[\w-]+ ){0,2}markings|(?:lung |"
        r"pulmonary )markings (?:are|appear) (?:[\w-]+ )?(?:increased|prominent|coarse)",
    ),
    _term("interstitial markings", "Lung Opacity", "thickening",
        r"(?:peri)?bronchial (?:wall )?(?:thickening|cuffing)",
    ),
    _term("opacity", "Lung Opacity", "opaci|infiltrat|haz",
        r"opacit(?:y|ies)|opacifi(?:cations?|ed)|infiltrat(?:es?|ions?)|haz(?:e|iness|y)",
    ),
    _term("opacity", "Lung Opacity", "densit", r"densit(?:y|ies)"),
    _term("scar", "Lung Opacity", "scar|fibro|cicatri",
        r"scar(?:s|ring|red)?|fibrosis|fibrotic (?:changes?|scarring)|cicatrix",
    ),
    _term("pneumonia", "Pneumonia", "pneumonia", r"(?:broncho)?pneumonias?"),
    _term("pneumonia", "Pneumonia", "infecti", r"infections?|infectious (?:process|infiltrates?|etiology|disease)"),
    _term("fracture", "Fracture", "fractur|fx", r"fractures?|fractured|fx"),
    _term("support device", "Support Devices", "pace|pacing|icd|defib|generator",
        r"pace ?makers?|pacers?|pacing (?:leads?|wires?|device)|(?:a?icd|crt-?d)s?|"
        r"(?:cardioverter[- ])?defibrillators?|generator",
    ),
    _term("support device", "Support Devices", "cath|picc|port|line|dialysis|swan|hoff|pleurx|iabp|impella",
        r"swan[- ]ganz|dobb?hoff|pleurx|iabp|impella|(?:right|left)(?:-sided)? (?:[\w-]+ )?ports?|"
        r"(?:[\w-]+ ){0,2}?catheters?|piccs?(?: lines?)?|port-?a-?cath|porta?cath|medi-?ports?|"
        r"infusion ports?|chest ports?|"
        r"(?:central|venous|arterial|subclavian|jugular|ij|dialysis|support|svc) (?:[\w-]+ )?lines?|"
        r"lines (?:and|or|/) tubes",
    ),
    _term("support device", "Support Devices", "tub|trach|drain|shunt",
        r"tubes?|tubing|tracheostom(?:y|ies)(?: tubes?)?|tracheotomy|ett|(?:chest |pleural |surgical |"
        r"pigtail )?drains?(?! into)|shunts?",
    ),
    _term("support device", "Support Devices",
        "valve|annuloplast|stent|filter|balloon|lvad|implant|stimulat|device|"
        "hardware|prosthe|plast|plate|screw|rod|coil|cannula|monitor|anchor",
        r"(?:prosthetic|mechanical|artificial|replacement|aortic|mitral|cardiac|"
        r"heart) valves? (?:prosthes[ie]s|replacements?)|(?:prosthetic|mechanical|"
        r"artificial) (?:[\w-]+ )?valves?|annuloplasty|valvuloplasty|"
        r"prosthetic (?:[\w-]+ )?(?:humeral|femoral|joint|head|shoulder|hip)|bone anchors?|"
        r"stents?|(?:ivc|vena cava) filters?|balloon pump|lvad|(?:neuro)?stimulators?|(?:implanted |"
        r"medical |support |monitoring )?devices?|hardware|prosthes[ie]s|arthroplast\w+|"
        r"(?:metal|fixation|surgical|orthopa?edic) (?:[\w-]+ )?(?:plates?|screws?|rods?|implants?)|"
        r"(?:plates? and )?screws|coils?|cannulas?|(?:loop|cardiac) (?:recorder|monitor)s?(?: leads?)?",
    ),
)  # fmt: skip
"""Names of findings, present unless denied; earlier terms take their words from later ones."""

DENIALS: tuple[Term, ...] = (
    _term("cardiomegaly", "Cardiomegaly", _HEART_NEEDS, rf"normal(?:[ -]sized)? {_HEART}", present=False),
    _term("cardiomegaly", "Cardiomegaly", _HEART_NEEDS,
        rf"{_HEART}(?:(?!lung|enlarg|\blarge|increas)[^.;]){{0,60}}?\b(?:normal|unremarkable)(?! variant)",
        present=False,
    ),
    _term("reduced motion", None, "motion|contractil", rf"(?:normal|preserved) {_MOTION}", present=False),
    _term("reduced motion", None, "motion|contractil",
        rf"{_MOTION}(?: (?:is|are|was|appears|within|[a-z]+ly)){{1,3}} (?:normal|preserved)",
        present=False,
    ),
    _term("interstitial markings", "Lung Opacity", "markings",
        r"normal (?:[\w-]+ ){0,2}markings|markings (?:are|appear) (?:within )?normal",
        present=False,
    ),
)  # fmt: skip
"""Positive words that say that a finding is not there."""

DOUBTFUL: tuple[Term, ...] = (
    _term("cardiomegaly", "Cardiomegaly", "borderline|normal",
        rf"{_HEART}(?: [\w-]+){{0,5}} (?:borderline|upper limits? of normal|upper normal|"
        rf"top[- ]normal)(?: [\w-]*enlarged)?",
        present=None,
    ),
    _term("cardiomegaly", "Cardiomegaly", "borderline",
        rf"borderline (?:cardiomegaly|cardiac enlargement|(?:enlarged )?{_HEART}|"
        rf"enlargement of the {_HEART})",
        present=None,
    ),
)  # fmt: skip
"""Words that leave a finding open; tried before NAMES."""

BESIDE: tuple[Term, ...] = (
    _term("widened mediastinum", "Enlarged Cardiomediastinum", "mediastin",
        rf"{_WIDE} {_MEDIASTINUM}|mediastinal widening|(?:widening|enlargement|prominence|"
        rf"fullness) of the {_MEDIASTINUM}|"
        rf"{_MEDIASTINUM} {_BE}{{1,3}}{_WIDE}",
    ),
    _term("widened mediastinum", "Enlarged Cardiomediastinum", "mediastin",
        rf"normal (?:heart size and )?{_MEDIASTINUM}",
        present=False,
    ),
    _term("widened mediastinum", "Enlarged Cardiomediastinum", "mediastin",
        r"(?:mediastinal (?:contours?|silhouettes?)|cardio[- ]?mediastinal (?:silhouettes?|contours?|"
        r"size))(?:(?!lung)[^.;]){0,60}?\b(?:normal|unremarkable)(?! variant)|"
        r"mediastinum (?:is|appears|remains) (?:[\w-]+ ){0,2}(?:normal|unremarkable)",
        present=False,
    ),
)  # fmt: skip
"""Names that share their words: the silhouette of heart and mediastinum is about both."""
