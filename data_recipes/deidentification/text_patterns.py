"""Regular expressions for what identifies a person in a clinical text; each says which kind it finds and where.

The kinds follow the 18 identifiers of the Safe Harbor method, 45 CFR 164.514(b)(2)(i). A pattern marks what it finds
by its named group ``x``; what stands around it (a label, a title) is context and stays.
"""

from __future__ import annotations

import re
from typing import Literal

from medvlm.data_recipes.deidentification.words import MONTHS, SHORT_MONTHS, US_STATES

Kind = Literal[
    "name", "date", "record_number", "phone", "email", "address", "url", "id_number", "ip_address", "age_over_89"
]

_UP, _LOW = "A-ZÀ-ÖØ-ÞŠŽŁŚ", "a-zß-öø-ÿšžłśćńąęğışč"
_INITIAL = rf"[{_UP}]\."
WORD = rf"(?:(?:[Dd]['’]|O['’]|Mc|Mac)?[{_UP}][{_LOW}'’]+(?:-[{_UP}][{_LOW}]+)*|[{_UP}][{_UP}'’-]+[{_UP}])"
"""A capitalised word, or one in capitals, of two letters or more."""
_PARTICLE = r"(?:(?:van|von|der|den|de|del|della|di|da|dos|la|le|bin|al|el|zu)\s+){0,2}"
NAME = rf"(?:{_INITIAL}\s*){{0,2}}{_PARTICLE}{WORD}(?:[ \t]+(?:{_INITIAL}[ \t]*){{0,2}}{_PARTICLE}{WORD}){{0,3}}"
_LAST_FIRST = (
    rf"{_PARTICLE}{WORD}(?:[ \t]{WORD})?(?:[ \t]M\.?D\.?)?,[ \t]*{WORD}(?:[ \t]+(?:{_INITIAL}|{WORD}|[{_UP}]\b)){{0,2}}"
)
_CARET = rf"[{_UP}{_LOW}'’-]{{2,}}(?:\^[{_UP}{_LOW}'’. -]*)*\^[{_UP}{_LOW}'’.-]+"

_TITLE = (
    r"(?:Dr|DR|Drs|Prof|PROF|Mr|Mrs|Ms|MRS|Sr|Sra|Srta|Dra|Dott|Dott\.ssa|Sig|Mme|Mlle|Priv\.-Doz|PD Dr)\.|"
    r"\bSig\.?(?:ra|na)\b|\b(?:Dr|Drs|Prof|Mr|Mrs|Ms|Miss|Mme|Mlle|Mister|Doctor|Professor|Nurse|Technologist|Herrn?|Frau|Monsieur|Madame|"
    r"Señora?|Doctora|Signora?|Dottor|Dottoressa|Senhora?)\b"
)
_SIGNED = (
    r"(?i:\b(?:dictated|transcribed|signed|interpreted|read|reviewed|reported|verified|approved|referred|ordered|"
    r"requested|attested|finali[sz]ed|supervised|authenticated|validated|prepared|edited|created|entered|typed|seen|"
    r"examined|performed|communicated|given|relayed)\s+(?:and\s+\w+\s+)?(?:electronically\s+)?(?:by|to)\b|"
    r"\b(?:discussed|spoke|speaking|communicated|reviewed|conferred|case)\s+with\b|"
    r"\b(?:notified|informed|paged|befundet von|diktiert von|freigegeben von|gez\.|dictado por|firmado por|"
    r"informado por|dicté par|signé par|ditado por|assinado por|firmato da|refertato da)\b)"
)
_ROLE = (
    r"(?i:\b(?:attending|resident|fellow|(?:reading |interpreting )?radiologist|(?:referring |ordering |requesting |"
    r"primary care |attending |performing )?(?:physician|provider|clinician|doctor|dr\.?)|technologist|sonographer|"
    r"surgeon|author|reader|pcp|electronically signed|signed|signature|transcriptionist|arzt|ärztin|überweiser|"
    r"médico|médecin|medico|next of kin|emergency contact|guardian|employer|caregiver)\s*:\s*)"
)
_NAME_LABEL = (
    r"(?i:\b(?:(?:patient|pt|last|first|middle|family|given|full|maiden|sur)['’]?s?[ -]*name|name of (?:the )?patient|"
    r"name|surname|patientenname|nachname|vorname|nom|prénom|nombre|apellidos?|nome|cognome|sobrenome)\s*[:=]\s*)"
)
_PATIENT_LABEL = r"(?i:\b(?:patient(?:in)?|pt|paciente|paziente|re)\s*:\s*)"
_DEGREE = r"(?:M\.?D\.?|D\.O\.|MBBS|MBChB|FRCR|FACR|Ph\.?D\.?|R\.N\.|RN|PA-C|ARNP|FRCPC|RT\(R\)|RDMS)(?![\w])"
_RELATION = (
    r"\b(?:wife|husband|daughter|son|mother|father|brother|sister|mom|dad|spouse|partner|grandson|granddaughter|"
    r"niece|nephew|friend|neighbor)\b,?[ \t]+(?:named[ \t]+|is[ \t]+)?"
)

