"""Packages of the distribution. The folders `cli` and `benchmarks` are installed as `segic_cli` and `segic_benchmarks`,
so that no generic import name is taken; everything else is in pyproject.toml.
"""

from setuptools import find_packages, setup

FOLDERS = {"segic": "segic", "segic_vos": "segic_vos", "segic_cli": "cli", "segic_benchmarks": "benchmarks"}
DATA = ["segic.assets", "segic.training.recipes", "segic_vos.assets"]  # without modules, but packages to setuptools

setup(
    package_dir=FOLDERS,
    packages=[
        *(
            name
            for package, folder in FOLDERS.items()
            for name in (package, *(f"{package}.{child}" for child in find_packages(folder)))
        ),
        *DATA,
    ],
    package_data={"": ["py.typed"], **{name: ["*"] for name in DATA}},
)
