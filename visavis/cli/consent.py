"""Who answers for the consent of the person in a portrait."""

import argparse
import getpass

from visavis.client import Consent
from visavis.v1 import talking_head_pb2


def stated_consent(options: argparse.Namespace, command: str, kept: str) -> Consent:
    """The record, from the options of `add_consent`; says on the terminal what is stated by going on."""
    name: str = options.consent_by or getpass.getuser()
    if options.synthetic_person:
        return Consent.synthetic_person(name, f"stated with {command} --synthetic-person")
    print(f"By going on, {name} states that the person in {options.portrait} agreed; kept {kept}.")
    return Consent.subject_agreed(name, f"stated by running {command}")


def consent_in_words(consent: Consent) -> str:
    """The record in one line, for a file's metadata."""
    synthetic = consent.basis == talking_head_pb2.CONSENT_BASIS_SYNTHETIC_PERSON
    basis = "the portrait shows no real person" if synthetic else "the person in the portrait agreed"
    return f"{basis}, says {consent.granted_by} ({consent.statement})"