NAME_PATTERNS = (
    rf"(?:{_TITLE})[ \t]*(?:Dr\.?|med\.?|dent\.?|habil\.?|[ \t])*(?P<x>{_LAST_FIRST}|{NAME})",
    rf"{_SIGNED}\s*:?\s*(?:the\s+)?(?:(?:Dr|DR|Prof|Mr|Mrs|Ms)\.?\s*)*(?P<x>{_CARET}|{_LAST_FIRST}|{NAME})",
    rf"{_ROLE}(?:(?:Dr|DR|Prof|Mr|Mrs|Ms)\.?\s*)*(?P<x>{_CARET}|{_LAST_FIRST}|{NAME})",
    rf"{_NAME_LABEL}(?:(?:Mr|Mrs|Ms|Herr|Frau)\.?\s*)?(?P<x>{_CARET}|{_LAST_FIRST}|{NAME})",
    rf"{_NAME_LABEL}(?P<x>[{_LOW}'’-]+(?:,?[ \t]+[{_LOW}'’-]+){{0,3}})(?=[ \t]*(?:$|[\n\r;|(\d.,]))",
    rf"{_PATIENT_LABEL}(?P<x>{_CARET}|{_LAST_FIRST}|{NAME})",
    rf"(?P<x>{NAME}),[ \t]*{_DEGREE}",
    rf"(?P<x>{WORD}[ \t]+(?:{_INITIAL}[ \t]*)?{WORD})[ \t]+M\.?D\.?(?![\w])",
    rf"{_RELATION}(?P<x>{NAME})",
    rf"(?P<x>{_CARET})",
    rf"(?P<x>{NAME}),?[ \t]+(?:née?|nat[oa] il|geb\.|geboren|nacid[oa])(?![\w])",
    rf"\b(?:patient|patiente|chez|Patient)[ \t]+M\.[ \t]+(?P<x>{NAME})",
    r"(?i)\b(?:transcribed by|dictated by|typed by|signed by|tech(?:nologist)?:|transcriptionist:|author:)"
    r"[ \t]*:?[ \t]*(?P<x>[a-z]{2,12}\d{0,4})(?=[ \t]*(?:$|[\r\n,;/]|on \d|at \d))",
)

GIVEN_THEN_SURNAME = rf"\b(?P<given>{WORD})[ \t]+(?P<rest>(?:{_INITIAL}[ \t]*|[{_UP}][ \t]+)?{_PARTICLE}{WORD})"
SURNAME_THEN_GIVEN = rf"\b(?P<rest>{WORD}),[ \t]*(?P<given>{WORD})(?:[ \t]+[{_UP}]\b\.?)?"

_MONTH = rf"(?:{'|'.join(m for m in MONTHS if m not in SHORT_MONTHS)})"
_SHORT = rf"(?:{'|'.join(SHORT_MONTHS)})"
_SHORT_CAPITALISED = rf"(?:{'|'.join(m.capitalize() for m in SHORT_MONTHS if m not in ('out', 'set', 'ago'))}|MAY|MAR)"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_ORDINAL = r"(?:st|nd|rd|th|er|º|°|\.)?"
_YEAR = r"(?:(?:19|20)\d{2})"
_NO_SIZE = r"(?!\s*(?:mm|cm|ml|cc|m|g|mg|kg|days?|weeks?|months?|years?|hours?|%)\b)"
_LINK = r"(?:[\s,./-]|de\b|del\b|do\b|of\b|d['’])*"
_LINK_1 = r"(?:[\s,./-]|\bde\b|\bdel\b|\bdo\b|\bof\b)+"

