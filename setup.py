"""Puts the presets of /configs into the wheel as the data package visavis.presets; the rest is in pyproject.toml.

A data package outside the package's folder cannot be said in pyproject.toml together with automatic discovery.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["visavis", "visavis.*"]), "visavis.presets"],
    package_dir={"visavis.presets": "configs"},
    package_data={"": ["py.typed", "*.pyi"], "visavis.presets": ["*.toml"]},
)
