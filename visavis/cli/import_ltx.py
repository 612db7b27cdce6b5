"""`visavis import-ltx`: a model folder from LTX-Video's weights."""

import argparse

from visavis.cli.errors import CommandError

_PROMPTS = {
    "given": "as given",
    "encoded": "encoded by the source's text encoder",
    "zero": "one zero token, as the source has no text_encoder and tokenizer",
}


def run(options: argparse.Namespace) -> int:
    """Imports, and says what was loaded and what is left to train."""
    try:
        from visavis.models.ltx_import import import_ltx
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[models]'") from error
    try:
        imported = import_ltx(options.source, options.output, preset_name=options.preset)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    print(f"wrote {imported.folder}")
    print(f"  {len(imported.loaded)} tensors of the transformer were loaded, and the VAE")
    print(f"  {len(imported.initialised)} tensors are random until they are trained: the audio attention")
    print(f"  prompt: {_PROMPTS[imported.prompt]}")
    return 0
