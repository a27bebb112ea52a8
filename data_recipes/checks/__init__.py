"""Checks of a data set before it is trained on: leaks, copies, names, sides, empty answers, licences, files, ..."""