MONTH_ALONE = (
    rf"(?<![\w])(?i:since|last|early|mid|late|end of|beginning of|in|until|im|seit|en|depuis|desde|em|dal)[\s-]+"
    rf"(?P<x>(?:{'|'.join(m.capitalize() for m in MONTHS if len(m) > 3 and m not in ('march', 'mars', 'sept'))}|"
    rf"March(?!\s+\w+ing))\b)"
)
DATE_PATTERNS = (
    rf"(?<![\d.])(?P<x>{_YEAR}([-/.])(?:0?[1-9]|1[0-2])\2{_DAY})(?!\d)",
    rf"(?<![\d./-])(?P<x>(?:{_DAY}([./-])(?:0?[1-9]|1[0-2])|(?:0?[1-9]|1[0-2])([./-]){_DAY})(?:\2|\3)"
    rf"(?:{_YEAR}|\d{{2}}))(?![\d]|[./-]\d){_NO_SIZE}",
    r"(?<![\d.])(?P<x>(?:19[2-9]\d|20[0-4]\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?=(?:[0-2]\d[0-5]\d"
    r"(?:[0-5]\d)?)?"
    r"(?:\.\d+)?(?!\d))(?!\.\d+\.)",
    rf"(?i)(?<![\w])(?P<x>{_DAY}{_ORDINAL}{_LINK}\b{_MONTH}\b\.?(?:{_LINK}(?:{_YEAR}|['’]?\d{{2}}"
    rf"(?![\d:./-])))?){_NO_SIZE}",
    rf"(?i)(?<![\w])(?P<x>{_DAY}{_ORDINAL}{_LINK}\b{_SHORT}\b\.?{_LINK_1}{_YEAR})(?!\d)",
    rf"(?<![\w])(?P<x>{_DAY}(?:st|nd|rd|th)?[ /-]?(?:of )?{_SHORT_CAPITALISED}\b\.?(?:{_LINK}(?:{_YEAR}|"
    rf"\d{{2}}(?![\d:./-])))?)"
    rf"{_NO_SIZE}",
    rf"(?i)(?<![\w])(?P<x>{_DAY}(?:{_MONTH}|{_SHORT})(?:{_YEAR}|\d{{2}}))(?!\d)",
    rf"(?i)(?<![\w])(?P<x>{_MONTH}\b\.?[\s/-]*{_DAY}(?:st|nd|rd|th)?(?![\d.]?\d)(?!\s*[x×])"
    rf"(?:[\s,/-]+{_YEAR})?){_NO_SIZE}",
    rf"(?<![\w])(?P<x>{_SHORT_CAPITALISED}\b\.?[ /-]*{_DAY}(?:st|nd|rd|th)?(?![\d.]?\d)(?!\s*[x×])(?:[\s,/-]+{_YEAR})?)"
    rf"{_NO_SIZE}",
    rf"(?i)(?<![\w])(?P<x>(?:{_MONTH}|{_SHORT})\b\.?(?:[\s,/-]|\bde\b|\bdel\b|\bof\b)*{_YEAR})(?!\d)",
    rf"(?i)(?<![\w])(?P<x>{_YEAR}[\s/-]+{_MONTH}\b(?:[\s/-]+{_DAY}\b)?)",
    r"(?i)\b(?:on|dated?|since|until|through|from|of|study|exam|vom|am|du|del)\s*:?\s+"
    r"(?P<x>(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01]))(?![\d/]|\.\d)(?<!/10)(?<!\d/5)"
    r"(?!\s*(?:pain|scale|strength|points?|power|motor|images?|mm|cm|weeks?|days?))",
    rf"(?<![\d/.-])(?P<x>(?:0[1-9]|1[0-2]|[1-9](?=/))[/.-]{_YEAR})(?![\d/-]|\.\d){_NO_SIZE}",
    rf"\b(?:am|vom|seit|bis)\s+(?P<x>{_DAY}\.\s?(?:0?[1-9]|1[0-2])\.)(?!\d)",
    MONTH_ALONE,
    r"(?P<x>(?:19|20)\d{2}\s*年\s*\d{1,2}\s*月(?:\s*\d{1,2}\s*日)?)",
)

