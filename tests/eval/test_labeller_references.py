"""The references that the labeller is measured against, read from made-up files in their published layouts."""

import json

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.scripts.bench import labeller as bench
from medvlm.scripts.bench.labeller_references import from_tags, read_negbio, read_open_i, read_rad_restruct

XML = """<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Pneumothorax?</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation><MeSH>{tags}</MeSH></eCitation>"""


def write_report(folder, number, findings, impression, *tags):
    majors = "".join(f"<major>{tag}</major>" for tag in tags)
    (folder / f"{number}.xml").write_text(
        XML.format(number=number, findings=findings, impression=impression, tags=majors), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("tags", "present", "left_open"),
    [
        (["normal"], set(), set()),
        (["Cardiomegaly/mild", "Pleural Effusion/bilateral"], {"Cardiomegaly", "Pleural Effusion"}, set()),
        (["Cardiac Shadow/enlarged"], {"Cardiomegaly"}, set()),
        (["Cardiac Shadow/obscured"], set(), {"Cardiomegaly"}),
        (["Mediastinum/prominent"], {"Enlarged Cardiomediastinum"}, set()),
        (["Opacity/lung/base/left"], {"Lung Opacity"}, set()),
        (["Opacity/thoracic vertebrae"], set(), {"Lung Opacity"}),
        (["Opacity/multiple", "Infiltrate/lung"], {"Lung Opacity"}, set()),
        (["Cicatrix/pleura/apex"], {"Pleural Other"}, {"Lung Opacity"}),
        (["Markings/bronchovascular"], set(), {"Lung Opacity"}),
        (["Calcified Granuloma/lung"], set(), {"Lung Lesion"}),
        (["Surgical Instruments/abdomen"], set(), {"Support Devices"}),
        (["Pulmonary Congestion"], {"Edema"}, set()),
        (["Spine/degenerative"], set(), set()),
    ],
)
def test_what_a_tag_stands_for(tags, present, left_open):
    reference = from_tags(tags)
    assert reference is not None and (reference.present, reference.open) == (present, left_open)
    assert from_tags([*tags, "No Indexing"]) is None


def test_open_i_is_read_and_compared(tmp_path, capsys):
    write_report(tmp_path, 2, "Mild cardiomegaly.", "No effusion.", "Cardiomegaly/mild")
    write_report(tmp_path, 4, "Left effusion.", "", "Pneumothorax/left")
    write_report(tmp_path, 6, "Possible atelectasis.", "", "Pulmonary Atelectasis")
    write_report(tmp_path, 1, "Clear lungs.", "Normal.", "normal")
    reports = read_open_i(tmp_path)
    assert [one.number for one in reports] == [1, 2, 4, 6] and "Pneumothorax" not in reports[2].text
    references = {one.number: from_tags(one.tags) for one in reports}
    counts, errors, rows = bench.compare(reports, references, doubt=False)
    assert rows.sum(axis=0).tolist() == [1, 1, 2]
    assert counts["Pleural Effusion"]["invented"] == 1 and counts["Pneumothorax"]["missed"] == 1
    assert {(one.finding, one.missed): one.why for one in errors} == {
        ("Pneumothorax", True): "tagged, not in the text in words that the rules know",
        ("Pleural Effusion", False): "stated in the text, not tagged",
        ("Atelectasis", True): "in doubt in the text, tagged",
    }
    bench.main([str(tmp_path), "--half", "even", "--out", str(tmp_path / "out.json")])
    said = capsys.readouterr().out
    assert "| Cardiomegaly | 1 | 1 | 0 | 0 | 0 | 1.00 (0.21 to 1.00) | 1.00 (0.21 to 1.00) | 1.000 |" in said
    assert "effusion." not in said, "no text of a report is printed"
    written = json.loads((tmp_path / "out.json").read_text())
    title = "MeSH tags, even (the rules were written on it), what is in doubt counts as present"
    assert written[title]["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_what_is_no_report_is_refused(tmp_path):
    with pytest.raises(BadSample, match="no XML file"):
        read_open_i(tmp_path)
    (tmp_path / "1.xml").write_text("<eCitation/>")
    with pytest.raises(BadSample, match="no uId"):
        read_open_i(tmp_path)


def test_negbio_table(tmp_path):
    path = tmp_path / "openi_gld_std14.csv"
    header = (
        "filename,Atelectasis,Cardiomegaly,Effusion,Infiltration,Mass,Nodule,Pneumonia,Pneumothorax,Consolidation,Edema,"
        "Emphysema,Fibrosis,Pleural_Thickening,Hernia,normal"
    )
    path.write_text(f"{header}\nCXR7,1,0,1,1,0,0,0,0,0,0,0,0,0,0,0\n")
    reference = read_negbio(path)[7]
    assert reference.present == {"Atelectasis", "Pleural Effusion"} and "Lung Opacity" in reference.open
    path.write_text(f"{header}\nCXR7,yes,0,1,1,0,0,0,0,0,0,0,0,0,0,0\n")
    with pytest.raises(BadSample, match="must be 0 or 1"):
        read_negbio(path)


def test_rad_restruct_template(tmp_path):
    filled = [{"body_region": ["left lower lobe"]}]
    template = [
        {"area": "foreign objects", "objects": {"tube, inserted": {"infos": {}, "instances": filled}}},
        {
            "area": "respiratory system",
            "sub_areas": {
                "lung": {"signs": {"opacity": {"infos": {}, "instances": []}, "markings": {"instances": filled}}},
                "pleura": {"signs": {"thickening": {"infos": {}, "instances": filled}}},
            },
        },
        {"area": "mediastinum", "infos": {"localization": {}, "instances": filled}},
    ]
    (tmp_path / "7.json").write_text(json.dumps(template))
    reference = read_rad_restruct(tmp_path, [7, 8])
    assert set(reference) == {7} and reference[7].present == {"Support Devices", "Pleural Other"}
    assert reference[7].open == {"Lung Opacity", "Enlarged Cardiomediastinum"}
