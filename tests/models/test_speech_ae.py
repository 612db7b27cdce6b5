from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from visavis.models.presets import load_preset
from visavis.models.speech_ae import SpeechAE, SpeechAEDecoderState, SpeechAEEncoderState
from visavis.models.speech_features import clip_features_from_states, features_from_states


def _small() -> SpeechAE:
    torch.manual_seed(0)
    speech_ae: SpeechAE = SpeechAE(feature_dim=48, channels=(16, 24, 32), latent_dim=20).eval()
    return speech_ae


def _features(frames: int, batch_size: int = 2, feature_dim: int = 48) -> torch.Tensor:
    return torch.randn(batch_size, frames, 10, feature_dim, generator=torch.Generator().manual_seed(frames))


def _encode_in_chunks(speech_ae: SpeechAE, features_BFWX: torch.Tensor, borders: list[int]) -> torch.Tensor:
    first, state = speech_ae.encode_first_frame(features_BFWX[:, :1])
    parts = [first]
    for start, end in pairwise([1, *borders]):
        part, state = speech_ae.encode_chunk(features_BFWX[:, start:end], state)
        parts.append(part)
    return torch.cat(parts, dim=1)


def _decode_in_chunks(speech_ae: SpeechAE, latents_BTWD: torch.Tensor, borders: list[int]) -> torch.Tensor:
    first, state = speech_ae.decode_first_frame(latents_BTWD[:, :1])
    parts = [first]
    for start, end in pairwise([1, *borders]):
        part, state = speech_ae.decode_chunk(latents_BTWD[:, start:end], state)
        parts.append(part)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(("channels", "latent_dim"), [((256, 384, 128), 512), ((512, 1024, 512), 2048)])
@torch.no_grad()
def test_shapes_of_the_presets(channels: tuple[int, int, int], latent_dim: int) -> None:
    speech_ae = SpeechAE(feature_dim=1920, channels=channels, latent_dim=latent_dim)

    latents_BTWD = speech_ae.encode(_features(25, batch_size=1, feature_dim=1920))

    assert latents_BTWD.shape == (1, 4, 2, latent_dim)
    assert speech_ae.decode(latents_BTWD).shape == (1, 25, 10, 1920)


def test_mini_is_small_enough_to_ship_with_the_vae_in_40_megabytes() -> None:
    speech_ae = SpeechAE(**load_preset("mini").speech_ae)

    assert sum(parameter.numel() for parameter in speech_ae.parameters()) < 4_600_000


@torch.no_grad()
def test_the_way_of_training_is_that_of_encode_and_decode() -> None:
    speech_ae = _small()
    speech_ae.set_feature_statistics(torch.linspace(-3, 3, 48), torch.linspace(0.1, 8, 48))
    states_BNPX = torch.randn(2, 3, 56, 48, generator=torch.Generator().manual_seed(3))
    features_BFWX = torch.stack([clip_features_from_states(states_NPX[:, :, None]) for states_NPX in states_BNPX])

    rebuilt_BFWX, wanted_BFWX = speech_ae(states_BNPX, (0, 4, 9))

    # `clip_features_from_states` starts at the last frame of the first chunk, training 16 frames before it.
    assert rebuilt_BFWX.shape == wanted_BFWX.shape == (2, 65, 3, 48)
    torch.testing.assert_close(wanted_BFWX[:, 16:], speech_ae.normalise(features_BFWX)[:, :, [0, 4, 9]])
    first_BFWX = torch.stack([features_from_states(states_NPX[:1, :, None])[0] for states_NPX in states_BNPX])
    whole_BFWX = torch.cat([first_BFWX[:, 7:-1], features_BFWX], dim=1)
    decoded_BFWX = speech_ae.normalise(speech_ae.decode(speech_ae.encode(whole_BFWX)))[:, :, [0, 4, 9]]
    torch.testing.assert_close(rebuilt_BFWX, decoded_BFWX, rtol=0, atol=1e-4)


@pytest.mark.parametrize("chunk_frames", [8, 24, 48])
@torch.no_grad()
def test_encoding_in_chunks_equals_the_whole(chunk_frames: int) -> None:
    speech_ae, features_BFWX = _small(), _features(97)

    chunked = _encode_in_chunks(speech_ae, features_BFWX, list(range(1 + chunk_frames, 98, chunk_frames)))

    torch.testing.assert_close(chunked, speech_ae.encode(features_BFWX), rtol=0, atol=1e-4)


@pytest.mark.parametrize("chunk_latents", [1, 3, 6])
@torch.no_grad()
def test_decoding_in_chunks_equals_the_whole(chunk_latents: int) -> None:
    speech_ae = _small()
    latents_BTWD = speech_ae.encode(_features(97))

    chunked = _decode_in_chunks(speech_ae, latents_BTWD, list(range(1 + chunk_latents, 14, chunk_latents)))

    torch.testing.assert_close(chunked, speech_ae.decode(latents_BTWD), rtol=0, atol=1e-4)


