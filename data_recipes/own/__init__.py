"""Your own data: tables, conversations, preference pairs and DICOM folders, by a recipe that you can read and edit."""
