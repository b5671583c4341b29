"""Bring an asset into its folder: from the Hugging Face hub, over HTTP, from this repository; or link what is on this machine.

What arrives is hashed; where a hash, a size or a revision was recorded before (config/lock.yaml), it has to be the same. A
hub download is checked by size only in huggingface_hub, and a "successful" file with other bytes has been seen.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from pathlib import Path

import requests
from tqdm import tqdm

from .. import entry_points
from ..artifacts import LOCAL, MANIFEST, AssetManifest
from ..errors import AssetError
from ..files import folder_digest
from ..study.settings import HubAsset, LocalAsset, MadeAsset, ShippedAsset, UrlAsset, asset_identity

log = logging.getLogger(__name__)

CHUNK = 1 << 16
ATTEMPTS = 5
SPARE_SPACE = 1 << 30


def fetch(name: str, asset: HubAsset | UrlAsset | ShippedAsset | LocalAsset, folder: Path, root: Path) -> AssetManifest:
    """Make ``folder`` hold the asset and its manifest; what is already whole is kept.

    Args:
        root: the checkout, for assets that come with it, and where a local one's relative path starts.

    Raises:
        AssetError: saying what is missing, damaged or in the way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    if (folder / LOCAL).is_symlink():
        (folder / LOCAL).unlink()
    if isinstance(asset, LocalAsset):
        return _link_local(name, asset, folder, root)
    revision: str | None = None
    if isinstance(asset, HubAsset):
        revision = _fetch_hub(name, asset, folder)
    elif isinstance(asset, UrlAsset):
        _fetch_url(name, asset, folder)
    else:
        revision = _copy_shipped(name, asset, folder, root)
    manifest = AssetManifest.record(folder, name, asset_identity(asset), revision)
    if isinstance(asset, UrlAsset) and asset.sha256 and manifest.files[0].sha256 != asset.sha256:
        (folder / manifest.files[0].path).unlink()
        (folder / MANIFEST).unlink()
        raise AssetError(
            f"{name}: {asset.address} sent a file with SHA-256 {manifest.files[0].sha256}, recorded is {asset.sha256}. "
            "It was deleted. Try again; if it stays so, the publisher changed the file."
        )
    return manifest


def _link_local(name: str, asset: LocalAsset, folder: Path, root: Path) -> AssetManifest:
    source = (root / asset.path).resolve()
    if not source.exists():
        raise AssetError(f"{name}: {source} is not there. assets.{name}.path names a file or a folder of this machine.")
    link = folder / (LOCAL if source.is_dir() else source.name)
    if link.is_symlink():
        link.unlink()
    if beside := next(folder.glob("[!.]*"), None):
        raise AssetError(f"{name}: {beside} is in the way, from an earlier download: remove it")
    link.symlink_to(source)
    manifest = AssetManifest.record(folder, name, asset_identity(asset), None)
    if asset.revision not in (None, manifest.revision):
        (folder / MANIFEST).unlink()
        raise AssetError(
            f"{name}: {source} has the digest {manifest.revision}, the configuration says {asset.revision}. Restore it; or "
            f"write down its digest as assets.{name}.revision: it is another input then, and trains other weights."
        )
    return manifest


def _fetch_hub(name: str, asset: HubAsset, folder: Path) -> str:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    # whoever runs the mirror is not to get the token of the hub
    token = False if asset.mirror else None
    try:
        commit = HfApi(asset.mirror, token).repo_info(asset.repo, repo_type=asset.type, revision=asset.revision).sha
        snapshot_download(
            asset.repo,
            repo_type=asset.type,
            revision=commit,
            allow_patterns=list(asset.files) or None,
            local_dir=folder,
            endpoint=asset.mirror,
            token=token,
        )
    except GatedRepoError as error:
        raise AssetError(
            f"{name}: {asset.repo} is gated. Accept its terms on the hub and set HF_TOKEN to a token that may read it."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise AssetError(f"{name}: the hub has no {asset.type} {asset.repo} at revision {asset.revision or 'main'}") from error
    except (HfHubHTTPError, OSError) as error:
        raise AssetError(
            f"{name}: {asset.repo} could not be downloaded: {error}. Start again; finished files are kept."
        ) from error
    return str(commit)


def _fetch_url(name: str, asset: UrlAsset, folder: Path) -> None:
    """One file over HTTP, resumed where an earlier attempt stopped, into place only when it is whole."""
    target = folder / (asset.url.rstrip("/").rpartition("/")[2] or "file")
    if target.is_file():
        return
    part = folder / f".{target.name}.part"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download(name, asset, part)
            break
        except (requests.RequestException, OSError) as error:
            if error.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT):
                raise AssetError(
                    f"{name}: no space left in {folder} ({error.strerror}). Make room; the download resumes."
                ) from error
            if attempt == ATTEMPTS:
                raise AssetError(
                    f"{name}: {asset.address} failed {ATTEMPTS} times: {error}. Start again; it resumes."
                ) from error
            log.warning("%s: %s; attempt %d of %d", name, error, attempt + 1, ATTEMPTS)
            time.sleep(min(2**attempt, 30))
    part.replace(target)


def _download(name: str, asset: UrlAsset, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with requests.get(asset.address, headers=headers, stream=True, timeout=60) as response:
        if response.status_code == 416 and have:
            # nothing beyond what is there: whole, or a remnant of another file; the size below decides
            part.unlink()
            raise requests.ConnectionError("the server has fewer bytes than an earlier attempt left; starting over")
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise requests.ConnectionError("the server sent another range than was asked for; starting over")
        length = response.headers.get("Content-Length")
        expected = have + int(length) if length else None
        if asset.size is not None and expected not in (None, asset.size):
            raise AssetError(f"{name}: {asset.address} has {expected} bytes, recorded are {asset.size}")
        if expected is not None and shutil.disk_usage(part.parent).free < expected - have + SPARE_SPACE:
            raise AssetError(f"{name}: {expected - have} bytes are to come and {part.parent} has no room for them")
        progress = tqdm(total=expected, initial=have, unit="B", unit_scale=True, desc=name, mininterval=10)
        with open(part, "ab" if have else "wb") as file, progress as bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if expected is not None and part.stat().st_size != expected:
        raise requests.ConnectionError(f"the connection ended after {part.stat().st_size} of {expected} bytes")


def _copy_shipped(name: str, asset: ShippedAsset, folder: Path, root: Path) -> str:
    source = root / asset.path
    if not source.is_dir():
        raise AssetError(f"{name}: {source} is not there; this checkout is incomplete")
    digest = folder_digest(source)
    if digest != asset.revision:
        raise AssetError(
            f"{name}: {source} has the digest {digest}, the configuration says {asset.revision}. Restore the folder, or make "
            "the weights anew and write down their digest."
        )
    for path in source.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return digest


def make(name: str, asset: MadeAsset, folder: Path) -> AssetManifest:
    """Have an asset made on the spot."""
    maker = entry_points.load(asset.maker)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    maker(folder, **asset.arguments)
    return AssetManifest.record(folder, name, asset_identity(asset), None)