_TOKEN = r"(?=[\w./-]*\d)[A-Za-z0-9][\w./-]*\w"
_SAYS = r"(?:\s*(?:number|num|no|nr|n|id|code)\b\.?|\s*[#№º])?\s*(?:is\s+)?[:=#]?\s*"
_MUST_SAY = r"\s*(?:(?:number|num|no|nr|id|code)\b\.?|[#№º:=])\s*(?:is\s+)?[:=#]?\s*"

RECORD_PATTERNS = (
    r"(?:^|[;,.|]\s*|\s{2})(?:ID|Id|PID|UHID)\s*[:=#]\s*(?P<x>[A-Z]{0,3}-?\d{5,})\b",
    rf"(?i)\b(?:MRN|MR\s?#|medical record|med rec|hospital number|hosp(?:ital)? no|patient[ _-]?id|pat[ -]?id|pt id|"
    rf"accession|acc(?:ession)? ?(?:no|#|number)|patientennummer|patienten-?id|fall-?nr|fallnummer|aufnahmenummer|"
    rf"nip|ipp|nhc|prontu[aá]rio|historia cl[ií]nica|n[uú]mero de historia|cartella clinica){_SAYS}(?P<x>{_TOKEN})",
    rf"(?i)\b(?:acc|chart|case|encounter|visit|order|exam|study|report|unit|admission|record|specimen|"
    rf"requisition|csn|fin|"
    rf"episode|document|job|dictation|patient){_MUST_SAY}(?P<x>(?=[\w./-]*\d)(?=[\w./-]{{4}})[A-Za-z0-9][\w./-]*\w)",
)

ID_PATTERNS = (
    r"(?<![\d-])(?P<x>(?!000|666)\d{3}-\d{2}-\d{4})(?![\d-])",  # US social security number
    r"(?<![\d.])(?P<x>\d{3}\.\d{3}\.\d{3}-\d{2})(?!\d)",  # CPF, Brazil
    r"\b(?P<x>[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])\b",  # codice fiscale, Italy
    r"(?<!\d)(?P<x>[12]\s?\d{2}\s?(?:0[1-9]|1[0-2])\s?(?:\d{2}|2[AB])\s?\d{3}\s?\d{3}\s?\d{2})(?!\d)",  # NIR, France
    rf"(?i)\b(?:SSN|social security|NHS|CHI|medicare|medicaid|insurance|policy|member|subscriber|beneficiary|"
    rf"group|health plan|"
    rf"account|acct|licen[cs]e|certificate|DEA|NPI|passport|tax|TIN|VIN|vehicle|serial|device|model serial|lot|"
    rf"versicherten|"
    rf"versicherungs|KVNR|AHV|NIR|s[ée]curit[ée] sociale|DNI|NIE|CPF|RG|CNS|SNS|codice fiscale|tessera sanitaria)"
    rf"{_MUST_SAY}(?P<x>(?=[\w./ -]{{4}})[A-Za-z]{{0,6}}[ -]?\d[\w./-]*(?:[ -]\d[\w/-]+)*)",
    r"(?i)\b(?:SSN|NHS|CHI|DNI|NIE|CPF|NPI|DEA|KVNR)\s+(?P<x>[A-Za-z]{0,2}\d[\d ./-]{4,}[\dA-Za-z])\b",
    r"(?i)\b(?:license plate|plate|kennzeichen)\s*(?:number|no\.?|#)?\s*[:=]?\s*"
    r"(?P<x>[A-Z]{1,3}[- ]?[A-Z0-9]{2,}[- ]?\d+)\b",
    r"(?<![\d.])(?P<x>[0-2](?:\.(?:0|[1-9]\d*)){5,})(?![\d.]*\d)",  # DICOM UID
)

IP_PATTERNS = (r"(?<![\d.])(?P<x>(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d))(?![\d.]*\d)",)

