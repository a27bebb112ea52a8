"""De-identification: DICOM attributes by the basic profile of PS3.15, texts by rules, text in pixels by OCR."""
