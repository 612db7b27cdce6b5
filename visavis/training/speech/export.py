"""What ships of a trained SpeechAE: averaged weights with the statistics of its features."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from visavis.training.model_folder import ModelCard, read_run, write_part
from visavis.training.speech.training import speech_ae_network, states_of_run

_PURPOSE: Final = """\
Speech autoencoder of the preset `{preset}`: the hidden states of Whisper's encoder, windowed by frame at 25 frames a
second, become {latent_dim} numbers twice for every 8 frames, the first frame alone; causal, so a live session equals
the whole clip. Made for the speech latents that drive a talking head."""
_DATA: Final = """\
{clips} clips of 4.8 seconds: the speech of rendered clips (`visavis data render`, docs/data.md), and more sentences of
the same kind without pictures. All voices are synthetic (piper, flite, espeak-ng; English, German, Spanish); those of
the test split were not heard. The features are those of Whisper **tiny.en** on windows of 3 s of past, the chunk and
80 ms of future, as a live session hears them; the paper's Whisper is multilingual."""
_LIMITS: Final = """\
It fits the states of exactly this Whisper: another encoder's, also the multilingual one's, need another SpeechAE. It
has heard synthetic voices that read short sentences, no recorded speech, no music and little noise. The decoder is for
training and measuring; a talking head uses the latents."""


def export_speech_ae(run: Path, out: Path, dataset: Path, cache: Path | None) -> None:
    """Writes the folder `out` from the last checkpoint in `run`.

    Raises TrainingError when there is none, or the speech of the run is not there any more.
    """
    finished = read_run(run)
    speech_ae = speech_ae_network(finished.plan, None)
    speech_ae.load_state_dict(finished.averaged_weights)
    with states_of_run(finished.plan, dataset, run, cache)["train"] as train:
        clips = len(train)
    card = ModelCard(
        title=f"SpeechAE of {finished.plan.preset}",
        purpose=_PURPOSE.format(preset=finished.plan.preset, latent_dim=speech_ae.latent_dim),
        data=_DATA.format(clips=clips),
        limits=_LIMITS,
    )
    write_part(speech_ae, out, finished, card)
