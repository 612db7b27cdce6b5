"""The asset folder: which skins, hair, brows, lashes, eyes and teeth there are to wear."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visavis.training.data.makehuman import AssetError

# These cover an eye or do not fit a head and shoulders picture (tried, see the assets' README).
HAIR_THAT_COVERS_THE_FACE = frozenset({"bob01", "bob02", "braid01", "short03"})


@dataclass(frozen=True, slots=True)
class Garment:
    """Something worn on the base mesh, with its colour texture."""

    # its .mhclo file
    fit: Path
    texture: Path
    # True when the texture's alpha cuts the shape out: hair, brows, lashes.
    transparent: bool


@dataclass(frozen=True, slots=True)
class Wardrobe:
    """Names of what the folder holds; `garment` makes one wearable."""

    root: Path
    skins: tuple[str, ...]
    hair: tuple[str, ...]
    eyebrows: tuple[str, ...]
    eyelashes: tuple[str, ...]
    eyes: tuple[str, ...]

    def skin_texture(self, skin: str) -> Path:
        return self.root / "skins" / "textures" / f"{skin}.png"

    def hair_garment(self, hair: str) -> Garment:
        folder = self.root / "hair" / hair
        return Garment(folder / f"{hair}.mhclo", _only(folder, "*diffuse*.png"), transparent=True)

    def eyebrow_garment(self, eyebrow: str) -> Garment:
        folder = self.root / "eyebrows" / eyebrow
        return Garment(folder / f"{eyebrow}.mhclo", folder / f"{eyebrow}.png", transparent=True)

    def eyelash_garment(self, eyelashes: str) -> Garment:
        folder = self.root / "eyelashes" / eyelashes
        return Garment(folder / f"{eyelashes}.mhclo", folder / f"{eyelashes}.png", transparent=True)

    def eye_garment(self, eyes: str) -> Garment:
        # The high-poly eyes' cornea shell hides the iris.
        fit = self.root / "eyes" / "low-poly" / "low-poly.mhclo"
        return Garment(fit, self.root / "eyes" / "materials" / f"{eyes}.png", transparent=False)

    def mouth_garments(self) -> tuple[Garment, Garment]:
        teeth = self.root / "teeth" / "teeth_base" / "teeth_base.mhclo"
        tongue = self.root / "tongue" / "tongue01"
        return (
            Garment(teeth, self.root / "teeth" / "materials" / "teeth.png", transparent=False),
            Garment(tongue / "tongue01.mhclo", tongue / "tongue01_diffuse.png", transparent=False),
        )


def open_wardrobe(root: Path) -> Wardrobe:
    """Lists an asset folder (it or its `makehuman/` holds `skins/`, `hair/`, ...). Raises AssetError if incomplete."""
    if (root / "makehuman").is_dir():
        root = root / "makehuman"
    if not root.is_dir():
        raise AssetError(f"no asset folder at {root}: download the MakeHuman system assets (CC0) and name their folder")
    wardrobe = Wardrobe(
        root=root,
        skins=_stems(root / "skins" / "textures", "*_diffuse*.png"),
        hair=tuple(name for name in _folders(root / "hair") if name not in HAIR_THAT_COVERS_THE_FACE),
        eyebrows=_folders(root / "eyebrows"),
        eyelashes=_folders(root / "eyelashes"),
        eyes=_stems(root / "eyes" / "materials", "*_eye.png"),
    )
    missing = [kind for kind in ("skins", "hair", "eyebrows", "eyelashes", "eyes") if not getattr(wardrobe, kind)]
    if missing:
        raise AssetError(f"the asset folder {root} has no {', '.join(missing)}")
    return wardrobe


def _stems(folder: Path, pattern: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob(pattern)))


def _folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise AssetError(f"the asset folder has no {pattern} in {folder.name}")
    return found[0]
