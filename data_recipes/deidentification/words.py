"""Words that rules for texts lean on: months in six languages, common given names, words that are no names."""

from __future__ import annotations

_MONTHS = """
january february march april june july august september october november december
jan feb apr jun jul aug sep sept oct nov dec
januar jänner februar feber märz maerz mai juni juli oktober dezember jän mrz okt dez
janvier février fevrier mars avril juin juillet août aout septembre octobre novembre décembre decembre
janv févr fevr avr juil déc
enero febrero marzo abril mayo junio julio agosto septiembre setiembre octubre noviembre diciembre ene abr dic
janeiro fevereiro março marco maio junho julho setembro outubro novembro dezembro fev
gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre
"""
MONTHS: tuple[str, ...] = tuple(sorted(set(_MONTHS.split()), key=lambda word: (-len(word), word)))
"""Month names and their abbreviations (en, de, fr, es, pt, it), longest first, in lower case."""

SHORT_MONTHS: tuple[str, ...] = ("may", "mar", "set", "out", "ago", "gen", "mag", "giu", "lug", "ott", "fév")
"""Months that are words of another language too ("may", "out", "set"): only between a day and a year, or in capitals
beside a day."""

_NO_NAMES = """
a about abdomen abdominal accident acute adult after age aged all also ambulatory an and angiogram angiography ankle
anterior aorta are arrived arthritis artery assessment at attending available axial baby back been before bilateral
biopsy birth bladder blood board bone both bowel brain breast bronchial by called came cancer cannot cardiac cardiology
care center central cervical chest child clear clinic clinical clinician colon comparison complains consultant contact
contrast coronal ct date day days decision denies department diagnosis diffusion diffusivity discharged doctor
dose drainage ear echo ed elbow emergency er evaluation exam examination expiration eye facial family female femur
findings finger fluid follow foot for forearm fracture from full gallbladder general had hand has have he head heart
height hematology her hip his history
home hospital icu id identification identified identifier if impression in
indication infant information inpatient inspiration intensive interval is it kidney knee known large lateral left leg
limited liver location lumbar lung lymph male mammogram mass mean medical medicine midline mild mr mri multiple name
neck nephrology neurology neurosurgery new newborn no node none normal not note number nurse of office on oncology one
or orthopedics other out outpatient pain parkinson patient patients pelvic pelvis phone physician plain pleural portable
position posterior prior procedure prone protocol provider radiograph radiologist radiology rad reason record recent
recommend referring renal report request requested resident result reviewed right room service sex she shoulder signed
sinus skull small soft spine spleen stable status study supine surgeon surgery surgical system team technique
technologist telephone teleradiology test the their there these they this thoracic thorax thyroid tissue today to
trauma treatment two ultrasound unavailable unchanged unit unknown unremarkable upper urgent urology uterus vascular
venous view views dr mrs prof mister jr ward was we weight
well were when which who will with within without woman man wrist xray year years
yesterday you your boy girl gentleman lady m f per pacs ris his him er sono us
"""
NO_NAMES: frozenset[str] = frozenset(_NO_NAMES.split())
"""Words in lower case that stand where a name may stand ("Patient: Male", "reviewed by Radiology") and are none."""

_GIVEN_NAMES = """
james robert john michael william david richard joseph thomas charles christopher daniel matthew anthony donald steven
paul andrew joshua kenneth kevin brian george edward ronald timothy jason jeffrey ryan jacob gary nicholas eric jonathan
stephen larry justin scott brandon benjamin samuel gregory frank alexander raymond patrick jack dennis jerry tyler aaron
jose adam nathan henry douglas zachary peter kyle walter ethan jeremy harold keith christian roger noah gerald carl
terry sean arthur lawrence jesse dylan bryan joe jordan billy bruce albert willie gabriel logan alan juan wayne ralph
roy eugene randy vincent russell louis philip bobby johnny bradley mary patricia jennifer linda elizabeth barbara susan
jessica sarah karen lisa nancy betty margaret sandra ashley kimberly emily donna michelle carol amanda dorothy melissa
deborah stephanie rebecca sharon laura cynthia kathleen amy angela shirley anna brenda pamela emma nicole helen samantha
katherine christine debra rachel carolyn janet catherine maria heather diane ruth julie olivia joyce virginia victoria
kelly lauren christina joan evelyn judith megan andrea cheryl hannah jacqueline martha gloria teresa ann sara madison
frances kathryn janice jean abigail alice julia judy sophia grace denise amber doris marilyn danielle beverly isabella
theresa diana natalie brittany charlotte marie kayla alexis lori jane hans peter klaus jürgen juergen stefan wolfgang
andreas uwe günter guenter dieter horst bernd helmut heinz karl fritz ursula monika petra sabine renate helga karin
brigitte ingrid erika gisela jens lukas jonas felix pierre jacques philippe françois francois michel alain nicolas
nathalie isabelle sylvie monique catherine françoise francoise luc julien antoine carlos antonio manuel francisco
javier miguel pedro luis carmen ana isabel dolores pilar lucía lucia sofía joão joao rui paulo mariana beatriz giovanni
giuseppe marco luca paolo francesco mario luigi giulia chiara francesca alessandro elena ahmed mohammed mohamed ali
fatima omar hassan wei li ming yuki hiroshi priya raj sanjay anil olga ivan dmitri sergei natasha
"""
GIVEN_NAMES: frozenset[str] = frozenset(_GIVEN_NAMES.split())
"""Common given names of several countries, in lower case: a capitalised word after one of them is taken for a surname.
A short list of our own choice; names that are not in it are found by titles, labels and roles only."""

_EPONYM_TAIL = """
disease syndrome sign line lines unit units catheter lymphoma murmur fracture classification criteria score scale
triangle ligament node nodes tumor tumour body bodies contracture deformity thyroiditis anaemia anemia sarcoma palsy
phenomenon reflex maneuver manoeuvre procedure operation test tube stent filter shunt drain cells cell ring hernia
ulcer esophagus oesophagus diverticulum ganglion canal duct pouch space fascia index angle ratio method view position
"""
EPONYM_TAIL: frozenset[str] = frozenset(_EPONYM_TAIL.split())
"""Words after an eponym: "Graham Steell murmur" names no patient."""

_US_STATES = """
AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA
RI SC SD TN TX UT VT VA WA WV WI WY DC PR
"""
US_STATES: tuple[str, ...] = tuple(_US_STATES.split())