PHONE_PATTERNS = (
    r"(?i)\b(?:tele?phone|phone|ph|tel|fax|telefax|cell|mobile|pager|beeper|page|callback|call(?:ed)?"
    r"(?: back)?(?: at)?|"
    r"contact(?: number)?|reached at|tel[ée]fono|telefone|telefon|téléphone|t[ée]l|handy|m[óo]vil|celular|cellulare)"
    r"(?:\s*(?:number|no|nr|#|-nr))?\.?\s*(?:is\s+)?[:=#]?\s*(?P<x>(?:\+|\(|x)?\d[\d\s().x/-]{2,}\d)(?!\s*"
    r"(?:mm|cm|ml)\b|\d)",
    r"(?i)\b(?:ext|extension|x)\.?\s*:?\s*(?P<x>\d{4,6})\b(?!\s*(?:mm|cm|ml)\b)",
    r"(?<![\d.-])(?P<x>(?:\+?1[-. ])?(?:\(\d{3}\)\s?|\d{3}[-.])\d{3}[-. ]\d{4})(?![\d-])",
    r"(?<![\d.-])(?P<x>[2-9]\d{2}\s\d{3}\s\d{4})(?!\d)(?!\s*(?:mm|cm|ml)\b)",
    r"(?<![\w+])(?P<x>\+\d{1,3}(?:[\s.-]?\(?\d+\)?){2,7})(?![\d])(?!\s*(?:mm|cm|ml|HU)\b)",
    r"(?<!\d)(?P<x>0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,4})(?!\d)",
    r"(?i)\bat\s+(?P<x>[2-9]\d{2}-\d{4})(?!\d)",
)

EMAIL_PATTERNS = (r"(?P<x>[\w.+%-]+\s?@\s?[\w-]+(?:\.[\w-]+)+)",)
URL_PATTERNS = (r"(?i)(?P<x>(?:https?://|ftp://|www\.)[^\s<>\"']*[^\s<>\"'.,;:)\]])",)

_CAPITAL = rf"[{_UP}][{_UP}{_LOW}'’.-]*"
_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Court|Ct|Way|Place|Pl|Square|Sq|Highway|Hwy|Parkway|Pkwy|"
    r"Terrace|Circle|Cir|Crescent|Drive|STREET|AVENUE|ROAD|BOULEVARD|LANE|DRIVE|Dr(?=\.?\s*(?:,|$|\n|Apt|Suite)))"
)
_PLACE = rf"(?:,?\s+{_CAPITAL}(?:[ \t]{_CAPITAL})?)?"
ADDRESS_PATTERNS = (
    rf"(?<![\w.])(?P<x>\d{{1,5}}[A-Za-z]?[ \t]+(?:[NSEW]\.?[ \t]+)?(?:(?:{_CAPITAL}|\d+(?:st|nd|rd|"
    rf"th))[ \t]+){{1,3}}{_STREET}\b\.?"
    rf"(?:,?\s*(?:Apt|Apartment|Suite|Ste|Unit|#)\.?\s*\w+)?(?:,?\s+"
    rf"(?:{_CAPITAL}[ \t]?){{1,3}},?\s+[A-Z]{{2}}\.?\s+\d{{5}}(?:-\d{{4}})?)?)",
    r"(?i)(?<![\w.])(?P<x>\d{1,5} [a-z]+ (?:street|avenue|boulevard|road))\b",
    r"(?i)\b(?P<x>P\.?\s?O\.?\s?Box\s+\d+)",
    rf"\b(?P<x>(?:{_CAPITAL}[ \t]?){{1,3}},[ \t]*(?:{'|'.join(US_STATES)})\.?[ \t]+\d{{5}}(?:-\d{{4}})?)\b",
    rf"\b(?P<x>(?:{'|'.join(s for s in US_STATES if s != 'CT')})[ \t]+\d{{5}}(?:-\d{{4}})?)\b(?!\s*(?:mm|cm|ml|"
    rf"images)\b)",
    r"(?i)\b(?:zip(?: code)?|postal code|postcode|plz|code postal|c[óo]digo postal|cep|cap)\s*[:=]?\s*"
    r"(?P<x>[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}|\d{5}(?:-\d{3,4})?|\d{4})\b",
    r"\b(?![CTLS]\d{1,2}\s)(?P<x>[A-Z]{1,2}\d[A-Z\d]?\s\d(?!ST|ND|RD|TH)[ABD-HJLNP-UW-Z]{2})\b",  # UK postcode
    rf"(?P<x>\b{_CAPITAL}(?:straße|strasse|str\.|weg|platz|allee|gasse)\s+\d{{1,4}}\s?[a-z]?\b(?:,?\s+"
    rf"(?:D-)?\d{{5}}\s+{_CAPITAL})?)",
    rf"\b(?P<x>(?:D|A|CH)-\d{{4,5}}\s+{_CAPITAL})",
    rf"(?P<x>\b\d{{1,4}},?\s+(?:bis\s+|ter\s+)?(?:rue|avenue|boulevard|place|chemin|allée|impasse|quai)\s+"
    rf"(?:(?:de|du|des|la|le|les|l['’])\s*)*{_CAPITAL}(?:[ -]{_CAPITAL}){{0,3}}(?:,?\s+\d{{5}}\s+{_CAPITAL})?)",
    rf"(?P<x>\b(?:Calle|Avenida|Avda\.|Av\.|Rua|Via|Viale|Piazza|Plaza|Paseo|Travessa|Corso)\s+"
    rf"(?:(?:de|del|la|las|los|da|do|dos|das|della|dei)\s+)*{_CAPITAL}(?:\s(?:de\s|da\s|"
    rf"do\s)?{_CAPITAL}){{0,3}},?\s+(?:n[.ºo°]*\s*)?\d{{1,4}})\b",
    r"(?i)\b(?:home |mailing |street )?(?:address|adresse|anschrift|wohnhaft|direcci[óo]n|domicilio|"
    r"endere[çc]o|indirizzo)\s*[:=]\s*"
    r"(?P<x>[^\n\r;|]{3,80})",
    rf"\b(?:lives|living|resides|residing|resident|residence|born|grew up)\s+(?:in|at|of)\s+(?P<x>{_CAPITAL}"
    rf"(?:[ \t]{_CAPITAL}){{0,2}}"
    rf"(?:,[ \t]*{_CAPITAL})?)",
)

