"""Types that the visual editor offers and this gateway does not run, and what each of them would need."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_IMAGES = "it has no image models"
_VIDEOS = "it has no video models"
_SOUND = "it has no speech or music models"
_PDF = "it reads and writes no PDF"

REFUSALS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("generate_image", "edit_image", "image_to_image", "upscale_image"), _IMAGES),
        **dict.fromkeys(("generate_video", "text_to_video", "image_to_video"), _VIDEOS),
        **dict.fromkeys(("generate_voice", "generate_music", "transcribe_audio", "listen_voice"), _SOUND),
        **dict.fromkeys(("read_pdf", "write_pdf"), _PDF),
        "model_residency": "it does not load or unload models",
        "edit_json_schema": "draw the finished schema with 'json_schema' instead",
        "read_artifact": "artifacts are read over HTTP; use 'read_file' for files of the workspace",
        "export_artifact": "artifacts are read over HTTP; use 'write_file' for files of the workspace",
        "list_folder_files": "name the file with 'read_file', or list with a tool",
        "import_workspace_file": "use 'read_file'",
    }
)
"""Why a type is refused, by its name; a flow that has such a node is not compiled."""
