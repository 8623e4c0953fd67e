"""An export on disk: folder, manifest, files, state."""