@torch.no_grad()
def test_chunks_of_unequal_length_equal_the_whole() -> None:
    speech_ae, features_BFWX = _small(), _features(97)
    whole_BTWD = speech_ae.encode(features_BFWX)

    assert torch.allclose(_encode_in_chunks(speech_ae, features_BFWX, [9, 65, 97]), whole_BTWD, rtol=0, atol=1e-4)
    decoded = _decode_in_chunks(speech_ae, whole_BTWD, [2, 9, 13])
    assert torch.allclose(decoded, speech_ae.decode(whole_BTWD), rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_first_frame_stands_alone() -> None:
    speech_ae, features_BFWX = _small(), _features(25)
    whole_BTWD = speech_ae.encode(features_BFWX)

    torch.testing.assert_close(speech_ae.encode(features_BFWX[:, :1]), whole_BTWD[:, :1], rtol=0, atol=1e-5)
    torch.testing.assert_close(speech_ae.decode(whole_BTWD[:, :1]), speech_ae.decode(whole_BTWD)[:, :1])


@torch.no_grad()
def test_the_future_cannot_change_the_past() -> None:
    speech_ae, features_BFWX = _small(), _features(49)
    other_BFWX = features_BFWX.clone()
    other_BFWX[:, 25:] += 1
    first_BTWD, second_BTWD = speech_ae.encode(features_BFWX), speech_ae.encode(other_BFWX)

    assert torch.equal(first_BTWD[:, :4], second_BTWD[:, :4])
    assert not torch.equal(first_BTWD[:, 4], second_BTWD[:, 4])
    first_BFWX, second_BFWX = speech_ae.decode(first_BTWD), speech_ae.decode(second_BTWD)
    assert torch.equal(first_BFWX[:, :25], second_BFWX[:, :25])
    assert not torch.equal(first_BFWX[:, 25], second_BFWX[:, 25])


@torch.no_grad()
def test_every_frame_reaches_its_own_latent_frame() -> None:
    speech_ae, features_BFWX = _small(), _features(25)
    latents_BTWD = speech_ae.encode(features_BFWX)

    for frame in range(25):
        other_BFWX = features_BFWX.clone()
        other_BFWX[:, frame] += 1
        changed = (speech_ae.encode(other_BFWX) - latents_BTWD).abs().amax(dim=(0, 2, 3)) > 1e-3
        assert changed[(frame + 7) // 8]


@torch.no_grad()
def test_the_same_state_twice_gives_the_same_result() -> None:
    speech_ae, features_BFWX = _small(), _features(49)
    _, encoder_state = speech_ae.encode_first_frame(features_BFWX[:, :1])
    before = [past.clone() for past in encoder_state.pasts]

    first_BTWD, _ = speech_ae.encode_chunk(features_BFWX[:, 1:25], encoder_state)
    speech_ae.encode_chunk(features_BFWX[:, 25:], encoder_state)
    again_BTWD, _ = speech_ae.encode_chunk(features_BFWX[:, 1:25], encoder_state)

    assert torch.equal(first_BTWD, again_BTWD)
    assert all(torch.equal(past, kept) for past, kept in zip(encoder_state.pasts, before, strict=True))
    _, decoder_state = speech_ae.decode_first_frame(first_BTWD[:, :1])
    decoded_BFWX, _ = speech_ae.decode_chunk(first_BTWD, decoder_state)
    assert torch.equal(decoded_BFWX, speech_ae.decode_chunk(first_BTWD, decoder_state)[0])
    with pytest.raises(FrozenInstanceError):
        encoder_state.pasts = ()  # type: ignore[misc]


@torch.no_grad()
def test_a_state_holds_only_the_last_inputs() -> None:
    speech_ae, features_BFWX = _small(), _features(25)
    _, encoder_state = speech_ae.encode_first_frame(features_BFWX[:, :1])
    latents_BTWD, encoder_state = speech_ae.encode_chunk(features_BFWX[:, 1:], encoder_state)
    _, decoder_state = speech_ae.decode_first_frame(latents_BTWD[:, :1])

    assert [past.shape[2] for past in encoder_state.pasts] == [1, 1, 1]
    assert {past.shape[2] for past in decoder_state.pasts} == {2}
    for past in (*encoder_state.pasts, *decoder_state.pasts):
        assert past.untyped_storage().nbytes() == past.numel() * past.element_size()


@torch.no_grad()
def test_latents_have_unit_scale_whatever_the_features() -> None:
    speech_ae = _small()

    for scale in (0.1, 1.0, 10.0):
        latents_BTWD = speech_ae.encode(scale * _features(25))
        torch.testing.assert_close(latents_BTWD.square().mean(dim=-1), torch.ones(2, 4, 2), rtol=0, atol=1e-2)
        assert latents_BTWD.std(dim=1).mean() > 0.1


@torch.no_grad()
def test_feature_statistics_bring_channels_to_one_scale() -> None:
    mean_X, std_X = torch.linspace(-3, 3, 48), torch.linspace(0.1, 8, 48)
    plain, scaled = _small(), _small()
    scaled.set_feature_statistics(mean_X, std_X)

    latents_BTWD = plain.encode(_features(25))

    torch.testing.assert_close(scaled.encode(_features(25) * std_X + mean_X), latents_BTWD, rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled.decode(latents_BTWD), plain.decode(latents_BTWD) * std_X + mean_X)
    with pytest.raises(ValueError, match="above 0"):
        scaled.set_feature_statistics(mean_X, std_X - 1)
    with pytest.raises(ValueError, match="statistics must be"):
        scaled.set_feature_statistics(mean_X[1:], std_X[1:])


def test_learns_to_reconstruct() -> None:
    speech_ae, features_BFWX = _small().train(), _features(17)
    optimizer = torch.optim.Adam(speech_ae.parameters(), lr=3e-3)

    losses = []
    for _ in range(60):
        loss = (speech_ae.decode(speech_ae.encode(features_BFWX)) - features_BFWX).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert all(parameter.grad is not None for parameter in speech_ae.parameters())
    assert losses[-1] < 0.8 * losses[0]


@torch.no_grad()
def test_runs_in_bfloat16() -> None:
    speech_ae, features_BFWX = _small(), _features(25)
    exact_BTWD = speech_ae.encode(features_BFWX)
    speech_ae.bfloat16()

    first, state = speech_ae.encode_first_frame(features_BFWX[:, :1].bfloat16())
    rest, _ = speech_ae.encode_chunk(features_BFWX[:, 1:].bfloat16(), state)

    rounded_BTWD = torch.cat([first, rest], dim=1)
    assert rounded_BTWD.dtype == torch.bfloat16
    assert (rounded_BTWD.float() - exact_BTWD).abs().mean() < 0.05
    assert speech_ae.decode(rounded_BTWD).dtype == torch.bfloat16


@torch.no_grad()
def test_saves_and_loads(tmp_path: Path) -> None:
    speech_ae = _small()
    speech_ae.set_feature_statistics(torch.full((48,), 0.5), torch.full((48,), 2.0))
    speech_ae.save_pretrained(tmp_path / "speech_ae")

    loaded = SpeechAE.from_pretrained(tmp_path, subfolder="speech_ae")

    assert (tmp_path / "speech_ae" / "diffusion_pytorch_model.safetensors").exists()
    assert torch.equal(loaded.encode(_features(9)), speech_ae.encode(_features(9)))
    assert torch.equal(loaded.feature_std, speech_ae.feature_std)


@pytest.mark.parametrize("shape", [(1, 8, 10, 48), (1, 0, 10, 48), (0, 9, 10, 48), (1, 9, 9, 48), (1, 9, 10, 47), (9,)])
def test_features_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features must"):
        _small().encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3, 2, 19), (1, 3, 1, 20), (1, 0, 2, 20), (3, 2, 20)])
