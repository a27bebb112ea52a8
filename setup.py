"""The folder X/ is the package medvlm.X; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = ("model", "data_recipes", "eval", "train", "scripts")

packages = [
    f"medvlm.{name}" for folder in FOLDERS for name in [folder, *(f"{folder}.{sub}" for sub in find_packages(folder))]
]

setup(packages=packages, package_dir={f"medvlm.{folder}": folder for folder in FOLDERS})
