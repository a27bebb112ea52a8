"""Virtual patients: seeded images, volumes, clips, reports and questions that need no download.

``patient`` draws who has what and where, ``anatomy`` is the shared geometry, ``radiograph``, ``ct`` and ``cine`` show
it, ``language`` says it, ``files`` writes real PNG, DICOM, NIfTI and MP4, ``rows`` makes manifest rows and ``write``
is the command.
"""
