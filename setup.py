"""Puts data beside the modules into the wheel: configs/ as visavis.presets, and the bundled portrait and speech.

Data packages cannot be said in pyproject.toml together with automatic discovery; everything else is there.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["visavis", "visavis.*"]), "visavis.demo", "visavis.presets"],
    package_dir={"visavis.presets": "configs"},
    package_data={
        "": ["py.typed", "*.pyi"],
        "visavis.bench": ["*.html"],
        "visavis.demo": ["*.jpg", "*.wav"],
        "visavis.presets": ["*.toml"],
    },
)