def test_latents_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="latents must"):
        _small().decode(torch.zeros(shape))


def test_a_chunk_or_state_that_does_not_fit_is_refused() -> None:
    speech_ae, features_BFWX = _small(), _features(25)
    latents_BTWD, encoder_state = speech_ae.encode_first_frame(features_BFWX[:, :1])
    _, decoder_state = speech_ae.decode_first_frame(latents_BTWD)

    with pytest.raises(ValueError, match="8n frames"):
        speech_ae.encode_chunk(features_BFWX, encoder_state)
    with pytest.raises(ValueError, match="first frame must"):
        speech_ae.encode_first_frame(features_BFWX)
    with pytest.raises(ValueError, match="first latent must"):
        speech_ae.decode_first_frame(latents_BTWD.expand(-1, 2, -1, -1))
    with pytest.raises(ValueError, match="batch of 1"):
        speech_ae.encode_chunk(features_BFWX[:1, 1:], encoder_state)
    with pytest.raises(ValueError, match="does not belong"):
        speech_ae.encode_chunk(features_BFWX[:, 1:], SpeechAEEncoderState(decoder_state.pasts))
    with pytest.raises(ValueError, match="does not belong"):
        speech_ae.decode_chunk(latents_BTWD, SpeechAEDecoderState(encoder_state.pasts))
    with pytest.raises(ValueError, match="3 channel counts"):
        SpeechAE(feature_dim=48, channels=(8, 8), latent_dim=4)