_OVER_89 = r"(?:9\d|1[0-2]\d)"
AGE_PATTERNS = (
    rf"(?i)(?<![\d./-])(?P<x>{_OVER_89})\+?[\s-]*(?:years?|yrs?|y)[\s./-]*(?:old|o\b|of age)",
    rf"(?i)(?<![\d./-])(?P<x>{_OVER_89})\s?(?:yo|y\.o\.|y/o|yof|yom)\b",
    rf"(?i)\b(?:aged?|alter|[âa]ge|edad|idade|età)\s*(?::|=|of|is|de)?\s*(?P<x>{_OVER_89})\b(?!\s*(?:mm|cm|%|"
    rf"days?|weeks?|months?))",
    rf"(?<![\d./-])(?P<x>{_OVER_89})[MF]\b",
    rf"(?i)(?<![\d./-])(?P<x>{_OVER_89})[\s-]*(?:jährige[rnm]?|jahre alt|ans\b|años|anos|anni\b)",
    rf"\b(?P<x>0{_OVER_89}Y|1[0-2]\dY)\b",
)

_BY_KIND: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("email", EMAIL_PATTERNS),
    ("url", URL_PATTERNS),
    ("date", DATE_PATTERNS),
    ("record_number", RECORD_PATTERNS),
    ("id_number", ID_PATTERNS),
    ("ip_address", IP_PATTERNS),
    ("phone", PHONE_PATTERNS),
    ("address", ADDRESS_PATTERNS),
    ("age_over_89", AGE_PATTERNS),
)
PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.MULTILINE)) for kind, patterns in _BY_KIND for pattern in patterns
)
"""In order of precedence: what an earlier kind has taken, a later one does not name again."""

NAMES: tuple[re.Pattern[str], ...] = tuple(re.compile(pattern, re.MULTILINE) for pattern in NAME_PATTERNS)
GIVEN: tuple[re.Pattern[str], ...] = tuple(re.compile(p) for p in (GIVEN_THEN_SURNAME, SURNAME_THEN_GIVEN))
PATIENT_GIVEN = re.compile(rf"\b(?i:pt|patient|baby|infant)\.?[ \t]+(?P<x>{WORD})")
"""A given name alone after "patient": it must be one of the list."""
